"""One connected client in the hub: its bounded buffer, and its subscriptions with their replay.

A subscription falls behind when the buffer is full, and catches up from the log as the buffer
drains (``subscribers.py``). So a buffer never holds more than its limit, and a burst never costs a
slow client an event.
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
from realtime.hub.recent import BUNDLE_BYTES, Frames, Pieces
from realtime.hub.subscribers import BaseSubscription
from realtime.hub.topic import LiveTopic, reset_reason
from realtime.outage import Outage
from realtime.protocol.encoders import Frame, Kind
from realtime.protocol.events import Cursor
from realtime.protocol.frames import CloseCode, reset
from realtime.writers.asgi import AsgiWriter, Piece

if TYPE_CHECKING:
    from realtime.hub.hub import Hub
    from realtime.topics import Topic

__all__ = ["Connection", "Subscription", "since_without_history"]

REPLAY_BYTES = 256 * 1024  # that can be unsent at most while a client catches up
HISTORY_SECONDS = 300.0  # that a topic with `history = False` gives to clients that do not resume
RETRY_SECONDS = (0.25, 5.0)  # between reads of a store that fails during a replay

Announce = Callable[[Cursor, bool | None, int], None]


class Connection:
    """A client's connection; used on the hub's loop only.

    Attributes:
        hub: the hub of this process.
        id: a public name that gives no rights.
        user: the client's user, as authenticated; None without ``django.contrib.auth``.
        writer: writes to the client.
        limit: bytes that can be unsent before the client's buffer counts as full.
        subscriptions: by topic name.
        due: when it is checked for silence; written by ``Heartbeats``.
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
        self._close = close  # asks the consumer to close the connection
        writer.attach(hub.flusher, limit, self.close)
        self.due = 0
        hub.connections.add(self)
        hub.heartbeats.add(self, hub.loop.time())

    def push(self, frame: Frame) -> bool:
        """Queue a frame; return False, and queue nothing, if the buffer would exceed its limit.

        An empty buffer accepts a frame that alone is larger than the limit.
        """
        if not self.writer.fits(frame.size, self.limit) and self.writer.unsent:
            return False
        self.writer.write(frame)
        return True

    def answer(self, frame: Frame) -> None:
        """Queue a frame that is not an event; close a client that does not read its answers.

        Answers can fill the buffer to twice its limit, so that a burst of events does not close a
        slow client at its next ping.
        """
        if not self.writer.fits(0, 2 * self.limit):
            self.close(CloseCode.SLOW)
        else:
            self.writer.write(frame)

    @property
    def replay_limit(self) -> int:
        """Bytes that can be unsent during a replay."""
        return min(REPLAY_BYTES, self.limit)

    async def drain(self) -> None:
        """Wait, if the buffer is full for a replay, until at most half of its limit is unsent.

        Raises:
            SlowReader: the client does not read.
        """
        limit = self.replay_limit
        if not self.writer.fits(1, limit):
            await self.writer.drain(limit // 2)

    async def push_paced(self, piece: Piece) -> None:
        """Queue a frame or a bundle of a replay, once the buffer has room for it.

        Raises:
            SlowReader: the client does not read.
        """
        limit = self.replay_limit
        if not self.writer.fits(piece.size, limit) and self.writer.unsent:
            await self.writer.drain(max(0, min(limit // 2, limit - piece.size)))
        self.writer.write(piece)

    def last_write(self) -> float:
        """Return when something was last written to the client, on the loop's clock."""
        # A write pass does not update the writer's last_flush, but the topic's last_push.
        pushes = [s.topic.last_push for s in self.subscriptions.values() if s in s.topic.live]
        return max(self.writer.last_flush, *pushes) if pushes else self.writer.last_flush

    def close(self, code: CloseCode) -> None:
        """Ask the consumer to close the connection."""
        self._close(code)

    def end(self) -> None:
        """Unsubscribe from all topics: the connection is closed. Idempotent."""
        self.writer.abort()
        self.hub.connections.discard(self)
        self.hub.heartbeats.discard(self)
        for subscription in list(self.subscriptions.values()):
            subscription.end()
        self._close = _ignore  # breaks the reference cycle with the consumer


def _ignore(code: CloseCode) -> None:
    """Ignore a close: the connection is closed already."""


def since_without_history(topic: str, since: float | None, now: float, head: Cursor) -> float:
    """Return the time from which a client receives the events of a topic with ``history = False``.

    This is for a client that does not resume.

    Args:
        topic: its name.
        since: the time from which the client wants events, in Unix seconds; None if it gave none.
        now: the store's time.
        head: the topic's head.

    Raises:
        CursorExpired: ``since`` is more than ``HISTORY_SECONDS`` ago; reset the client.
    """
    earliest = now - HISTORY_SECONDS
    if since is not None and since < earliest:
        raise CursorExpired(topic, head, head, contradicts=False)
    return earliest if since is None else since


class Subscription(BaseSubscription):
    """A client's subscription to a topic.

    Attributes:
        presence: its subscription to the topic's presence, if there is one; it ends with this one.
    """

    __slots__ = ("presence",)

    def __init__(self, connection: Connection, topic: LiveTopic) -> None:
        super().__init__(connection, topic)
        self.presence: PresenceSubscription | None = None
        connection.subscriptions[topic.name] = self

    def add_presence(
        self, topic: Topic, live: LivePresence, hold: float | None, page: str | None
    ) -> PresenceSubscription:
        """Return a new subscription to the topic's presence, which replaces an earlier one.

        For the arguments see ``PresenceSubscription``.
        """
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
            since: resume after this cursor, or begin with the events after this time, in Unix
                seconds.
            last: begin with so many of the newest events.
            history: whether the topic gives events older than ``HISTORY_SECONDS`` to clients that
                do not resume.
            announce: called once, with the cursor at which the replay begins, whether nothing is
                missing (None if the client did not resume) and the number of events that follow.

        Raises:
            StoreError: the log cannot be read now, or not in time; nothing was announced.
        """
        topic = self.topic
        recovered = None if since is None else True
        begin, read = self._begin_in_memory(since, last)
        if read is None:
            begin, read, recovered = await topic.hub.answered(self._begin(since, last, history))
        if self.ended:
            return
        # There is no await from here until the subscription is live, so no event is missed.
        if begin is None or read is None:
            begin, read = topic.position, Frames((), topic.position)
        self.position = begin
        ends = (begin, read.head, topic.position)
        announce(begin, recovered, max(c.seq for c in ends if c.epoch == begin.epoch) - begin.seq)
        self._advance(self._pieces(read))

    def _begin_in_memory(
        self, since: Cursor | float | None, last: int | None
    ) -> tuple[Cursor | None, Frames | None]:
        """Return where to begin and what follows; None for what needs the store."""
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
            # With `last`, this happens only if the located cursor was trimmed before the read.
            await self.topic.reconcile(error.head)
            return None, None, recovered and False

    async def _read_on(self, after: Cursor) -> Frames:
        recent = self.topic.recent(after)
        if recent is not None:
            return recent
        read = await self.topic.read(after)
        if read.head.epoch != self.topic.position.epoch:
            await self.topic.reconcile(read.head)  # the hub does not know the new epoch yet
        return read

    async def _locate(self, since: float | None, last: int | None, history: bool) -> Cursor:
        topic, store = self.topic, self.topic.hub.store
        if not history:
            now = await store.aclock()
            since = since_without_history(topic.name, since, now, topic.position)
        return await store.alocate(topic.name, last=last, since=since)

    def end(self) -> None:
        """Unsubscribe; what is written already still arrives. Idempotent."""
        if self.ended:
            return
        super().end()
        if self.presence is not None:
            self.presence.end()
        if self.connection.subscriptions.get(self.topic.name) is self:
            del self.connection.subscriptions[self.topic.name]

    # Catching up

    def _pieces(self, read: Frames) -> Pieces:
        has_room = self.connection.replay_limit >= 2 * BUNDLE_BYTES
        return read.bundles if self.writer.accepts_bundles and has_room else read.singles

    async def _missing(self) -> Pieces:
        topic = self.topic
        assert self.position is not None
        recent = topic.recent(self.position)
        if recent is not None:
            return self._pieces(recent)
        text = f"a replay of {topic.name} waits for its store: %s"
        # At debug level, since it fails for every client at once; the topic's own repair warns.
        outage = Outage(text, backoff=RETRY_SECONDS, level=logging.DEBUG)
        while True:
            try:
                read = await topic.read(self.position)
                if not read.frames:
                    await topic.reconcile(read.head)  # the client is ahead of the hub
                return self._pieces(read)
            except CursorExpired as error:
                await topic.reconcile(error.head)
                self.position = topic.position
                text = reset(topic.name, self.position, reset_reason(error))
                frame = Frame(text, (topic.name, self.position), Kind.RESET)
                return [(frame, self.position)]
            except StoreError as error:
                await asyncio.sleep(outage.failed(error) * random.uniform(0.5, 1.0))
