"""What a topic keeps in memory to deliver: encoded events, and a ring of the recent ones.

Whoever resumes within the ring costs the store nothing, so a herd that comes back does not either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from realtime.protocol.encoders import Bundle, Frame, Kind, bundle, event_frame
from realtime.protocol.events import Cursor, Event

__all__ = ["EventFrame", "Frames", "RecentFrames"]

RING_EVENTS = 256  # recent frames kept for those who resume; never more than the topic keeps
RING_BYTES = 1024 * 1024
BUNDLE_BYTES = 16 * 1024  # of frames that one who catches up gets as one piece


class EventFrame(Frame):
    """The frame of a stored event.

    Attributes:
        cursor: the event's.
    """

    __slots__ = ("cursor",)

    def __init__(self, event: Event, cursor: Cursor) -> None:
        super().__init__(event_frame(event), (event.topic, cursor), Kind.EVENT)
        self.cursor = cursor


class Frames:
    """A contiguous piece of a log, encoded, and the log's head when it was read.

    Attributes:
        frames: in their order.
        head: of the log, or as far as is known.
    """

    __slots__ = ("_bundles", "frames", "head")

    def __init__(self, frames: Sequence[EventFrame], head: Cursor) -> None:
        self.frames = frames
        self.head = head
        self._bundles: list[tuple[Frame | Bundle, Cursor]] | None = None

    @property
    def singles(self) -> Iterable[tuple[Frame | Bundle, Cursor]]:
        """Each frame, and where its receiver is then."""
        return [(frame, frame.cursor) for frame in self.frames]

    @property
    def bundles(self) -> Iterable[tuple[Frame | Bundle, Cursor]]:
        """The frames in bundles of ``BUNDLE_BYTES`` and one frame more; made once for a herd."""
        if self._bundles is None:
            self._bundles = []
            gathered: list[EventFrame] = []
            size = 0
            for frame in self.frames:
                gathered.append(frame)
                size += frame.size
                if size >= BUNDLE_BYTES or frame is self.frames[-1]:
                    self._bundles.append((bundle(gathered), frame.cursor))
                    gathered, size = [], 0
        return self._bundles


class RecentFrames:
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
        self._asked: tuple[Cursor, Frames] | None = None

    def add(self, frame: EventFrame) -> None:
        """Add the frame that follows the newest one; the oldest ones make room."""
        self._asked = None
        self._frames.append(frame)
        self._bytes += frame.size
        while len(self._frames) > self._max_events or self._bytes > RING_BYTES:
            oldest = self._frames.popleft()
            self._start = oldest.cursor
            self._bytes -= oldest.size

    def after(self, cursor: Cursor) -> Frames | None:
        """Return the frames after a cursor, or None if the ring does not reach back to it.

        Those who ask for the same, as a herd does after a restart, get the same.
        """
        if self._asked is None or self._asked[0] != cursor:
            frames = self._after(cursor)
            if frames is None:
                return None
            self._asked = cursor, Frames(frames, frames[-1].cursor if frames else cursor)
        return self._asked[1]

    def _after(self, cursor: Cursor) -> list[EventFrame] | None:
        if cursor == self._start:
            return list(self._frames)
        index = self._index(cursor.seq)
        if index is None or self._frames[index].cursor != cursor:
            return None
        return list(islice(self._frames, index + 1, None))

    def tag_at(self, seq: int) -> int | None:
        """Return the tag of the event with a number; None if the ring does not have it."""
        index = self._index(seq)
        return None if index is None else self._frames[index].cursor.tag

    def _index(self, seq: int) -> int | None:
        if not self._frames:
            return None
        index = seq - self._frames[0].cursor.seq
        return index if 0 <= index < len(self._frames) else None
