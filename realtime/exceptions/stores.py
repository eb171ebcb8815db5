"""Cursors and the logs that they are places in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from realtime.exceptions.base import RealtimeError, shorten

if TYPE_CHECKING:
    from realtime.protocol.events import Cursor

__all__ = ["CursorExpired", "InvalidCursor", "StoreError", "StoreUnavailable"]


class InvalidCursor(RealtimeError, ValueError):
    """Text that is not a cursor, or a composite cursor without a place of the topic asked for.

    Attributes:
        text: the text as it was given.
        topic: the topic whose place it lacks, or "".
    """

    def __init__(self, text: str, topic: str = "") -> None:
        super().__init__(text, topic)
        self.text = text
        self.topic = topic

    def __str__(self) -> str:
        if self.topic:
            text, topic = shorten(self.text), shorten(self.topic)
            return f"the composite cursor {text} has no place of {topic}; ask for it without since"
        return f"{shorten(self.text)} is not a cursor; send one exactly as the server gave it"


class CursorExpired(RealtimeError):
    """The log cannot be read on from a cursor: what follows it is not known to be whole.

    A client that resumes is reset to ``head``.
    A hub, whose cursors are never forged, treats ``contradicts`` as a rewound log.

    Attributes:
        topic: the topic's name.
        cursor: the cursor that was asked for.
        head: where the log stands.
        contradicts: True if the cursor contradicts the log (its seq is ahead of the head or
            carries another tag), False if its event was trimmed or belongs to another epoch.
    """

    def __init__(self, topic: str, cursor: Cursor, head: Cursor, *, contradicts: bool) -> None:
        super().__init__(topic, cursor, head, contradicts)
        self.topic = topic
        self.cursor = cursor
        self.head = head
        self.contradicts = contradicts

    def __reduce__(self) -> tuple[Any, ...]:
        return _expired, (self.topic, self.cursor, self.head, self.contradicts)

    def __str__(self) -> str:
        why = "does not belong to this log" if self.contradicts else "is older than the log"
        return f"the cursor {self.cursor} {why}; {self.topic} can be followed from {self.head}"


def _expired(topic: str, cursor: Cursor, head: Cursor, contradicts: bool) -> CursorExpired:
    return CursorExpired(topic, cursor, head, contradicts=contradicts)


class StoreError(RealtimeError):
    """The store cannot do what it was asked to do."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or is locked; the same call may work later.

    Attributes:
        store: the store's class name.
        reason: the error of the driver, as text.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.store} is not available: {self.reason}"
