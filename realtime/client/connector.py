"""Keeps one connection, whatever happens to it, over the best transport that gets through."""

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

FIRST_SECONDS = 0.5  # a server that restarts quickly is found again quickly
LAST_SECONDS = 20.0  # a herd of thousands then comes back at a rate that a server can bear


class Backoff:
    """Delays with full jitter: anywhere between zero and a bound that doubles up to 20 seconds."""

    def __init__(self) -> None:
        self._bound = FIRST_SECONDS

    def next(self) -> float:
        """Return the next delay in seconds."""
        bound = self._bound
        self._bound = min(LAST_SECONDS, bound * 2)
        return random.random() * bound

    def reset(self) -> None:
        """Begin with the shortest bound again."""
        self._bound = FIRST_SECONDS


Transport: TypeAlias = Literal["auto", "websocket", "sse"]

STABLE_SECONDS = 10.0  # of a connection after which the next attempt is an early one
RETRY_AFTER_SECONDS = 300.0  # that a server may keep us waiting at most
WEBSOCKET_AGAIN_SECONDS = 300.0  # until a WebSocket is tried again that did not get through

_CODES = {code.reason: int(code) for code in CloseCode}

logger = logging.getLogger("realtime.client")


class Owner(Protocol):
    """What a connector tells."""

    def up(self, link: Link) -> None:
        """There is a connection."""

    def down(self) -> None:
        """There is none any more, or it is about to end; may be called twice."""

    def hear(self, frame: Frame) -> None:
        """A frame came."""


class Connector:
    """Keeps a connection.

    Args:
        make: makes a link over the transport of a name.
        transport: the only one to use, or ``auto``: a WebSocket, and an event stream where that
            does not get through.
        owner: whom it tells.

    Attributes:
        transport: the name of the transport in use; None while there is no connection.
    """

    def __init__(self, make: Callable[[str], Link], transport: Transport, owner: Owner) -> None:
        self.transport: str | None = None
        self._make = make
        self._wanted = transport
        self._owner = owner
        self._backoff = Backoff()
        self._was_up = False
        self._up_at = 0.0
        self._websocket_at = 0.0  # from when on a WebSocket may be tried
        self._closing: Frame = {}

    async def run(self) -> NoReturn:
        """Connect, and connect again, until it makes no sense any more.

        Raises:
            ConnectionEnded: the server said not to come back, or no transport ever got through and
            the last one was answered with HTTP 401, 403, 404 or 410.
        """
        while True:
            closed = await self._use_any()
            delay = self._delay(closed)
            logger.info("no connection (%s); again in %.1f s", closed.reason, delay)
            await asyncio.sleep(delay)

    async def _use_any(self) -> LinkClosed:
        """Connect once, and return why that is over."""
        try:
            link = await self._open_any()
            while True:
                link = await self._use(link)
        except LinkClosed as closed:
            return closed

    # Opening

    async def _open_any(self) -> Link:
        """Open the first link that gets through.

        Raises:
            LinkClosed: none does; the last one's reason.
        """
        if self._wanted != "auto":
            return await self._open(self._wanted)
        now = asyncio.get_running_loop().time()
        if now >= self._websocket_at:
            try:
                return await self._open("websocket")
            except LinkClosed as closed:
                if not closed.blocked:
                    raise
                logger.info("no WebSocket gets through: %s", closed.reason)
        self._websocket_at = 0.0  # no stream either: then it is not the WebSocket
        link = await self._open("sse")
        self._websocket_at = asyncio.get_running_loop().time() + WEBSOCKET_AGAIN_SECONDS
        return link

    async def _open(self, name: str) -> Link:
        link = self._make(name)
        self._closing = {}
        try:
            await link.open(self._hear)
        except LinkClosed as closed:
            await link.close()
            raise self._explain(closed) from closed
        except BaseException:
            await link.close()
            raise
        return link

    async def _open_better(self) -> Link:
        """Return a WebSocket as soon as one gets through."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._websocket_at - loop.time())
            link = self._make("websocket")
            try:
                await link.open(self._hear_early)
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
        """Use a link until it ends or there is a better one, which is returned.

        Raises:
            LinkClosed: it ended.
        """
        loop = asyncio.get_running_loop()
        self._closing = {}
        self._was_up, self._up_at, self.transport = True, loop.time(), link.name
        running = asyncio.create_task(link.run())
        opening = None
        if self._wanted == "auto" and link.name == "sse":
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
            raise LinkClosed(1006, "the link ended")
        except LinkClosed as closed:
            raise self._explain(closed) from closed
        finally:
            self.transport = None
            self._owner.down()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await link.close()
            if better is None and opening is not None and not opening.cancelled():
                await opening.result().close()  # it came a moment too late

    def _hear(self, frame: Frame) -> None:
        if frame["type"] == "closing":
            self._closing = frame
            self._owner.down()  # what is sent from now on is not read
        elif frame["type"] not in ("heartbeat", "pong"):
            self._owner.hear(frame)

    def _hear_early(self, frame: Frame) -> None:
        """Hear what a link says; while it is opened, that is of no interest."""
        if self.transport == "websocket":
            self._hear(frame)

    # The end of a link

    def _explain(self, closed: LinkClosed) -> LinkClosed:
        """Add what the server said before the end."""
        if not (closing := self._closing):
            return closed
        reason, after = str(closing.get("reason", "")), closing.get("retry_after")
        code = closed.code if 4000 <= closed.code < 5000 else _CODES.get(reason, closed.code)
        if not isinstance(after, int | float) or not math.isfinite(after) or after < 0:
            after = closed.retry_after
        return LinkClosed(code, reason or closed.reason, retry_after=after)

    def _delay(self, closed: LinkClosed) -> float:
        """Return the seconds until the next attempt.

        Raises:
            ConnectionEnded: there will be none.
        """
        if 4400 <= closed.code <= 4499:
            raise ConnectionEnded(closed.code, closed.reason) from closed
        if not self._was_up and closed.status in DENIALS:
            raise ConnectionEnded(DENIALS[closed.status], closed.reason) from closed
        if not self._was_up and closed.status in (404, 410):
            raise ConnectionEnded(4404, f"{closed.reason}; check the URL") from closed
        now = asyncio.get_running_loop().time()
        if self._up_at and now - self._up_at > STABLE_SECONDS:
            self._backoff.reset()
        self._up_at = 0.0
        if closed.retry_after is not None:
            return min(closed.retry_after, RETRY_AFTER_SECONDS)
        return self._backoff.next()
