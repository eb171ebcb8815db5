"""Write to a client through ASGI ``send``: works on every server.

``write()`` never waits: what is written waits for the end of the turn, in which all that waits for
a client leaves together (``writers/flusher.py``).
Here one task sends it and ends when nothing is left, so an idle connection has none.
What a frame looks like on its way is the writer's ``Form``.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import types
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
from typing import Any, Protocol, TypeAlias

from realtime.exceptions import RealtimeError
from realtime.protocol.encoders import Bundle, Frame, Wire
from realtime.writers.flusher import Flusher

__all__ = ["AsgiWriter", "Form", "Message", "Piece", "Send", "SlowReader", "WebSocketForm"]

logger = logging.getLogger("realtime")

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Piece: TypeAlias = Frame | Bundle

STALL_SECONDS = 10.0  # without a byte drained, after which a client counts as gone
POLL_SECONDS = (0.002, 0.05)  # between looks at what is unsent while a replay waits: first, at most
CLOSE_SECONDS = 5.0  # that a close waits for the frames before it


class SlowReader(RealtimeError):
    """Nothing was drained for ``STALL_SECONDS``: the client does not read."""


class Form(Protocol):
    """How frames travel to one client."""

    @property
    def shared(self) -> Wire | None:
        """The form whose bytes are the same for all such clients; None if it has its own."""

    @property
    def extra(self) -> int:
        """About how many bytes each frame has besides its text, for a client that has its own."""

    def own(self, frames: Iterable[Frame]) -> bytes:
        """Return the bytes on the wire for a client that has its own."""

    def messages(self, frames: Sequence[Frame]) -> Iterable[tuple[Message, int]]:
        """Return the ASGI messages that carry frames, and the size of each in bytes."""

    def ending(self, code: int) -> Message:
        """Return what ends the connection; ``code`` is a close code of the protocol."""


def frames_of(queue: Sequence[Piece]) -> Sequence[Frame]:
    """Return the frames of all that is queued."""
    if len(queue) == 1:
        return queue[0].frames
    return [frame for piece in queue for frame in piece.frames]


class WebSocketForm:
    """Each frame in a text frame."""

    __slots__ = ()

    shared = Wire.WEBSOCKET
    extra = 0

    def own(self, frames: Iterable[Frame]) -> bytes:
        """Return the frames' bytes, which are the same for everybody."""
        return b"".join([frame.wire(Wire.WEBSOCKET) for frame in frames])

    def messages(self, frames: Sequence[Frame]) -> Iterable[tuple[Message, int]]:
        """Return a message for each: ASGI has none that carries several."""
        return [({"type": "websocket.send", "text": frame.text}, frame.size) for frame in frames]

    def ending(self, code: int) -> Message:
        """Return the message of a close frame."""
        return {"type": "websocket.close", "code": code}


WEBSOCKET_FORM = WebSocketForm()


def _begin_soon(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    return asyncio.get_running_loop().create_task(coroutine)


def begin_at_once(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Run a coroutine until it has to wait; return the task that it is from then on.

    None if it did not have to wait, and most sends do not: a task costs more than what it does.
    """
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        task = asyncio.Task(coroutine, loop=loop, eager_start=True)
        return None if task.done() else task
    try:
        future = coroutine.send(None)
    except StopIteration:
        return None
    return loop.create_task(_go_on(coroutine, future))


@types.coroutine
def _go_on(coroutine: Coroutine[Any, Any, None], future: Any) -> Generator[Any, Any, None]:
    """Go on with a coroutine that has begun and waits for a future."""
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


def _may_begin_at_once(send: Send) -> bool:
    """Tell whether a server's ``send()`` may begin outside of a task.

    Before Python 3.12 there is no task that begins at once, and what is inside could ask for its
    task, as ``asyncio.timeout()`` does; uvicorn's does not.
    """
    server = type(getattr(send, "__self__", None)).__module__
    return sys.version_info >= (3, 12) or server.startswith("uvicorn.")


class AsgiWriter:
    """The way to one client; used on its loop only.

    Attributes:
        closed: nothing is written any more.
        queue: what waits for the flush.
        ready: writes bytes to the socket and returns how many it took; None while something
            waits before them, and on servers that have no such way.
        shared: the form whose bytes it takes; see ``Form``.
        room: bytes that may be queued without a look at ``unsent``; at most what is free.
        last_flush: when something last left, on the loop's clock.
    """

    #: May several frames be written as one bundle?
    takes_bundles = True

    __slots__ = (
        "_begin",
        "_failed",
        "_flusher",
        "_form",
        "_handed",
        "_limit",
        "_send",
        "_task",
        "_under_way",
        "closed",
        "last_flush",
        "queue",
        "ready",
        "room",
        "shared",
    )

    def __init__(self, send: Send, form: Form | None = None) -> None:
        self._send = send
        self._form = form or WEBSOCKET_FORM
        self._flusher: Flusher | None = None
        self._failed: Callable[[], None] | None = None
        self._limit = 0
        self._handed = 0  # bytes that left the queue since the beginning
        self._under_way = 0  # of those, what the server was not given yet
        self._task: asyncio.Task[None] | None = None
        self._begin = begin_at_once if _may_begin_at_once(send) else _begin_soon
        self.queue: list[Piece] = []
        self.ready: Callable[[bytes], int] | None = None
        self.shared = self._form.shared
        self.room = 0
        self.last_flush = 0.0
        self.closed = False

    def attach(self, flusher: Flusher, limit: int, failed: Callable[[], None]) -> None:
        """Be flushed together with others.

        Args:
            flusher: of the loop.
            limit: bytes that may be unsent before ``room`` is none.
            failed: closes the connection; called once, when writing to it has become impossible.
        """
        self._flusher = flusher
        self._failed = failed
        self._limit = limit
        self.last_flush = flusher.time()
        self.look()

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the kernel has not taken, as far as is known."""
        return self._queued() + self._under_way + self._buffered()

    def _queued(self) -> int:
        """Return the bytes that are queued."""
        queue, extra = self.queue, self._form.extra
        if extra:
            return sum([frame.size + extra for frame in frames_of(queue)])
        return queue[0].size if len(queue) == 1 else sum([piece.size for piece in queue])

    def _buffered(self) -> int:
        """Return the bytes that the server keeps, where that can be known."""
        return 0

    def look(self) -> None:
        """Find out how much room there is."""
        self.room = 0 if self.closed else self._limit - self.unsent

    def fits(self, size: int, limit: int) -> bool:
        """Tell whether with so many bytes more at most ``limit`` would be unsent.

        Looks only when it has to: what was queued since the last look is known.
        """
        if self.closed or self._limit - self.room + size <= limit:
            return True
        self.look()
        return self._limit - self.room + size <= limit

    def write(self, frame: Piece) -> None:
        """Queue a frame, or a bundle; it leaves at the end of the turn."""
        if self.closed:
            return
        assert self._flusher is not None, "attach() comes first"
        if not self.queue:
            self.ready = None
            self._flusher.add(self)
        self.queue.append(frame)
        self.room -= self.need(frame)

    def need(self, piece: Piece) -> int:
        """Return about how many bytes a piece takes on its way to this client."""
        return piece.size + self._form.extra * len(piece.frames)

    def take_list(self, frames: Sequence[Frame]) -> bool:
        """Write frames that belong together; False, and nothing is written, if they do not fit."""
        for frame in frames:
            self.write(frame)
        return True

    def flush(self) -> None:
        """Let what is queued leave."""
        if self._task is None and self.queue:
            if self._flusher is not None:
                self._flusher.portable += 1
            self._task = self._begin(self._hand_over())

    def _flush_all(self) -> None:
        """Flush what several flushes take."""
        left = 0
        try:
            while self._task is None and len(self.queue) != left:
                left = len(self.queue)
                self.flush()
        except Exception as error:
            logger.debug("the last of a client was not written: %s", error)

    def keep(self, rest: bytes) -> None:
        """Let the server have what ``ready`` did not take, before all that comes later."""
        raise NotImplementedError("of a writer that is ready")

    async def _hand_over(self) -> None:
        try:
            while self.queue and not self.closed:
                size = self._queued()
                messages = self._form.messages(frames_of(self.queue))
                self.queue.clear()
                self._handed += size
                self._under_way = size
                if self._flusher is not None:
                    self.last_flush = self._flusher.now
                for message, part in messages:
                    await self._send(message)
                    if self.closed:
                        return
                    self._under_way -= part
                self._under_way = 0  # ids of streams have no part in it
                self.look()  # they have one in what the server keeps, where that can be known
        except Exception as error:
            # The client is gone; the consumer hears of it from the server.
            logger.debug("writing to a client ended: %s", error)
            self.abandon()
        finally:
            self._task = None

    async def drained(self, below: int) -> None:
        """Wait until at most ``below`` bytes are unsent.

        Polls, since servers tell only when all is sent or nothing at all; only a client that is
        behind is polled.

        Raises:
            SlowReader: nothing went out for ``STALL_SECONDS``.
        """
        loop = asyncio.get_running_loop()
        delay = 0.0
        sent = self._sent
        stalled_at = loop.time() + STALL_SECONDS
        while self.unsent > below and not self.closed:
            await asyncio.sleep(delay)
            delay = min(max(delay * 2, POLL_SECONDS[0]), POLL_SECONDS[1])
            now = loop.time()
            if (now_sent := self._sent) > sent:
                sent, stalled_at = now_sent, now + STALL_SECONDS
            elif now > stalled_at:
                raise SlowReader(f"{self.unsent} bytes wait and none went out")

    @property
    def _sent(self) -> int:
        """Bytes that the kernel has taken since the beginning, as far as is known."""
        return self._handed - self._under_way - self._buffered()

    def give_up(self) -> None:
        """Drop what is queued and have the connection closed, because of the current exception.

        Its client comes back and resumes; nobody else has to wait for it.
        """
        logger.exception("writing to a client failed")
        failed, self._failed = self._failed, None
        self.queue.clear()
        if failed is None:
            self.abandon()
        else:
            failed()

    def abandon(self) -> None:
        """Drop what is queued and write nothing more."""
        self.closed = True
        # On a server whose send() waits for the client, it would wait for one that is gone.
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self.queue.clear()
        self.ready = self._failed = None
        self._under_way = self.room = 0  # without room everybody asks, and hears that it is closed

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
        self.abandon()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._send(self._form.ending(code))
        except Exception as error:
            logger.debug("closing a client ended: %s", error)
