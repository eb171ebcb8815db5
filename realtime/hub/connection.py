"""One connected client in the hub: its bounded buffer, and its subscriptions with their replay.

A subscription is live, and then the topic pushes to it, or it catches up from the log, and then its
own task does, as fast as the client reads.
It goes live in the turn of the loop in which its position is the topic's, so nothing can come in
between; it falls behind when the buffer is full, and catches up from the log when that drains.
So a buffer never holds more than its limit and a burst never costs a slow client an event.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from realtime.events import Cursor
from realtime.exceptions import CursorExpired, StoreError
from realtime.frames import HEARTBEAT, CloseCode, reset
from realtime.hub.topic import Frame, LiveTopic, reset_reason
from realtime.writers.asgi import AsgiWriter, SlowReader

if TYPE_CHECKING:
    from realtime.hub.hub import Hub

__all__ = ["Connection", "Subscription"]

logger = logging.getLogger("realtime")

REPLAY_BYTES = 256 * 1024  # unsent at most while a client catches up
HISTORY_SECONDS = 300.0  # that a topic with `history = False` gives to those who do not resume
RETRY_SECONDS = (0.25, 5.0)  # between reads of a store that fails during a replay

Announce = Callable[[Cursor, bool | None, int], None]


class Connection:
    """A client's connection; used on the hub's loop only.

    Attributes:
        id: a public name that gives no rights.
        user: whom the client is, as its authentication said; None without ``django.contrib.auth``.
        subscriptions: by topic name.
        last_push: when something was last pushed, on the hub's clock of ticks.
    """

    __slots__ = ("_close", "hub", "id", "last_push", "limit", "subscriptions", "user", "writer")

    def __init__(
        self,
        hub: Hub,
        user: Any,
        writer: AsgiWriter,
        limit: int,
        close: Callable[[CloseCode], None],
    ) -> None:
        self.hub = hub
        self.id = secrets.token_urlsafe(9)
        self.user = user
        self.writer = writer
        self.limit = limit
        self.subscriptions: dict[str, Subscription] = {}
        self.last_push = hub.now
        self._close = close
        hub.connections.add(self)

    def push(self, text: str, size: int) -> bool:
        """Write a frame; False, and nothing is written, if the buffer would go over its limit.

        A frame that alone is larger than the limit passes an empty buffer.
        """
        unsent = self.writer.unsent
        if unsent and unsent + size > self.limit:
            return False
        self.last_push = self.hub.now
        self.writer.write(text, size)
        return True

    def answer(self, text: str) -> None:
        """Write a frame that is not an event; a client that reads no answers is closed."""
        if not self.push(text, len(text.encode())):
            self.close(CloseCode.SLOW)

    def heartbeat(self) -> None:
        """Break the silence; a full buffer is no silence."""
        self.push(HEARTBEAT, len(HEARTBEAT))

    def close(self, code: CloseCode) -> None:
        """Ask the consumer to end the connection."""
        self._close(code)

    def end(self) -> None:
        """Leave all topics; the connection is over."""
        self.writer.abandon()
        self.hub.connections.discard(self)
        for subscription in list(self.subscriptions.values()):
            subscription.end()


class Subscription:
    """A client's following of one topic."""

    __slots__ = ("_ended", "_task", "connection", "position", "topic")

    def __init__(self, connection: Connection, topic: LiveTopic) -> None:
        """Take over one follower of the topic, which ``end()`` gives back."""
        self.connection = connection
        self.topic = topic
        self.position: Cursor | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        connection.subscriptions[topic.name] = self

    async def start(
        self, since: Cursor | float | None, last: int | None, history: bool, announce: Announce
    ) -> None:
        """Choose where to begin, announce it, and go live or catch up.

        Args:
            since: resume after this cursor, or begin with what came after this moment.
            last: begin with so many of the newest events.
            history: whether the topic gives events of more than five minutes ago to those who do
                not resume.
            announce: called once, with where the replay begins, whether nothing is missing (None
                if it was not a resume) and the number of events that follow.

        Raises:
            StoreError: the log cannot be read now; nothing was announced.
        """
        frames: Sequence[Frame] = ()
        recovered: bool | None = None
        head = begin = None
        if isinstance(since, Cursor):
            try:
                frames, head = await self._resume(since)
                begin, recovered = since, True
            except CursorExpired as error:
                recovered = False
                await self.topic.settle(error.head)
        elif since is not None or last is not None:
            begin = await self._locate(since, last, history)
        # From here to the going live nothing waits, so no event comes in between.
        if begin is None:
            begin = self.topic.position
        newest = max(self.topic.position.seq, head.seq if head is not None else 0)
        self.position = begin
        announce(begin, recovered, max(0, newest - begin.seq))
        self._advance(frames)

    async def _resume(self, since: Cursor) -> tuple[Sequence[Frame], Cursor]:
        recent = self.topic.recent(since)
        if recent is not None:
            return recent, self.topic.position
        read = await self.topic.read(since)
        return read.frames, read.head

    async def _locate(self, since: float | None, last: int | None, history: bool) -> Cursor:
        store = self.topic.hub.store
        if not history:
            since = max(since or 0.0, await store.aclock() - HISTORY_SECONDS)
        return await store.alocate(self.topic.name, last=last, since=since)

    def push(self, text: str, size: int) -> bool:
        """Take a live frame; False if the connection's buffer is full."""
        return self.connection.push(text, size)

    def fall_behind(self, position: Cursor) -> None:
        """Go on from the log after this cursor, when the client has read what it has."""
        self.position = position
        self._advance(())

    def end(self) -> None:
        """Leave the topic; what is written already still arrives. Once is enough."""
        if self._ended:
            return
        self._ended = True
        if self._task is not None:
            self._task.cancel()
        self.topic.live.pop(self, None)
        if self.connection.subscriptions.get(self.topic.name) is self:
            del self.connection.subscriptions[self.topic.name]
        self.topic.hub.release(self.topic)

    # Catching up

    def _advance(self, frames: Sequence[Frame]) -> None:
        if not frames and self.position == self.topic.position:
            self.topic.live[self] = None
        else:
            self._task = self.topic.hub.loop.create_task(self._run(frames))

    async def _run(self, frames: Sequence[Frame]) -> None:
        try:
            await self._catch_up(frames)
        except SlowReader:
            self.connection.close(CloseCode.SLOW)
        except Exception:
            logger.exception("a replay of %s failed", self.topic.name)
            self.connection.close(CloseCode.FAILED)

    async def _catch_up(self, frames: Sequence[Frame]) -> None:
        """Push from the log until the position is the topic's; then go live in the same turn."""
        while True:
            for frame in frames:
                await self._push_paced(frame.text, frame.size)
                self.position = frame.cursor
            await self._pace()
            if self.position == self.topic.position:
                self.topic.live[self] = None
                return
            frames = await self._next_frames()

    async def _next_frames(self) -> Sequence[Frame]:
        assert self.position is not None
        recent = self.topic.recent(self.position)
        if recent is not None:
            return recent
        delay = RETRY_SECONDS[0]
        while True:
            try:
                read = await self.topic.read(self.position)
                if not read.frames:
                    await self.topic.settle(read.head)  # the client is where the hub is not yet
                return read.frames
            except CursorExpired as error:
                await self.topic.settle(error.head)
                self.position = self.topic.position
                text = reset(self.topic.name, self.position, reset_reason(error))
                await self._push_paced(text, len(text))
                return ()
            except StoreError:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, RETRY_SECONDS[1])

    async def _push_paced(self, text: str, size: int) -> None:
        await self._pace()
        connection = self.connection
        connection.last_push = connection.hub.now
        connection.writer.write(text, size)

    async def _pace(self) -> None:
        writer = self.connection.writer
        limit = min(REPLAY_BYTES, self.connection.limit)
        if writer.unsent >= limit:
            await writer.drained(limit // 2)
