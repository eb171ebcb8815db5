"""What a topic keeps in memory to deliver: encoded events, and a ring of the recent ones.

Whoever resumes within the ring costs the store nothing, so a herd that comes back does not either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from realtime.encoders import Frame, event_frame
from realtime.events import Cursor, Event

__all__ = ["EventFrame", "Frames", "Ring"]

RING_EVENTS = 256  # recent frames kept for those who resume; never more than the topic keeps
RING_BYTES = 1024 * 1024


class EventFrame(Frame):
    """The frame of a stored event.

    Attributes:
        cursor: the event's.
    """

    __slots__ = ("cursor",)

    def __init__(self, event: Event, cursor: Cursor) -> None:
        super().__init__(event_frame(event), (event.topic, cursor))
        self.cursor = cursor


@dataclass(frozen=True, slots=True)
class Frames:
    """A contiguous piece of a log, encoded, and the log's head when it was read."""

    frames: Sequence[EventFrame]
    head: Cursor


class Ring:
    """The newest frames of a topic, contiguous up to its position.

    Args:
        start: the cursor before the first frame.
        max_events: how many the topic's log keeps; the ring never reaches further back.
    """

    def __init__(self, start: Cursor, max_events: int) -> None:
        self._frames: deque[EventFrame] = deque()
        self._start = start
        self._bytes = 0
        self._max_events = min(RING_EVENTS, max_events)

    def add(self, frame: EventFrame) -> None:
        """Add the frame that follows the newest one; the oldest ones make room."""
        self._frames.append(frame)
        self._bytes += frame.size
        while len(self._frames) > self._max_events or self._bytes > RING_BYTES:
            oldest = self._frames.popleft()
            self._start = oldest.cursor
            self._bytes -= oldest.size

    def after(self, cursor: Cursor) -> list[EventFrame] | None:
        """Return the frames after a cursor, or None if the ring does not reach back to it."""
        if cursor == self._start:
            return list(self._frames)
        index = self._index(cursor.seq)
        if index is None or self._frames[index].cursor != cursor:
            return None
        return [self._frames[i] for i in range(index + 1, len(self._frames))]

    def tag_at(self, seq: int) -> int | None:
        """Return the tag of the event with a number; None if the ring does not have it."""
        index = self._index(seq)
        return None if index is None else self._frames[index].cursor.tag

    def _index(self, seq: int) -> int | None:
        if not self._frames:
            return None
        index = seq - self._frames[0].cursor.seq
        return index if 0 <= index < len(self._frames) else None
