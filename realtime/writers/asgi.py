"""Write to a client through ASGI ``send``, which works on every server.

``write()`` never waits: it queues the frame, and all that is queued for a client leaves together
at the end of the turn of the loop (``writers/flusher.py``).
A task sends what is queued and ends when the queue is empty, so an idle connection has no task.
How a frame is encoded for a client is the writer's ``Framing``.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import types
from collections import deque
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    MutableMapping,
    Sequence,
)
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from realtime.exceptions import RealtimeError
from realtime.protocol.encoders import Bundle, Frame, Wire
from realtime.protocol.frames import CloseCode

if TYPE_CHECKING:
    from realtime.writers.flusher import Flusher, WritePath

__all__ = [
    "CLOSE_SECONDS",
    "AsgiWriter",
    "Framing",
    "Message",
    "Piece",
    "Send",
    "SlowReader",
    "WebSocketFraming",
]

logger = logging.getLogger("realtime")

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Piece: TypeAlias = Frame | Bundle

STALL_SECONDS = 10.0  # without a byte drained, after which a client counts as gone
POLL_SECONDS = (0.002, 0.05)  # between checks of what is unsent in drain(): first, and at most
CLOSE_SECONDS = 5.0  # to wait for the frames before a close, and for the close itself


class SlowReader(RealtimeError):
    """Nothing was drained for ``STALL_SECONDS``: the client does not read."""


class Framing(Protocol):
    """How frames are encoded for one client."""

    @property
    def wire_format(self) -> Wire | None:
        """The format whose bytes many clients share; None if the client's bytes are its own."""

    @property
    def overhead(self) -> int:
        """About how many bytes each frame needs besides its text, if the bytes are not shared."""

    def encode(self, frames: Iterable[Frame]) -> bytes:
        """Return the bytes that carry the frames to this client, if they are not shared."""

    def messages(self, frames: Sequence[Frame]) -> Iterable[tuple[Message, int]]:
        """Return the ASGI messages that carry frames, and the size of each in bytes."""

    def close_message(self, code: int) -> Message:
        """Return the ASGI message that ends the connection with a close code of the protocol."""


def frames_of(queue: Sequence[Piece]) -> Sequence[Frame]:
    """Return the frames of all pieces in a queue."""
    if len(queue) == 1:
        return queue[0].frames
    return [frame for piece in queue for frame in piece.frames]


class WebSocketFraming:
    """Each frame as a WebSocket text frame."""

    __slots__ = ()

    wire_format = Wire.WEBSOCKET
    overhead = 0

    def encode(self, frames: Iterable[Frame]) -> bytes:
        """Return the frames' bytes, which are the same for every client."""
        return b"".join([frame.wire(Wire.WEBSOCKET) for frame in frames])

    def messages(self, frames: Sequence[Frame]) -> Iterable[tuple[Message, int]]:
        """Return one message for each frame: an ASGI message cannot carry several."""
        return [({"type": "websocket.send", "text": frame.text}, frame.size) for frame in frames]

    def close_message(self, code: int) -> Message:
        """Return the message of a close frame."""
        return {"type": "websocket.close", "code": code}


WEBSOCKET_FRAMING = WebSocketFraming()


def _start_task(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    return asyncio.get_running_loop().create_task(coroutine)


def start_eagerly(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Run a coroutine until it has to wait, and return the task that runs the rest.

    Returns:
        None if the coroutine did not have to wait. Most sends do not, and a task costs more than
        the send.
    """
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        task = asyncio.Task(coroutine, loop=loop, eager_start=True)
        return None if task.done() else task
    try:
        future = coroutine.send(None)
    except StopIteration:
        return None
    return loop.create_task(_resume(coroutine, future))


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, None], future: Any) -> Generator[Any, Any, None]:
    """Run the rest of a coroutine that waits for a future."""
    while True:
        try:
            result = yield future
        except BaseException as error:
            step = partial(coroutine.throw, error)
        else:
            step = partial(coroutine.send, result)
        try:
            future = step()
        except StopIteration:
            return


def _can_start_eagerly(send: Send) -> bool:
    """Tell whether a server's ``send()`` may start outside of a task.

    Before Python 3.12, ``start_eagerly()`` runs the first step of ``send()`` outside of any task. A
    ``send()`` that needs the current task, as ``asyncio.timeout()`` does, would fail there. The
    ``send()`` of uvicorn does not need it.
    """
    server = type(getattr(send, "__self__", None)).__module__
    return sys.version_info >= (3, 12) or server.startswith("uvicorn.")


class AsgiWriter:
    """Writes to one client; used on its loop only.

    Only writers set the attributes of a writer; the flusher reads them.

    Attributes:
        closed: nothing is written any more.
        queue: the pieces that wait for the flush.
        send_direct: writes bytes to the socket and returns how many it took; None while something
            waits before them, and on servers without direct access to the socket.
        wire_format: the format whose bytes the client shares with others; see ``Framing``.
        available: bytes that can be queued before ``unsent`` has to be measured again; never more
            than the buffer limit has left.
        last_flush: when the queue was last flushed, on the loop's clock.
    """

    #: Can several frames be written as one bundle?
    accepts_bundles = True

    __slots__ = (
        "_dequeued",
        "_flusher",
        "_framing",
        "_in_flight",
        "_limit",
        "_request_close",
        "_send",
        "_start",
        "_task",
        "available",
        "closed",
        "last_flush",
        "queue",
        "send_direct",
        "wire_format",
    )

    def __init__(self, send: Send, framing: Framing | None = None) -> None:
        self._send = send
        self._framing = framing or WEBSOCKET_FRAMING
        self._flusher: Flusher | None = None
        self._request_close: Callable[[CloseCode], None] | None = None
        self._limit = 0
        self._dequeued = 0  # bytes that have left the queue
        self._in_flight = 0  # of those, bytes that the server has not received yet
        self._task: asyncio.Task[None] | None = None  # runs _send_queue() while that has to wait
        self._start = start_eagerly if _can_start_eagerly(send) else _start_task
        self.queue: list[Piece] = []
        self.send_direct: Callable[[bytes], int] | None = None
        self.wire_format = self._framing.wire_format
        self.available = 0
        self.last_flush = 0.0
        self.closed = False

    def attach(
        self, flusher: Flusher, limit: int, request_close: Callable[[CloseCode], None]
    ) -> None:
        """Connect the writer to the flusher of its loop; call this before ``write()``.

        Args:
            flusher: the flusher of the loop.
            limit: bytes that can be unsent before the buffer counts as full.
            request_close: closes the connection; called once, when a write fails or the client is
                too slow.
        """
        self._flusher = flusher
        self._request_close = request_close
        self._limit = limit
        self.last_flush = flusher.time()
        self.refresh_available()

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the kernel has not taken, as far as is known."""
        return self._queued() + self._in_flight + self._buffered()

    def _queued(self) -> int:
        """Return the bytes in the queue."""
        queue, overhead = self.queue, self._framing.overhead
        if overhead:
            return sum([frame.size + overhead for frame in frames_of(queue)])
        return queue[0].size if len(queue) == 1 else sum([piece.size for piece in queue])

    def _buffered(self) -> int:
        """Return the bytes in the server's buffer, where they can be counted."""
        return 0

    def _note_unsent(self) -> None:
        """Have the unsent bytes counted, since the client does not take them at once."""
        if self._flusher is not None and self._request_close is not None:
            self._flusher.behind.add(self)

    def refresh_available(self) -> None:
        """Measure what is unsent, and set ``available``."""
        self.available = 0 if self.closed else self._limit - self.unsent

    def fits(self, size: int, limit: int) -> bool:
        """Tell whether at most ``limit`` bytes would be unsent after ``size`` bytes more.

        Measures ``unsent`` again only if the bytes do not fit by the last measurement.
        """
        if self.closed or self._limit - self.available + size <= limit:
            return True
        self.refresh_available()
        return self._limit - self.available + size <= limit

    def write(self, piece: Piece) -> None:
        """Queue a frame or a bundle; it leaves at the end of the turn."""
        if self.closed:
            return
        assert self._flusher is not None, "attach() comes first"
        if not self.queue:
            self.send_direct = None
            self._flusher.add(self)
        self.queue.append(piece)
        self.available -= self.wire_size(piece)

    @staticmethod
    def queue_for_all(
        piece: Piece, writers: Iterable[AsgiWriter], to_flush: deque[AsgiWriter]
    ) -> list[int]:
        """Queue a piece for many clients, without a call for each of them.

        Args:
            piece: a frame or a bundle.
            writers: the clients' writers.
            to_flush: receives the writers whose queue was empty, and which now need a flush.

        Returns:
            The indexes of the writers that have no room for it; nothing was queued there.
        """
        size = piece.size
        full: list[int] = []
        for index, writer in enumerate(writers):
            try:
                need = size if writer.wire_format is not None else writer.wire_size(piece)
                if writer.available < need:
                    writer.refresh_available()
                if writer.available < need:
                    full.append(index)
                    continue
                writer.available -= need
                writer.send_direct = None
                if not writer.queue:
                    to_flush.append(writer)
                writer.queue.append(piece)
            except Exception:
                writer.fail()
        return full

    def wire_size(self, piece: Piece) -> int:
        """Return about how many bytes a piece takes on the wire to this client."""
        return piece.size + self._framing.overhead * len(piece.frames)

    def write_list(self, frames: Sequence[Frame]) -> bool:
        """Write frames that belong together; return False, and write none, if they do not fit."""
        for frame in frames:
            self.write(frame)
        return True

    def flush(self) -> WritePath | None:
        """Start to send the queue; return the path that it takes, None if there is no write."""
        if self._task is not None or not self.queue:
            return None
        # _send_queue() sets self._task to None when it ends. If it ends during an eager start,
        # _start() returns None, so this assignment does not undo that.
        self._task = self._start(self._send_queue())
        if self._task is not None:
            self._note_unsent()
        return "portable"

    def _flush_all(self) -> None:
        """Flush until the queue is empty or something has to wait."""
        left = 0
        try:
            while self._flusher is not None and self._task is None and len(self.queue) != left:
                left = len(self.queue)
                self._flusher.flush_now(self)
        except Exception as error:
            logger.debug("the last frames for a client were not written: %s", error)

    def buffer_rest(self, rest: bytes) -> None:
        """Put the bytes that ``send_direct`` did not take into the server's buffer."""
        raise NotImplementedError("only a writer that sets send_direct has a rest")

    async def _send_queue(self) -> None:
        try:
            while self.queue and not self.closed:
                size = self._queued()
                messages = self._framing.messages(frames_of(self.queue))
                self.queue.clear()
                self._dequeued += size
                self._in_flight = size
                if self._flusher is not None:
                    self.last_flush = self._flusher.now
                for message, part in messages:
                    await self._send(message)
                    if self.closed:
                        return
                    self._in_flight -= part
                self._in_flight = 0  # for an event stream, the parts do not add up to the size
                self.refresh_available()  # with what the server's buffer holds, if it is known
                if self.available < self._limit:
                    self._note_unsent()
                elif self._flusher is not None:
                    self._flusher.behind.discard(self)
        except Exception as error:
            # The client is gone; the server notifies the consumer.
            logger.debug("writing to a client ended: %s", error)
            self.abort()
        finally:
            self._task = None

    async def drain(self, below: int) -> None:
        """Wait until at most ``below`` bytes are unsent.

        Polls, because a server reports at most that everything was sent. Only clients that are
        behind are polled.

        Raises:
            SlowReader: nothing was drained for ``STALL_SECONDS``.
        """
        loop = asyncio.get_running_loop()
        delay = 0.0
        drained = self.drained
        stalled_at = loop.time() + STALL_SECONDS
        while self.unsent > below and not self.closed:
            await asyncio.sleep(delay)
            delay = min(max(delay * 2, POLL_SECONDS[0]), POLL_SECONDS[1])
            now = loop.time()
            if (drained_now := self.drained) > drained:
                drained, stalled_at = drained_now, now + STALL_SECONDS
            elif now > stalled_at:
                raise SlowReader(f"{self.unsent} bytes wait and none were sent")

    @property
    def drained(self) -> int:
        """Bytes that the kernel has taken since the beginning, as far as is known."""
        return self._dequeued - self._in_flight - self._buffered()

    def fail(self) -> None:
        """Drop the queue and have the connection closed, because of the current exception.

        The client reconnects and resumes; no other client waits for it.
        """
        logger.exception("writing to a client failed")
        self.queue.clear()
        self.request_close(CloseCode.FAILED)

    def request_close(self, code: CloseCode) -> None:
        """Have the connection closed; the client's unsent bytes are no longer counted."""
        request_close, self._request_close = self._request_close, None
        if self._flusher is not None:
            self._flusher.behind.discard(self)
        if request_close is None:
            self.abort()
        else:
            request_close(code)

    def abort(self) -> None:
        """Drop the queue and write nothing more."""
        self.closed = True
        # On some servers send() waits for the client, which may be gone.
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self.queue.clear()
        if self._flusher is not None:
            self._flusher.behind.discard(self)
        self.send_direct = self._request_close = None
        # With nothing available, every caller asks fits() and finds the writer closed.
        self._in_flight = self.available = 0

    async def close(self, code: int) -> None:
        """Send what is queued, for a bounded time, then close with a code."""
        if self.closed:
            return
        self._flush_all()
        task = self._task
        if task is not None:
            await asyncio.wait([task], timeout=CLOSE_SECONDS)
        if self.closed:
            return
        self.abort()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._send(self._framing.close_message(code))
        except Exception as error:
            logger.debug("closing a client ended: %s", error)
