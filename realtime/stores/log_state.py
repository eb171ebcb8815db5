"""A log's state, and which cursors are valid in it: rules without I/O that all stores share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from realtime.exceptions import CursorExpired
from realtime.protocol.events import Cursor, Event
from realtime.stores.base import beginning, is_beginning

__all__ = ["LogState", "cut"]


@dataclass(frozen=True, slots=True)
class LogState:
    """The state that a store keeps of a log, in addition to the events.

    Attributes:
        topic: the topic's name.
        epoch: the log's epoch; the store id if nothing was ever written for the topic.
        seq: the number of the last event that was appended; 0 if there is none.
        tag: the tag of that event; meaningless if ``seq`` is 0.
        floor_seq: the number of the last event that was trimmed; 0 if there is none.
        floor_tag: the tag of that event; meaningless if ``floor_seq`` is 0.
        floor_time: the time of that event, or of the log's deletion, or of the newest event in all
            logs that were forgotten before this one began; all later events are kept.
    """

    topic: str
    epoch: str
    seq: int = 0
    tag: int = 0
    floor_seq: int = 0
    floor_tag: int = 0
    floor_time: float = 0.0

    def cursor(self, seq: int, tag: int) -> Cursor:
        """Return the cursor of an event of this log; if ``seq`` is 0, ``tag`` is ignored."""
        return Cursor(self.epoch, seq, tag) if seq else beginning(self.epoch, self.topic)

    @property
    def head(self) -> Cursor:
        """The cursor of the last event that was appended."""
        return self.cursor(self.seq, self.tag)

    @property
    def floor(self) -> Cursor:
        """The cursor of the last event that was trimmed."""
        return self.cursor(self.floor_seq, self.floor_tag)

    def check(self, after: Cursor, own_tag: int | None) -> None:
        """Check that the log can be read from a cursor.

        Args:
            after: the cursor.
            own_tag: the tag of the event that has the cursor's ``seq``; None if it is not kept.

        Raises:
            CursorExpired: the log cannot be read from the cursor. ``contradicts`` is true if the
                log never had this cursor.
        """
        expected: int | None
        if after.epoch != self.epoch:
            expected = None
        elif after.seq > self.seq:
            raise self.expired(after, contradicts=True)
        elif after.seq == 0:
            expected = after.tag if is_beginning(after, self.topic) else -1
        elif after.seq == self.seq:
            expected = self.tag
        elif after.seq == self.floor_seq:
            expected = self.floor_tag
        else:
            expected = own_tag
        if expected is not None and after.tag != expected:
            raise self.expired(after, contradicts=True)
        if expected is None or after.seq < self.floor_seq:
            raise self.expired(after, contradicts=False)

    def check_since(self, since: float) -> None:
        """Check that all events from a time on are kept.

        Raises:
            CursorExpired: some of them were trimmed.
        """
        if 0 < self.floor_time >= since:
            raise self.expired(self.floor, contradicts=False)

    def expired(self, cursor: Cursor, *, contradicts: bool) -> CursorExpired:
        """Return the error for a cursor from which the log cannot be read."""
        return CursorExpired(self.topic, cursor, self.head, contradicts=contradicts)


def cut(events: Sequence[Event], max_bytes: int) -> tuple[Event, ...]:
    """Return the first events whose JSON fits into ``max_bytes`` in total; at least one event."""
    size = 0
    for count, event in enumerate(events):
        size += len(event.json.encode())
        if size > max_bytes:
            return tuple(events[: max(count, 1)])
    return tuple(events)
