"""Write to a client through ASGI ``send``: works on every server.

``write()`` never waits; one task sends what is queued and ends when nothing is left, so an idle
connection has none.
What a frame looks like on its way is the writer's ``Form``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Protocol, TypeAlias

from realtime.encoders import Frame
from realtime.exceptions import RealtimeError

__all__ = ["AsgiWriter", "Form", "Message", "Send", "SlowReader", "WebSocketForm"]

logger = logging.getLogger("realtime")

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

STALL_SECONDS = 10.0  # without a byte drained, after which a client counts as gone
POLL_SECONDS = (0.002, 0.05)  # between looks at what is unsent while a replay waits: first, at most
CLOSE_SECONDS = 5.0  # that a close waits for the frames before it


class SlowReader(RealtimeError):
    """Nothing was drained for ``STALL_SECONDS``: the client does not read."""


class Form(Protocol):
    """How frames travel to one client: the ASGI messages that carry them."""

    def message(self, frame: Frame) -> tuple[Message, int]:
        """Return what carries a frame, and its size in bytes."""

    def ending(self, code: int) -> Message:
        """Return what ends the connection; ``code`` is a close code of the protocol."""


class WebSocketForm:
    """Each frame in a text frame."""

    def message(self, frame: Frame) -> tuple[Message, int]:
        """Return the message of a text frame."""
        return {"type": "websocket.send", "text": frame.text}, frame.size

    def ending(self, code: int) -> Message:
        """Return the message of a close frame."""
        return {"type": "websocket.close", "code": code}


class AsgiWriter:
    """The way to one client; used on its loop only.

    Attributes:
        closed: nothing is written any more.
    """

    def __init__(self, send: Send, form: Form | None = None) -> None:
        self._send = send
        self._form = form or WebSocketForm()
        self._queue: deque[tuple[Message, int]] = deque()
        self._queued = 0
        self._written = 0
        self._task: asyncio.Task[None] | None = None
        self.closed = False

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the kernel has not taken, as far as is known."""
        return self._queued

    def write(self, frame: Frame) -> None:
        """Queue a frame."""
        if self.closed:
            return
        message, size = self._form.message(frame)
        self._queue.append((message, size))
        self._queued += size
        self._written += size
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._flush())

    def take_list(self, frames: Sequence[Frame]) -> bool:
        """Write frames that belong together; False, and nothing is written, if they do not fit."""
        for frame in frames:
            self.write(frame)
        return True

    async def _flush(self) -> None:
        try:
            while self._queue and not self.closed:
                message, size = self._queue[0]
                await self._send(message)
                if not self.closed:
                    self._queue.popleft()
                    self._queued -= size
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
        sent = self._written - self.unsent
        stalled_at = loop.time() + STALL_SECONDS
        while self.unsent > below and not self.closed:
            await asyncio.sleep(delay)
            delay = min(max(delay * 2, POLL_SECONDS[0]), POLL_SECONDS[1])
            now = loop.time()
            if (now_sent := self._written - self.unsent) > sent:
                sent, stalled_at = now_sent, now + STALL_SECONDS
            elif now > stalled_at:
                raise SlowReader(f"{self.unsent} bytes wait and none went out")

    def abandon(self) -> None:
        """Drop what is queued and write nothing more."""
        self.closed = True
        # On a server whose send() waits for the client, it would wait for one that is gone.
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._queue.clear()
        self._queued = 0

    async def close(self, code: int) -> None:
        """Send what is queued, for a bounded time, then close with a code."""
        if self.closed:
            return
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
