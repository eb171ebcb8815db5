"""What the desk's page follows."""

from typing import Any

from realtime import Topic, register


@register("orders.<int:pk>")
class OrderTopic(Topic):
    """One order."""

    pk: int
    anonymous = True  # the demo has no login; without this line visitors are refused

    def can_subscribe(self, user: Any) -> bool:
        """Let everybody follow; a real shop asks whether the order is this user's."""
        return True
