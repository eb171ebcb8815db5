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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from realtime.exceptions import CursorExpired, StoreError
from realtime.hub.presence import LivePresence, PresenceSubscription
from realtime.hub.recent import BUNDLE_BYTES, Frames
from realtime.hub.topic import LiveTopic, reset_reason
from realtime.protocol.encoders import Frame, Kind
from realtime.protocol.events import Cursor
from realtime.protocol.frames import CloseCode, reset
from realtime.writers.asgi import AsgiWriter, Piece, SlowReader

if TYPE_CHECKING:
    from realtime.hub.hub import Hub
    from realtime.topics import Topic

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
        due: when it is looked whether it needs a heartbeat; of ``hub.heartbeats``.
    """

    __slots__ = ("_close", "due", "hub", "id", "limit", "subscriptions", "user", "writer")

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
        self._close = close
        writer.attach(hub.flusher, limit, self._fail)
        self.due = 0
        hub.connections.add(self)
        hub.heartbeats.add(self, hub.loop.time())

    def push(self, frame: Frame) -> bool:
        """Write a frame; False, and nothing is written, if the buffer would go over its limit.

        A frame that alone is larger than the limit passes an empty buffer.
        """
        if not self.writer.fits(frame.size, self.limit) and self.writer.unsent:
            return False
        self.writer.write(frame)
        return True

    def answer(self, frame: Frame) -> None:
        """Write a frame that is not an event; a client that reads no answers is closed.

        Answers have as much room again as events: a burst of events must not cost a client that
        reads, slowly, its connection at the next ping.
        """
        if not self.writer.fits(0, 2 * self.limit):
            self.close(CloseCode.SLOW)
        else:
            self.writer.write(frame)

    async def drained(self) -> None:
        """Wait until a replay may go on: at most half of what it may have is unsent.

        Raises:
            SlowReader: the client does not read.
        """
        limit = self.replay_limit
        if not self.writer.fits(1, limit):
            await self.writer.drained(limit // 2)

    @property
    def replay_limit(self) -> int:
        """Bytes that a replay may have unsent."""
        return min(REPLAY_BYTES, self.limit)

    async def push_paced(self, frame: Piece) -> None:
        """Write a frame of a replay, or a bundle, once it fits into what a replay may have unsent.

        Raises:
            SlowReader: the client does not read.
        """
        limit = self.replay_limit
        if not self.writer.fits(frame.size, limit) and self.writer.unsent:
            await self.writer.drained(max(0, min(limit // 2, limit - frame.size)))
        self.writer.write(frame)

    def heard(self) -> float:
        """Return when the client last heard something, on the loop's clock."""
        spread = [s.topic.last_spread for s in self.subscriptions.values() if s in s.topic.live]
        return max(self.writer.last_flush, *spread) if spread else self.writer.last_flush

    def _fail(self) -> None:
        self.close(CloseCode.FAILED)

    def close(self, code: CloseCode) -> None:
        """Ask the consumer to end the connection."""
        self._close(code)

    def end(self) -> None:
        """Leave all topics; the connection is over."""
        self.writer.abandon()
        self.hub.connections.discard(self)
        self.hub.heartbeats.discard(self)
        for subscription in list(self.subscriptions.values()):
            subscription.end()
        self._close = _nobody_left  # which would keep the consumer, and it this, until a collection


def _nobody_left(code: CloseCode) -> None:
    """Close what is closed."""


class Subscription:
    """A client's following of one topic.

    Attributes:
        presence: who else is there, if the topic keeps presence; it ends with this.
    """

    __slots__ = ("_task", "connection", "ended", "position", "presence", "topic", "writer")

    def __init__(self, connection: Connection, topic: LiveTopic) -> None:
        """Take over one follower of the topic, which ``end()`` gives back."""
        self.connection = connection
        self.writer = connection.writer
        self.topic = topic
        self.position: Cursor | None = None
        self._task: asyncio.Task[None] | None = None
        self.ended = False
        self.presence: PresenceSubscription | None = None
        connection.subscriptions[topic.name] = self

    def attend(
        self, topic: Topic, live: LivePresence, hold: float | None, page: str | None
    ) -> PresenceSubscription:
        """Be one of those who are on the topic, instead of as whom it was before; see there."""
        if self.presence is not None:
            self.presence.end()
        self.presence = PresenceSubscription(self.connection, topic, live, hold, page)
        if self.ended:
            self.presence.end()
        return self.presence

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
            StoreError: the log cannot be read now, or not in time; nothing was announced.
        """
        topic = self.topic
        recovered = None if since is None else True
        begin, read = self._begin_here(since, last)
        if read is None:
            begin, read, recovered = await topic.hub.answered(self._begin(since, last, history))
        if self.ended:
            return
        # From here to the going live nothing waits, so no event comes in between.
        if begin is None or read is None:
            begin, read = topic.position, Frames((), topic.position)
        self.position = begin
        ends = (begin, read.head, topic.position)
        announce(begin, recovered, max(c.seq for c in ends if c.epoch == begin.epoch) - begin.seq)
        self._advance(read)

    def _begin_here(
        self, since: Cursor | float | None, last: int | None
    ) -> tuple[Cursor | None, Frames | None]:
        """Return where to begin and what follows, if neither needs the store."""
        if since is None and last is None:
            return self.topic.position, Frames((), self.topic.position)
        return (since, self.topic.recent(since)) if isinstance(since, Cursor) else (None, None)

    async def _begin(
        self, since: Cursor | float | None, last: int | None, history: bool
    ) -> tuple[Cursor | None, Frames | None, bool | None]:
        """Return where to begin (None: at the hub's position), what follows, and ``recovered``."""
        recovered = None if since is None else True
        try:
            begin = since if isinstance(since, Cursor) else await self._locate(since, last, history)
            return begin, await self._read_on(begin), recovered
        except CursorExpired as error:
            # What `last` has found expires only if it was trimmed away since.
            await self.topic.settle(error.head)
            return None, None, recovered and False

    async def _read_on(self, after: Cursor) -> Frames:
        recent = self.topic.recent(after)
        if recent is not None:
            return recent
        read = await self.topic.read(after)
        if read.head.epoch != self.topic.position.epoch:
            await self.topic.settle(read.head)  # the hub does not know yet that the log began anew
        return read

    async def _locate(self, since: float | None, last: int | None, history: bool) -> Cursor:
        store = self.topic.hub.store
        if not history:
            earliest = await store.aclock() - HISTORY_SECONDS
            if since is not None and since < earliest:
                head = self.topic.position
                raise CursorExpired(self.topic.name, head, head, contradicts=False)
            since = since or earliest
        return await store.alocate(self.topic.name, last=last, since=since)

    @property
    def catching_up(self) -> asyncio.Task[None] | None:
        """The task that catches up from the log; None while live."""
        return None if self._task is None or self._task.done() else self._task

    def push(self, frame: Frame) -> bool:
        """Take a live frame; False if the connection's buffer is full."""
        return self.connection.push(frame)

    def fall_behind(self, position: Cursor) -> None:
        """Go on from the log after this cursor, when the client has read what it has."""
        self.position = position
        self._advance(None)

    def end(self) -> None:
        """Leave the topic; what is written already still arrives. Once is enough."""
        if self.ended:
            return
        self.ended = True
        if self.presence is not None:
            self.presence.end()
        if self._task is not None:
            self._task.cancel()
        self.topic.dismiss(self)
        if self.connection.subscriptions.get(self.topic.name) is self:
            del self.connection.subscriptions[self.topic.name]
        self.topic.hub.release(self.topic)

    # Catching up

    def _advance(self, read: Frames | None) -> None:
        if self.ended:
            return
        if not (read and read.frames) and self.position == self.topic.position:
            self.topic.admit(self)
        else:
            self._task = self.topic.hub.loop.create_task(self._run(read))

    async def _run(self, read: Frames | None) -> None:
        try:
            await self._catch_up(read)
        except SlowReader:
            self.connection.close(CloseCode.SLOW)
        except Exception:
            logger.exception("a replay of %s failed", self.topic.name)
            self.connection.close(CloseCode.FAILED)

    async def _catch_up(self, read: Frames | None) -> None:
        """Push from the log until the position is the topic's; then go live in the same turn."""
        connection = self.connection
        bundled = self.writer.takes_bundles and connection.replay_limit >= 2 * BUNDLE_BYTES
        while not connection.writer.closed:
            if read is not None:
                for piece, cursor in read.bundles if bundled else read.singles:
                    await connection.push_paced(piece)
                    self.position = cursor
            # With a full buffer it would fall behind again at the next event.
            await connection.drained()
            if self.position == self.topic.position:
                self.topic.admit(self)
                return
            read = await self._next_frames()

    async def _next_frames(self) -> Frames | None:
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
                return read
            except CursorExpired as error:
                await self.topic.settle(error.head)
                self.position = self.topic.position
                text = reset(self.topic.name, self.position, reset_reason(error))
                place = (self.topic.name, self.position)
                await self.connection.push_paced(Frame(text, place, Kind.RESET))
                return None
            except StoreError:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, RETRY_SECONDS[1])
