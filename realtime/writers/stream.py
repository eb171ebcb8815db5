"""What an event stream and a poll make of frames: entries of text, or one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from realtime.protocol.cursors import compose, entry
from realtime.protocol.encoders import Frame, Wire, http_chunk
from realtime.protocol.events import Cursor
from realtime.protocol.frames import HEARTBEAT
from realtime.writers.asgi import AsgiWriter, Message, Piece
from realtime.writers.flusher import Flusher

__all__ = ["MAX_LIST_BYTES", "CollectingWriter", "StreamForm"]

ID_BYTES, ENTRY_BYTES = (
    30,
    25,
)  # of an id, and of each topic in it; see realtime/protocol/cursors.py
MAX_LIST_BYTES = 1024 * 1024  # of lists in one answer, and one list more


class StreamForm:
    """Each frame as an entry of an event stream.

    The bytes that all clients share end before the ``id:`` line, which is the client's own: one
    composite cursor of all its topics, so that a bare ``EventSource`` resumes by itself.
    Clients of one topic, the same, share that line as well.

    Args:
        places: where the client stands, by topic; None for a client that wants no ``id:`` lines.
        alone: it follows one topic only.

    Attributes:
        shared: see ``Form``.
    """

    __slots__ = ("_entries", "shared")

    def __init__(self, places: Mapping[str, Cursor] | None, *, alone: bool = False) -> None:
        # What the client resumes from is in its first id already: a stream that is cut between the
        # first answers must not forget the topics that had none.
        self._entries: dict[str, tuple[str, str]] | None = None
        if places is None:
            self.shared: Wire | None = Wire.STREAM
        elif alone:
            self.shared = Wire.STREAM_WITH_ID
        else:
            self.shared = None
        if places is not None:
            self._entries = {topic: entry(topic, place) for topic, place in places.items()}

    @property
    def extra(self) -> int:
        """About what the id of all topics takes, where it is the client's own."""
        if self.shared is not None or self._entries is None:
            return 0
        return ID_BYTES + ENTRY_BYTES * len(self._entries)

    def _entry(self, frame: Frame) -> bytes:
        body = frame.wire(Wire.LINE)
        if self._entries is not None and frame.place is not None:
            self._entries[frame.place[0]] = frame.entry
            body += b"id: %b\n" % compose(self._entries.values()).encode()
        return body + b"\n"

    def own(self, frames: Iterable[Frame]) -> bytes:
        """Return the entries in one chunk of HTTP."""
        return http_chunk(b"".join([self._entry(frame) for frame in frames]))

    def messages(self, frames: Sequence[Frame]) -> Iterable[tuple[Message, int]]:
        """Return the part of the body that carries all of them."""
        body = b"".join([self._entry(frame) for frame in frames])
        return [({"type": "http.response.body", "body": body, "more_body": True}, len(body))]

    def ending(self, code: int) -> Message:
        """Return the end of the body; a code cannot be told, and was in a frame before."""
        return {"type": "http.response.body", "body": b"", "more_body": False}


class CollectingWriter(AsgiWriter):
    """Collects frames for one answer, up to a number of events and of bytes.

    Args:
        max_events: of one answer.
        max_bytes: of one answer; the limit of the connection that it is of.

    Attributes:
        frames: what was written.
        full: nothing more fits; what comes then waits in the log.
    """

    takes_bundles = False

    def __init__(self, max_events: int, max_bytes: int) -> None:
        super().__init__(_nowhere)
        self.frames: list[Frame] = []
        self.full = False
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events = 0
        self._size = 0
        self._lists = 0
        self._changed = asyncio.Event()

    def attach(self, flusher: Flusher, limit: int, failed: Callable[[], None]) -> None:
        """Stay without room, so that each frame is asked about."""
        self._failed = failed

    @property
    def unsent(self) -> int:
        """The bytes that were collected; the limit as soon as no event fits any more.

        Never more, since frames that are no events still have their place in a full answer.
        """
        is_full = self._events >= self._max_events
        return self._max_bytes if is_full else min(self._size, self._max_bytes)

    def fits(self, size: int, limit: int) -> bool:
        """Tell whether so many bytes more have their place in the answer."""
        return self.closed or self.unsent + size <= limit

    def write(self, frame: Piece) -> None:
        """Collect a frame; the answer itself is what breaks the silence."""
        assert isinstance(frame, Frame), "bundles are not taken"
        if self.closed or frame.text == HEARTBEAT:
            return
        self.frames.append(frame)
        self._size += frame.size
        self._events += frame.is_event
        self._changed.set()

    def take_list(self, frames: Sequence[Frame]) -> bool:
        """Collect frames that belong together, beside the events, which they must not keep out.

        False, and nothing is collected, if an answer has as many lists as it may; the next one has
        room for those that are missing then.
        """
        if self.closed or self._lists >= MAX_LIST_BYTES:
            return False
        self.frames += frames
        self._lists += sum(frame.size for frame in frames)
        self._changed.set()
        return True

    async def drained(self, below: int) -> None:
        """Wait for ever: it never drains, and who waits is ended with the connection."""
        self.full = True
        self._changed.set()
        await asyncio.Event().wait()

    def wake(self) -> None:
        """Let who waits look again."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait until something was collected, or does not fit any more."""
        await self._changed.wait()
        self._changed.clear()


async def _nowhere(message: Message) -> None:
    raise AssertionError("an answer is sent as a whole")
