"""Names that break the grammar, and names of nothing."""

from __future__ import annotations

from collections.abc import Sequence

from realtime.exceptions.base import RealtimeError, shorten

__all__ = [
    "InvalidEventName",
    "InvalidName",
    "InvalidPattern",
    "InvalidTopicName",
    "InvalidTopicValue",
    "PresenceDisabled",
    "UnknownTopic",
]


class InvalidName(RealtimeError, ValueError):
    """A name breaks the grammar.

    Attributes:
        name: the name as it was given.
        reason: what is wrong with it, as a clause.
    """

    kind = "name"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{shorten(self.name)} is not a valid {self.kind}: {self.reason}"


class InvalidTopicName(InvalidName):
    """A topic name breaks the grammar of ``realtime.protocol.names``."""

    kind = "topic name"


class InvalidTopicValue(InvalidTopicName):
    """No topic of a pattern has a value that was given for it.

    Attributes:
        name: the pattern's text.
        reason: the value, and what is wrong with it.
    """

    def __str__(self) -> str:
        return f"no topic {shorten(self.name)} has {self.reason}"


class InvalidPattern(InvalidName):
    """A pattern given to ``register()`` breaks the grammar of ``realtime.protocol.names``."""

    kind = "topic pattern"


class InvalidEventName(InvalidName):
    """An event name is empty, too long or has characters that are not allowed."""

    kind = "event name"


class UnknownTopic(RealtimeError, LookupError):
    """No registered pattern matches a topic name.

    Attributes:
        name: the topic name.
        nearest: the registered patterns most like it, best first.
        reason: which value of it is none of a pattern of its shape, as a clause, or "".
    """

    def __init__(self, name: str, nearest: Sequence[str] = (), reason: str = "") -> None:
        super().__init__(name, tuple(nearest), reason)
        self.name = name
        self.nearest = tuple(nearest)
        self.reason = reason

    def __str__(self) -> str:
        text = f"no registered topic matches {shorten(self.name)}"
        if self.reason:
            text += f": {self.reason}"
        if self.nearest:
            return f"{text}; the nearest patterns are {', '.join(map(repr, self.nearest))}"
        return f'{text}; none is registered: add @register("…") to a topics.py of an installed app'


class PresenceDisabled(RealtimeError):
    """A topic keeps no presence, so nobody knows who is on it.

    Attributes:
        topic: the topic's name.
        declared: the name of its class.
    """

    def __init__(self, topic: str, declared: str) -> None:
        super().__init__(topic, declared)
        self.topic = topic
        self.declared = declared

    def __str__(self) -> str:
        return f"{self.topic} keeps no presence; set `presence = True` on {self.declared}"
