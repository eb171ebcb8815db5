from typing import Any

from realtime import Topic, register


@register("board")
class BoardTopic(Topic):
    presence = True

    def can_subscribe(self, user: Any) -> bool:
        return True
