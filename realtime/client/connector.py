"""Keep one connection open: reconnect when it breaks, over the best transport available."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable
from typing import Literal, NoReturn, Protocol, TypeAlias

from realtime.client.links import DENIALS, Frame, Link, LinkClosed
from realtime.exceptions import ConnectionEnded
from realtime.protocol.frames import CloseCode

__all__ = ["Backoff", "Connector", "Owner", "Transport"]

FIRST_SECONDS = 0.5  # short, to reconnect soon after a quick restart of the server
LAST_SECONDS = 20.0  # long enough to spread the reconnects of thousands of clients


class Backoff:
    """Exponential backoff with full jitter.

    Each delay is random between zero and a bound, which doubles from 0.5 to 20 seconds.
    """

    def __init__(self) -> None:
        self._bound = FIRST_SECONDS

    def next(self) -> float:
        """Return the next delay in seconds."""
        bound = self._bound
        self._bound = min(LAST_SECONDS, bound * 2)
        return random.random() * bound

    def reset(self) -> None:
        """Start again with the shortest bound."""
        self._bound = FIRST_SECONDS


Transport: TypeAlias = Literal["auto", "websocket", "sse"]

STABLE_SECONDS = 10.0  # a connection that lasted longer than this resets the backoff
RETRY_AFTER_SECONDS = 300.0  # upper limit for a delay that the server asks for
WEBSOCKET_AGAIN_SECONDS = 300.0  # until a WebSocket is tried again after it was blocked

_CODES = {code.reason: int(code) for code in CloseCode}

logger = logging.getLogger("realtime.client")


class Owner(Protocol):
    """The callbacks of a connector."""

    def up(self, link: Link) -> None:
        """Called when a connection is open; ``link`` sends frames over it."""

    def down(self) -> None:
        """Called when the connection broke or is about to close; possibly twice."""

    def receive(self, frame: Frame) -> None:
        """Called with each frame that arrives."""

    def renew_token(self) -> bool:
        """Called when the server refused the token; return whether to try again with a new one."""


class Connector:
    """Keeps one connection open.

    Args:
        make: creates a link for the name of a transport.
        transport: the transport to use, or ``auto``: a WebSocket, or an event stream while
            WebSockets are blocked.
        owner: receives the callbacks.

    Attributes:
        transport: the name of the current transport; None while disconnected.
    """

    def __init__(self, make: Callable[[str], Link], transport: Transport, owner: Owner) -> None:
        self.transport: str | None = None
        self._make = make
        self._requested = transport
        self._owner = owner
        self._backoff = Backoff()
        self._was_up = False  # at least one connection was opened
        self._up_at = 0.0  # time at which the current connection was opened
        self._websocket_at = 0.0  # time from which a WebSocket is tried again
        self._closing: Frame = {}  # the ``closing`` frame of the current link

    async def run(self) -> NoReturn:
        """Connect, and reconnect whenever the connection breaks.

        Raises:
            ConnectionEnded: the server told the client not to reconnect, or the first connection
                could not be opened because of HTTP 401, 403, 404 or 410.
        """
        while True:
            closed = await self._use_any()
            delay = self._delay(closed)
            logger.info("no connection (%s); reconnecting in %.1f s", closed.reason, delay)
            await asyncio.sleep(delay)

    async def _use_any(self) -> LinkClosed:
        """Connect, use the connection until it breaks, and return why it broke."""
        try:
            link = await self._open_any()
            while True:
                link = await self._use(link)
        except LinkClosed as closed:
            return closed

    # Opening

    async def _open_any(self) -> Link:
        """Open a link over the first transport that is not blocked.

        Raises:
            LinkClosed: no link could be opened; the reason is that of the last attempt.
        """
        if self._requested != "auto":
            return await self._open(self._requested)
        now = asyncio.get_running_loop().time()
        if now >= self._websocket_at:
            try:
                return await self._open("websocket")
            except LinkClosed as closed:
                if not closed.blocked:
                    raise
                logger.info("WebSockets are blocked, using an event stream: %s", closed.reason)
        self._websocket_at = 0.0  # if the stream fails as well, start with a WebSocket again
        link = await self._open("sse")
        self._websocket_at = asyncio.get_running_loop().time() + WEBSOCKET_AGAIN_SECONDS
        return link

    async def _open(self, name: str) -> Link:
        link = self._make(name)
        self._closing = {}
        try:
            await link.open(self._receive)
        except LinkClosed as closed:
            await link.close()
            raise self._with_announced_reason(closed) from closed
        except BaseException:
            await link.close()
            raise
        return link

    async def _open_better(self) -> Link:
        """Try to open a WebSocket at intervals; return it when that succeeds."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._websocket_at - loop.time())
            link = self._make("websocket")
            try:
                await link.open(self._receive_early)
            except LinkClosed:
                await link.close()
                self._websocket_at = loop.time() + WEBSOCKET_AGAIN_SECONDS
            except BaseException:
                await link.close()
                raise
            else:
                return link

    # Using

    async def _use(self, link: Link) -> Link:
        """Use a link until there is a better one, and return that.

        Raises:
            LinkClosed: the link was closed.
        """
        loop = asyncio.get_running_loop()
        self._closing = {}
        self._was_up, self._up_at, self.transport = True, loop.time(), link.name
        running = asyncio.create_task(link.run())
        opening = None
        if self._requested == "auto" and link.name == "sse":
            opening = asyncio.create_task(self._open_better())
        tasks = [running] if opening is None else [running, opening]
        better: Link | None = None
        try:
            self._owner.up(link)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if opening is not None and opening.done():
                better = opening.result()
                return better
            running.result()
            raise LinkClosed(1006, "the link was closed without a reason")
        except LinkClosed as closed:
            raise self._with_announced_reason(closed) from closed
        finally:
            self.transport = None
            self._owner.down()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await link.close()
            if better is None and opening is not None and not opening.cancelled():
                await opening.result().close()  # it opened just after the current link closed

    def _receive(self, frame: Frame) -> None:
        if frame["type"] == "closing":
            self._closing = frame
            self._owner.down()  # the server ignores frames from now on
        elif frame["type"] not in ("heartbeat", "pong"):
            self._owner.receive(frame)

    def _receive_early(self, frame: Frame) -> None:
        """Ignore the frames of a second link until it replaces the current one."""
        if self.transport == "websocket":
            self._receive(frame)

    # After a link was closed

    def _with_announced_reason(self, closed: LinkClosed) -> LinkClosed:
        """Add the code and reason of the ``closing`` frame that preceded the close."""
        if not (closing := self._closing):
            return closed
        reason, after = str(closing.get("reason", "")), closing.get("retry_after")
        code = closed.code if 4000 <= closed.code < 5000 else _CODES.get(reason, closed.code)
        if not isinstance(after, int | float) or not math.isfinite(after) or after < 0:
            after = closed.retry_after
        return LinkClosed(code, reason or closed.reason, retry_after=after)

    def _delay(self, closed: LinkClosed) -> float:
        """Return the delay in seconds before the next attempt.

        Raises:
            ConnectionEnded: the client must not reconnect.
        """
        now = asyncio.get_running_loop().time()
        if self._up_at and now - self._up_at > STABLE_SECONDS:
            self._backoff.reset()
        self._up_at = 0.0
        is_unauthorized = closed.code == CloseCode.SIGNED_OUT or closed.status == 401
        if is_unauthorized and self._owner.renew_token():
            return self._backoff.next()
        if 4400 <= closed.code <= 4499:
            raise ConnectionEnded(closed.code, closed.reason) from closed
        if not self._was_up and closed.status in DENIALS:
            raise ConnectionEnded(DENIALS[closed.status], closed.reason) from closed
        if not self._was_up and closed.status in (404, 410):
            raise ConnectionEnded(4404, f"{closed.reason}; check the URL") from closed
        if closed.retry_after is not None:
            return min(closed.retry_after, RETRY_AFTER_SECONDS)
        return self._backoff.next()
