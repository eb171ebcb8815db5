"""The frames of an event stream, and the writer that collects the frames of a poll's answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from realtime.protocol.cursors import compose, entry
from realtime.protocol.encoders import Frame, Wire, http_chunk
from realtime.protocol.events import Cursor
from realtime.protocol.frames import HEARTBEAT, CloseCode
from realtime.writers.asgi import AsgiWriter, Message, Piece
from realtime.writers.flusher import Flusher

__all__ = ["MAX_LIST_BYTES", "CollectingWriter", "StreamFraming"]

ID_BYTES = 30  # approximate size of an id without its topics; see realtime/protocol/cursors.py
ENTRY_BYTES = 25  # approximate size of each topic in an id
MAX_LIST_BYTES = 1024 * 1024  # of member lists in one answer; the last list can exceed it


class StreamFraming:
    """Each frame as an entry of an event stream.

    The shared bytes end before the ``id:`` line. That line is the client's own: one composite
    cursor of all its topics, from which a bare ``EventSource`` resumes.
    Clients that follow the same single topic share that line as well.

    Args:
        cursors: the client's cursor in each topic; None for a client that wants no ``id:`` lines.
        single_topic: the client follows one topic only.

    Attributes:
        wire_format: see ``Framing``.
    """

    __slots__ = ("_entries", "wire_format")

    def __init__(self, cursors: Mapping[str, Cursor] | None, *, single_topic: bool = False) -> None:
        # Begin with the cursors of the request: if the stream is cut before all topics have an
        # answer, the ids so far must contain the cursors of the others.
        self._entries: dict[str, tuple[str, str]] | None = None
        if cursors is None:
            self.wire_format: Wire | None = Wire.STREAM
        elif single_topic:
            self.wire_format = Wire.STREAM_WITH_ID
        else:
            self.wire_format = None
        if cursors is not None:
            self._entries = {topic: entry(topic, cursor) for topic, cursor in cursors.items()}

    @property
    def overhead(self) -> int:
        """The approximate size of an id; 0 if the client has no ids of its own."""
        if self.wire_format is not None or self._entries is None:
            return 0
        return ID_BYTES + ENTRY_BYTES * len(self._entries)

    def _entry(self, frame: Frame) -> bytes:
        body = frame.wire(Wire.LINE)
        if self._entries is not None and frame.topic_cursor is not None:
            self._entries[frame.topic_cursor[0]] = frame.entry
            body += b"id: %b\n" % compose(self._entries.values()).encode()
        return body + b"\n"

    def encode(self, frames: Iterable[Frame]) -> bytes:
        """Return the entries in one HTTP chunk."""
        return http_chunk(b"".join([self._entry(frame) for frame in frames]))

    def messages(self, frames: Sequence[Frame]) -> Iterable[tuple[Message, int]]:
        """Return one part of the body, which contains all frames."""
        body = b"".join([self._entry(frame) for frame in frames])
        return [({"type": "http.response.body", "body": body, "more_body": True}, len(body))]

    def close_message(self, code: int) -> Message:
        """Return the end of the body, which has no code; a ``closing`` frame comes before it."""
        return {"type": "http.response.body", "body": b"", "more_body": False}


class CollectingWriter(AsgiWriter):
    """Collects frames for one answer, up to a number of events and of bytes.

    Args:
        max_events: the most events in one answer.
        max_bytes: the most bytes in one answer; equal to the connection's buffer limit.

    Attributes:
        frames: the frames that were written.
        full: whether no further event fits; later events stay in the log.
    """

    accepts_bundles = False

    def __init__(self, max_events: int, max_bytes: int) -> None:
        super().__init__(_refuse)
        self.frames: list[Frame] = []
        self.full = False
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events = 0
        self._size = 0
        self._list_bytes = 0
        self._changed = asyncio.Event()

    def attach(
        self, flusher: Flusher, limit: int, request_close: Callable[[CloseCode], None]
    ) -> None:
        """Leave ``available`` at 0, so that frames are pushed one by one, and each is checked."""
        self._request_close = request_close

    @property
    def unsent(self) -> int:
        """The bytes that were collected; the limit once no further event fits.

        Never more than the limit, since a full answer still accepts frames that are not events.
        """
        is_full = self._events >= self._max_events
        return self._max_bytes if is_full else min(self._size, self._max_bytes)

    def fits(self, size: int, limit: int) -> bool:
        """Tell whether the answer has room for ``size`` bytes more."""
        return self.closed or self.unsent + size <= limit

    def write(self, piece: Piece) -> None:
        """Collect a frame; a heartbeat is dropped, since the answer itself ends the silence."""
        assert isinstance(piece, Frame), "this writer does not accept bundles"
        if self.closed or piece.text == HEARTBEAT:
            return
        self.frames.append(piece)
        self._size += piece.size
        self._events += piece.is_event
        self._changed.set()

    def write_list(self, frames: Sequence[Frame]) -> bool:
        """Collect the frames of a member list, which take no room from the events.

        Returns:
            False, and nothing is collected, if the answer has ``MAX_LIST_BYTES`` of lists already.
            The next answer has room for the missing lists.
        """
        if self.closed or self._list_bytes >= MAX_LIST_BYTES:
            return False
        self.frames += frames
        self._list_bytes += sum(frame.size for frame in frames)
        self._changed.set()
        return True

    async def drain(self, below: int) -> None:
        """Mark the answer full, then wait until cancelled: an answer never drains."""
        self.full = True
        self._changed.set()
        await asyncio.Event().wait()

    def wake(self) -> None:
        """Wake ``changed()``."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait until a frame was collected or did not fit, or until ``wake()``."""
        await self._changed.wait()
        self._changed.clear()


async def _refuse(message: Message) -> None:
    raise AssertionError("an answer is sent as a whole, not by its writer")
