"""The hub: one per process, between the channel layer and the connections.

It joins a topic's group once, however many clients follow it, passes wake-ups to the followed
topics (``topic.py``), and compares their positions with the heads in the store every few seconds.
Its other periodic work is in ``jobs.py``.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from channels.layers import BaseChannelLayer

from realtime import conf
from realtime.broadcast import WAKEUP_TYPE, Wakeup, abroadcast, adopt_loop, get_layer, group_name
from realtime.exceptions import StoreError, StoreUnavailable
from realtime.hub.heartbeats import Heartbeats
from realtime.hub.jobs import TICK_SECONDS, Jobs, keep_running
from realtime.hub.member_writer import MemberWriter
from realtime.hub.presence import LivePresence
from realtime.hub.slow_clients import SlowClients
from realtime.hub.topic import LiveTopic
from realtime.outage import Outage
from realtime.protocol.names import presence_log
from realtime.stores import get_store
from realtime.stores.base import Store
from realtime.writers.flusher import Flusher

if TYPE_CHECKING:
    from realtime.hub.connection import Connection
    from realtime.topics import Topic

__all__ = ["Hub"]

logger = logging.getLogger("realtime")

T = TypeVar("T")

JOIN_CHECK_SECONDS = 0.25  # from a group_add to a head check, since it can take effect late
HEAD_CHECK_SECONDS = 4.0  # between two head checks of a topic at most; with a tick, under 5 s
LINGER_SECONDS = 60.0  # that a topic without followers is kept, so that a page reload need not join
JOIN_SECONDS = 0.5  # that clients wait for a group_add before they continue without it
LAYER_SECONDS = 5.0  # timeout of a group_add or group_discard
ANSWER_SECONDS = 15.0  # that a client waits for the store; longer than any store's own retries
RECEIVE_RETRY_SECONDS = (0.1, 5.0)  # first and longest wait before a failed receive is retried
RECEIVE_BATCH = 50  # wake-ups handled in a row before other tasks get a turn


class Hub:
    """Connects the channel layer with this process's connections; used on one loop only.

    Attributes:
        loop: the event loop that everything here runs on.
        store: where the logs are.
        layer: the channel layer that delivers the wake-ups.
        limits: the limits in the settings.
        topics: the followed topics, also those that linger without followers, by name.
        connections: the clients of this process.
        member_writer: writes this process's members and its row in the list of nodes.
        flusher: writes the frames that were pushed in one turn of the loop to the sockets.
        heartbeats: when each connection is due for a heartbeat.
        slow_clients: closes the slowest clients while too many bytes are unsent.
        jobs: the periodic work.
    """

    def __init__(self, store: Store | None = None, layer: BaseChannelLayer | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.store = store or get_store()
        self.layer: BaseChannelLayer = layer or get_layer()
        self.limits = conf.get().limits
        self.topics: dict[str, LiveTopic] = {}
        self.connections: set[Connection] = set()
        self.member_writer = MemberWriter(self)
        self.flusher = Flusher(self.loop)
        self.heartbeats = Heartbeats(self.flusher)
        self.slow_clients = SlowClients(self.flusher, self.limits.total_buffer_bytes)
        self.jobs = Jobs(self.store, self.member_writer)
        self._check = self.jobs.add(self._check_heads, "heads were not checked", TICK_SECONDS)
        self._beat = self.jobs.add(self._push_heartbeats, "no heartbeats were sent", TICK_SECONDS)
        self._measure = self.jobs.add(
            self._close_slowest, "unsent bytes were not counted", TICK_SECONDS
        )
        self._join = self.jobs.add(self._join_waiting, "topics could not be joined")
        self._rejoin = self.jobs.add(self._rejoin_waiting, "groups could not be joined again")
        self._channel = ""  # the layer's channel of this process; "" until it is made
        self._channel_lock = asyncio.Lock()
        self._closed = False
        self._lingering: dict[str, LiveTopic] = {}  # without followers, the oldest one first
        self._joining: dict[str, LiveTopic] = {}  # topics that the next run of _join takes
        self._adding: set[asyncio.Task[None]] = set()  # calls of group_add under way
        self._leaving: dict[str, asyncio.Task[None]] = {}  # calls of group_discard, by topic name
        self._rejoining: dict[str, LiveTopic] = {}  # topics that the next run of _rejoin takes
        self._receiving: asyncio.Task[None] | None = None  # reads the channel
        self._groups_outage = _layer_outage()
        self._receive_outage = _layer_outage()
        self._heads_outage = Outage("heads could not be checked: %s", "heads are checked again")

    def start(self) -> None:
        """Start to receive, and start the timer."""
        adopt_loop(self.loop)
        receiving = keep_running("receiving from the channel layer", self._receive)
        self._receiving = self.loop.create_task(receiving)
        self.jobs.start()

    async def close(self) -> None:
        """Stop, and sign off among the nodes; connections that are left receive nothing more."""
        self._closed = True
        self.member_writer.close()
        for connection in list(self.connections):
            for subscription in list(connection.subscriptions.values()):
                subscription.end()
        tasks = [*self._adding, *self._leaving.values()]
        if self._receiving is not None:
            tasks.append(self._receiving)
        for task in tasks:
            task.cancel()
        tasks += self.jobs.stop()
        for topic in self.topics.values():
            topic.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.member_writer.node.sign_off()
        await asyncio.gather(*(self._leave_group(topic) for topic in self.topics.values()))
        self.topics.clear()

    # Following

    async def follow(self, topic: Topic) -> LiveTopic:
        """Join a topic, add a follower to it and return it; ``release()`` removes the follower.

        Raises:
            StoreError: the head could not be read in time; no follower was added.
        """
        name = str(topic)
        live = self.topics.get(name) or LiveTopic(self, name, topic.max_events)
        await self._follow(live)
        return live

    async def follow_presence(self, topic: Topic) -> LivePresence:
        """Join the presence log of a topic; everything else is as in ``follow()``."""
        live = self.topics.get(presence_log(str(topic))) or LivePresence(self, str(topic))
        assert isinstance(live, LivePresence)
        await self._follow(live)
        return live

    async def _follow(self, live: LiveTopic) -> None:
        if self._closed:
            raise StoreError("the server is shutting down")
        if live.name not in self.topics:
            self.topics[live.name] = live
            self._joining[live.name] = live
            self._join.start()
        if live.linger is not None:
            live.linger.cancel()
            live.linger = None
            del self._lingering[live.name]
        live.followers += 1
        try:
            joined = live.joined  # if it is done, a timer would be wasted
            await (joined if joined.done() else self.answered(asyncio.shield(joined)))
        except BaseException:
            self.release(live)
            raise

    def release(self, live: LiveTopic) -> None:
        """Remove a follower; the hub leaves a topic that has none for ``LINGER_SECONDS``.

        Clients choose the names of topics, so at most ``lingering_topics`` are kept without
        followers.
        """
        live.followers -= 1
        if live.followers == 0 and self.topics.get(live.name) is live:
            live.linger = self.loop.call_later(LINGER_SECONDS, self._drop, live)
            self._lingering[live.name] = live
            if len(self._lingering) > self.limits.lingering_topics:
                self._drop(next(iter(self._lingering.values())))

    def _drop(self, live: LiveTopic) -> None:
        for topics in (self.topics, self._lingering, self._joining, self._rejoining):
            if topics.get(live.name) is live:
                del topics[live.name]
        live.close()
        self._leave(live)

    def _leave(self, live: LiveTopic) -> None:
        leaving = self._leaving.get(live.name)
        if leaving is None or leaving.done():
            task = self._leaving[live.name] = self.loop.create_task(self._leave_group(live))
            task.add_done_callback(partial(self._left, live.name))

    def _left(self, name: str, task: asyncio.Task[None]) -> None:
        if self._leaving.get(name) is task:
            del self._leaving[name]

    async def answered(self, work: Awaitable[T]) -> T:
        """Wait at most ``ANSWER_SECONDS`` for work whose result a client waits for.

        Raises:
            StoreUnavailable: the work took longer.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await work
        except TimeoutError:
            reason = f"no answer within {ANSWER_SECONDS:g} seconds"
            raise StoreUnavailable(type(self.store).__name__, reason) from None

    async def _join_waiting(self) -> None:
        """Join the groups and read the heads of all topics that wait for it."""
        while self._joining:
            batch, self._joining = list(self._joining.values()), {}
            await self._add_in_time(batch)
            try:
                found = await self.store.aheads([live.name for live in batch])
                heads = [found[live.name] for live in batch]
            except Exception as error:
                for live in batch:
                    self._join_failed(live, error)
                continue
            starts = (live.where_to_start(head) for live, head in zip(batch, heads, strict=True))
            cursors = await asyncio.gather(*starts, return_exceptions=True)
            for live, start in zip(batch, cursors, strict=True):
                if isinstance(start, BaseException):
                    self._join_failed(live, start)
                elif not live.closed:
                    live.next_check = self.loop.time() + JOIN_CHECK_SECONDS
                    live.start(start)

    def _join_failed(self, live: LiveTopic, error: BaseException) -> None:
        if not isinstance(error, StoreError):
            logger.error("heads could not be read: %s", live.name, exc_info=error)
            error = StoreError(str(error))
        live.fail(error)
        self._drop(live)

    async def _add_in_time(self, batch: list[LiveTopic]) -> None:
        """Join groups, and wait at most ``JOIN_SECONDS`` for a layer that is slow or locked.

        A join that takes longer continues in its task; until then, head checks find the events.
        """
        adding = [self.loop.create_task(self._add_to_group(live)) for live in batch]
        self._adding.update(adding)
        for task in adding:
            task.add_done_callback(self._adding.discard)
        await asyncio.wait(adding, timeout=JOIN_SECONDS)

    async def _add_to_group(self, live: LiveTopic) -> None:
        if live.is_being_added:
            return
        live.is_being_added = True
        try:
            await self._add_now(live)
        finally:
            live.is_being_added = False

    async def _add_now(self, live: LiveTopic) -> None:
        # A group_discard that is under way could undo the group_add.
        if (leaving := self._leaving.get(live.name)) is not None:
            await asyncio.wait([leaving])
        if live.closed:
            return
        try:
            async with asyncio.timeout(LAYER_SECONDS):
                channel = await self._ensure_channel()
                await self.layer.group_add(group_name(live.name), channel)
        except Exception as error:
            # Head checks find its events meanwhile, and each tries to join the group again.
            live.in_group = False
            self._groups_outage.failed(error)
        else:
            live.in_group = channel == self._channel
            live.group_added = self.loop.time()
            live.next_check = min(live.next_check, live.group_added + JOIN_CHECK_SECONDS)
            self._groups_outage.over()
            if live.closed:
                self._leave(live)

    async def _leave_group(self, live: LiveTopic) -> None:
        if not live.in_group or self.topics.get(live.name, live) is not live:
            return  # followed again in the meantime: the new LiveTopic uses the group
        live.in_group = False
        try:
            async with asyncio.timeout(LAYER_SECONDS):
                await self.layer.group_discard(group_name(live.name), self._channel)
        except Exception as error:
            self._groups_outage.failed(error)  # the layer lets the membership expire

    # Receiving

    async def _ensure_channel(self) -> str:
        # One at a time: two concurrent calls would make two channels, and the hub would receive
        # from one and join the groups with the other.
        async with self._channel_lock:
            if not self._channel:
                async with asyncio.timeout(LAYER_SECONDS):
                    self._channel = await self.layer.new_channel()
            return self._channel

    async def _receive(self) -> None:
        taken = 0
        while True:
            try:
                message = await self.layer.receive(await self._ensure_channel())
            except Exception as error:
                if self._receive_outage.is_on:
                    self._channel = ""  # failed twice: the channel itself may be lost
                await asyncio.sleep(self._receive_outage.failed(error))
                for live in self.topics.values():
                    live.in_group = False  # joined again, and checked, at the next tick
                    live.next_check = 0.0
                continue
            self._receive_outage.over()
            self._take(message)
            taken += 1
            if taken % RECEIVE_BATCH == 0:
                await asyncio.sleep(0)

    def _take(self, message: object) -> None:
        if not isinstance(message, dict) or message.get("type") != WAKEUP_TYPE:
            return
        try:
            self.receive(Wakeup.from_message(message))
        except Exception:
            # A message from another user of the layer must not stop the hub.
            logger.exception("the channel layer delivered a wake-up that cannot be read")

    def receive(self, wakeup: Wakeup) -> None:
        """Pass a wake-up to its topic, if a client of this process follows it."""
        live = self.topics.get(wakeup.topic)
        if live is not None:
            live.receive(wakeup)

    # The timer

    async def _push_heartbeats(self) -> None:
        self.heartbeats.push(self.loop.time())

    async def _close_slowest(self) -> None:
        self.slow_clients.check(self.loop.time())

    async def _check_heads(self) -> None:
        """Compare the heads of the topics that are due with their positions."""
        now = self.loop.time()
        due = [t for t in self.topics.values() if t.next_check <= now and t.joined.done()]
        if not due:
            return
        for live in due:
            live.next_check = now + HEAD_CHECK_SECONDS * random.uniform(0.75, 1.0)
        known = {live: live.position for live in due}
        try:
            heads = await self.store.aheads([live.name for live in due])
        except StoreError as error:
            self._heads_outage.failed(error)
            return
        self._heads_outage.over()
        expiry = getattr(self.layer, "group_expiry", 86_400) / 2
        for live, position in known.items():
            missed = live.check(heads[live.name], position)
            if missed or not live.in_group or now - live.group_added > expiry:
                self._rejoining[live.name] = live
        # In a job of its own: the checks must go on while the layer hangs.
        if self._rejoining:
            self._rejoin.start()

    async def _rejoin_waiting(self) -> None:
        while self._rejoining:
            batch, self._rejoining = self._rejoining, {}
            await asyncio.gather(*(self._add_to_group(live) for live in batch.values()))

    async def announce(self, wakeup: Wakeup) -> None:
        """Broadcast what was appended to an internal log."""
        await abroadcast([wakeup])


def _layer_outage() -> Outage:
    return Outage(
        "the channel layer fails; events arrive late until it is back: %s",
        "the channel layer is back",
        backoff=RECEIVE_RETRY_SECONDS,
        level=logging.ERROR,
    )
