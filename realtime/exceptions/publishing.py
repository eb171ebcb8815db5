"""What keeps an event from being published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from realtime.exceptions.base import RealtimeError

if TYPE_CHECKING:
    from realtime.protocol.events import Event

__all__ = [
    "AmbiguousTransaction",
    "DataNotSerializable",
    "DataTooLarge",
    "InvalidData",
    "PublishError",
]


class InvalidData(RealtimeError, ValueError):
    """The data of an event cannot be sent."""


class DataNotSerializable(InvalidData):
    """A value inside the data has no JSON form.

    Attributes:
        path: where the value stands, such as ``data["lines"][3].price``.
        reason: what is wrong with it, as a clause.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} cannot be sent as JSON: {self.reason}"


class DataTooLarge(InvalidData):
    """The data is larger than ``REALTIME["LIMITS"]["event_bytes"]``.

    Attributes:
        size: bytes of the data as JSON.
        limit: bytes that are allowed.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"the data is {self.size} bytes of JSON and {self.limit} are allowed; publish a "
            'reference that clients fetch, or raise REALTIME["LIMITS"]["event_bytes"]'
        )


class PublishError(RealtimeError):
    """An event could not be appended to its log, and no transaction keeps it.

    Attributes:
        reason: what went wrong.
        published: the events that were appended before; empty for ``publish()``.
    """

    def __init__(self, reason: str, published: Sequence[Event] = ()) -> None:
        super().__init__(reason, tuple(published))
        self.reason = reason
        self.published = tuple(published)

    def __str__(self) -> str:
        if self.published:
            return f"{self.reason} ({len(self.published)} events were published before)"
        return self.reason


class AmbiguousTransaction(PublishError):
    """Another alias of this thread is in ``atomic()`` and ``using`` was not given.

    Attributes:
        alias: the alias that publish() would have used.
        atomic: the aliases that are in a transaction.
    """

    def __init__(self, alias: str, atomic: Sequence[str]) -> None:
        super().__init__(
            f"no transaction is open on {alias!r}, but one is on {', '.join(map(repr, atomic))}; "
            f"say which one the event belongs to: publish(…, using={atomic[0]!r}) waits for its "
            f"commit, using={alias!r} publishes now"
        )
        self.alias = alias
        self.atomic = tuple(atomic)

    def __reduce__(self) -> tuple[Any, ...]:
        return AmbiguousTransaction, (self.alias, self.atomic)
