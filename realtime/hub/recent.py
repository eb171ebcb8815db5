"""The frames that a topic keeps in memory: encoded events, and a ring buffer of the recent ones.

A client that resumes from a cursor in the ring costs the store nothing, not even when all clients
reconnect at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TypeAlias

from realtime.protocol.encoders import Bundle, Frame, Kind, bundle, event_frame
from realtime.protocol.events import Cursor, Event

__all__ = ["EventFrame", "Frames", "Pieces", "RecentFrames"]

RING_EVENTS = 256  # recent frames kept for clients that resume; never more than the topic keeps
RING_BYTES = 1024 * 1024
BUNDLE_BYTES = 16 * 1024  # of frames that a client receives in one piece while it catches up

#: Frames or bundles in their order, each with the client's position after it.
Pieces: TypeAlias = Sequence[tuple[Frame | Bundle, Cursor | None]]


class EventFrame(Frame):
    """The frame of a stored event.

    Attributes:
        cursor: the event's cursor.
    """

    __slots__ = ("cursor",)

    def __init__(self, event: Event, cursor: Cursor) -> None:
        super().__init__(event_frame(event), (event.topic, cursor), Kind.EVENT)
        self.cursor = cursor


class Frames:
    """A contiguous range of a log, encoded.

    Attributes:
        frames: the frames of the events, in the order of the log.
        head: the newest known head of the log when the range was read.
    """

    __slots__ = ("_bundles", "frames", "head")

    def __init__(self, frames: Sequence[EventFrame], head: Cursor) -> None:
        self.frames = frames
        self.head = head
        self._bundles: list[tuple[Frame | Bundle, Cursor]] | None = None

    @property
    def singles(self) -> Pieces:
        """The frames one by one."""
        return [(frame, frame.cursor) for frame in self.frames]

    @property
    def bundles(self) -> Pieces:
        """The frames in bundles of about ``BUNDLE_BYTES``; encoded once for all clients."""
        if self._bundles is None:
            self._bundles = []
            frames: list[EventFrame] = []
            size = 0
            for frame in self.frames:
                frames.append(frame)
                size += frame.size
                if size >= BUNDLE_BYTES or frame is self.frames[-1]:
                    self._bundles.append((bundle(frames), frame.cursor))
                    frames, size = [], 0
        return self._bundles


class RecentFrames:
    """A ring buffer of a topic's newest frames, contiguous up to the topic's position.

    Args:
        start: the cursor before the first frame.
        max_events: how many events the topic's log keeps; the ring never reaches further back.

    Attributes:
        start: the cursor before the oldest frame.
    """

    def __init__(self, start: Cursor, max_events: int) -> None:
        self._frames: deque[EventFrame] = deque()
        self.start = start
        self._bytes = 0
        self._max_events = min(RING_EVENTS, max_events)
        self._last_answer: tuple[Cursor, Frames] | None = None

    def add(self, frame: EventFrame) -> None:
        """Add the frame that follows the newest one, and drop the oldest ones beyond the limits."""
        self._last_answer = None
        self._frames.append(frame)
        self._bytes += frame.size
        while len(self._frames) > self._max_events or self._bytes > RING_BYTES:
            oldest = self._frames.popleft()
            self.start = oldest.cursor
            self._bytes -= oldest.size

    def after(self, cursor: Cursor) -> Frames | None:
        """Return the frames after a cursor, or None if the ring does not reach back to it.

        Consecutive calls with the same cursor return the same object: after a restart, many
        clients resume from the same cursor.
        """
        if self._last_answer is None or self._last_answer[0] != cursor:
            frames = self._after(cursor)
            if frames is None:
                return None
            self._last_answer = cursor, Frames(frames, frames[-1].cursor if frames else cursor)
        return self._last_answer[1]

    def _after(self, cursor: Cursor) -> list[EventFrame] | None:
        if cursor == self.start:
            return list(self._frames)
        index = self._index(cursor.seq)
        if index is None or self._frames[index].cursor != cursor:
            return None
        return list(islice(self._frames, index + 1, None))

    def tag_at(self, seq: int) -> int | None:
        """Return the tag of the event with this number; None if it is not in the ring."""
        index = self._index(seq)
        return None if index is None else self._frames[index].cursor.tag

    def _index(self, seq: int) -> int | None:
        if not self._frames:
            return None
        index = seq - self._frames[0].cursor.seq
        return index if 0 <= index < len(self._frames) else None
