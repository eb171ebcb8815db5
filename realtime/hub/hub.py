"""The hub: one per process, between the channel layer and the connections.

It joins a topic's group once whatever the number of its clients, keeps every followed topic's
position right (``topic.py``), and does on one timer what is due: head checks, group renewals,
heartbeats, the relay of stale outbox rows, trimming.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from channels.layers import BaseChannelLayer

from realtime import outbox, retention
from realtime.broadcast import WAKEUP_TYPE, Wakeup, abroadcast, adopt_loop, get_layer, group_name
from realtime.exceptions import StoreError, StoreUnavailable
from realtime.hub.health import LayerOutage
from realtime.hub.heartbeats import Heartbeats
from realtime.hub.member_writer import MemberWriter
from realtime.hub.presence import LivePresence
from realtime.hub.topic import LiveTopic
from realtime.nodes import BEAT_SECONDS
from realtime.protocol.names import presence_log
from realtime.request_time import ameasure
from realtime.stores import get_store
from realtime.stores.base import Store
from realtime.threads import RELAY_THREADS, STORE_THREADS
from realtime.writers.flusher import Flusher

if TYPE_CHECKING:
    from realtime.hub.connection import Connection
    from realtime.topics import Topic

__all__ = ["Hub"]

logger = logging.getLogger("realtime")

T = TypeVar("T")

TICK_SECONDS = 0.25
JOIN_CHECK_SECONDS = 0.25  # a layer's group_add may take effect a moment after it returned
HEAD_CHECK_SECONDS = 4.0  # at most this and a tick between two head checks of a topic: under 5 s
LINGER_SECONDS = 60.0  # that a topic is kept without followers: a reload finds it warm
JOIN_SECONDS = 0.5  # that clients wait for a group_add before they get the head without it
LAYER_SECONDS = 5.0  # after which a hanging group_add is given up
ANSWER_SECONDS = 15.0  # that a client waits for a store that hangs; beyond any store's own retries
RELAY_SECONDS = 1.0
CLOCK_SECONDS = 10.0  # between two looks whether the store's clock has to be read again
MEMBERS_SECONDS = 1.0  # between tries to write who is here to a store that failed
BEAT_RETRY_SECONDS = 2.0  # between tries to write this node's row to a store that failed
TRIM_SECONDS = 3_600.0  # events outlive their max_age by this much at most
RECEIVE_RETRY_SECONDS = (0.1, 5.0)  # between tries of a layer that fails: first, and at most
RECEIVE_BATCH = 50  # wake-ups taken in a row before others get their turn


class Hub:
    """What connects the channel layer with this process's connections; on one loop only."""

    def __init__(self, store: Store | None = None, layer: BaseChannelLayer | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.store = store or get_store()
        self.layer: BaseChannelLayer = layer or get_layer()
        self.topics: dict[str, LiveTopic] = {}
        self.connections: set[Connection] = set()
        self.member_writer = MemberWriter(self)
        self.flusher = Flusher(self.loop)
        self.heartbeats = Heartbeats(self.flusher)
        self.now = self.loop.time()
        self._channel = ""
        self._channel_lock = asyncio.Lock()
        self._health = LayerOutage()
        self._closed = False
        self._joining: list[LiveTopic] = []
        self._adding: set[asyncio.Task[None]] = set()
        self._rejoining: dict[str, LiveTopic] = {}
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._due: dict[str, float] = {}

    def start(self) -> None:
        """Begin to receive and to tick."""
        adopt_loop(self.loop)
        now = self.loop.time()
        self._due = dict.fromkeys(("clock", "relay", "node", "members"), now)
        self._due["trim"] = now + random.uniform(0.1, 1.0) * TRIM_SECONDS  # nodes take turns
        self._tasks = [
            self.loop.create_task(self._receive()),
            self.loop.create_task(self._tick()),
        ]

    async def close(self) -> None:
        """Stop; connections that are left hear nothing more."""
        self._closed = True
        self.member_writer.close()
        for connection in list(self.connections):
            for subscription in list(connection.subscriptions.values()):
                subscription.end()
        tasks = [*self._tasks, *self._adding, *self._jobs.values()]
        for task in tasks:
            task.cancel()
        for topic in self.topics.values():
            topic.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(self._leave_group(topic) for topic in self.topics.values()))
        self.topics.clear()

    # Following

    async def follow(self, topic: Topic) -> LiveTopic:
        """Return the live topic, joined, with one more follower; ``release()`` ends it.

        Raises:
            StoreError: its head could not be read, or not in time; there is no follower to release.
        """
        name = str(topic)
        live = self.topics.get(name) or LiveTopic(self, name, topic.max_events)
        await self._follow(live)
        return live

    async def follow_presence(self, topic: Topic) -> LivePresence:
        """Return who is on a topic, joined, with one more follower; as ``follow()``."""
        live = self.topics.get(presence_log(str(topic))) or LivePresence(self, str(topic))
        assert isinstance(live, LivePresence)
        await self._follow(live)
        return live

    async def _follow(self, live: LiveTopic) -> None:
        if self._closed:
            raise StoreError("the server shuts down")
        if live.name not in self.topics:
            self.topics[live.name] = live
            self._joining.append(live)
            self._run("join", self._join)
        if live.linger is not None:
            live.linger.cancel()
            live.linger = None
        live.followers += 1
        try:
            joined = live.joined  # a herd needs no timer each
            await (joined if joined.done() else self.answered(asyncio.shield(joined)))
        except BaseException:
            self.release(live)
            raise

    def release(self, live: LiveTopic) -> None:
        """Take one follower away; without any the topic is left after a while."""
        live.followers -= 1
        if live.followers == 0 and self.topics.get(live.name) is live:
            live.linger = self.loop.call_later(LINGER_SECONDS, self._drop, live)

    def _drop(self, live: LiveTopic) -> None:
        if self.topics.get(live.name) is live:
            del self.topics[live.name]
        live.close()
        self._leave(live)

    def _leave(self, live: LiveTopic) -> None:
        self._run(f"leave {live.name}", lambda: self._leave_group(live))

    async def answered(self, work: Awaitable[T]) -> T:
        """Wait for something that a client waits for, and not for ever if the store hangs.

        Raises:
            StoreUnavailable: it took ``ANSWER_SECONDS``.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await work
        except TimeoutError:
            reason = f"no answer within {ANSWER_SECONDS:g} seconds"
            raise StoreUnavailable(type(self.store).__name__, reason) from None

    async def _join(self) -> None:
        """Join groups and read heads, of all topics that wait for it at once."""
        while self._joining:
            batch, self._joining = self._joining, []
            await self._add_in_time(batch)
            try:
                found = await self.store.aheads([live.name for live in batch])
                heads = [found[live.name] for live in batch]
            except Exception as error:
                for live in batch:
                    self._join_failed(live, error)
                continue
            starts = (live.where_to_start(head) for live, head in zip(batch, heads, strict=True))
            places = await asyncio.gather(*starts, return_exceptions=True)
            for live, place in zip(batch, places, strict=True):
                if isinstance(place, BaseException):
                    self._join_failed(live, place)
                elif not live.closed:
                    live.next_check = self.loop.time() + JOIN_CHECK_SECONDS
                    live.start(place)

    def _join_failed(self, live: LiveTopic, error: BaseException) -> None:
        if not isinstance(error, StoreError):
            logger.error("heads could not be read: %s", live.name, exc_info=error)
            error = StoreError(str(error))
        live.fail(error)
        self._drop(live)

    async def _add_in_time(self, batch: list[LiveTopic]) -> None:
        """Join groups, without keeping the clients waiting for a layer that is slow or locked.

        What takes longer goes on by itself; until then head checks carry those topics.
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
        # A leaving that is under way could undo the joining.
        if (leaving := self._jobs.get(f"leave {live.name}")) is not None:
            await asyncio.wait([leaving])
        if live.closed:
            return
        try:
            channel = await self._ensure_channel()
            async with asyncio.timeout(LAYER_SECONDS):
                await self.layer.group_add(group_name(live.name), channel)
        except Exception:
            # Head checks carry the topic until one of them finds the layer well again.
            live.in_group = False
            self._health.failed("groups")
        else:
            live.in_group = channel == self._channel
            live.group_added = self.loop.time()
            live.next_check = min(live.next_check, live.group_added + JOIN_CHECK_SECONDS)
            self._health.works("groups")
            if live.closed:
                self._leave(live)

    async def _leave_group(self, live: LiveTopic) -> None:
        if not live.in_group or self.topics.get(live.name, live) is not live:
            return  # followed anew meanwhile: the group is the new one's
        live.in_group = False
        try:
            async with asyncio.timeout(LAYER_SECONDS):
                await self.layer.group_discard(group_name(live.name), self._channel)
        except Exception:
            self._health.failed("groups")  # the membership expires by itself

    # Receiving

    async def _ensure_channel(self) -> str:
        # One at a time: where making a channel takes a while, two would make two, and the hub
        # would listen to one and join the groups with the other.
        async with self._channel_lock:
            if not self._channel:
                async with asyncio.timeout(LAYER_SECONDS):
                    self._channel = await self.layer.new_channel()
            return self._channel

    async def _receive(self) -> None:
        delay = RECEIVE_RETRY_SECONDS[0]
        taken = 0
        while True:
            try:
                message = await self.layer.receive(await self._ensure_channel())
            except Exception:
                self._health.failed("receive")
                if delay > RECEIVE_RETRY_SECONDS[0]:
                    self._channel = ""  # failed twice: it may be the channel that is lost
                await asyncio.sleep(delay)
                delay = min(delay * 2, RECEIVE_RETRY_SECONDS[1])
                for live in self.topics.values():
                    live.in_group = False  # joined again, and checked, by the next tick
                    live.next_check = 0.0
                continue
            delay = RECEIVE_RETRY_SECONDS[0]
            self._health.works("receive")
            self._take(message)
            taken += 1
            if taken % RECEIVE_BATCH == 0:
                await asyncio.sleep(0)

    def _take(self, message: dict[str, object]) -> None:
        if message.get("type") != WAKEUP_TYPE:
            return
        try:
            self.receive(Wakeup.from_message(message))
        except Exception:
            # Whoever else uses the layer must not stop the hub.
            logger.exception("the channel layer delivered a wake-up that cannot be read")

    def receive(self, wakeup: Wakeup) -> None:
        """Take what was published to a topic, if anybody here follows it."""
        live = self.topics.get(wakeup.topic)
        if live is not None:
            live.receive(wakeup)

    # The timer

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.now = self.loop.time()
            self._run("check", self._check_heads)
            if self._is_due("clock", CLOCK_SECONDS):
                self._run("clock", lambda: ameasure(self.store))
            if self._is_due("relay", RELAY_SECONDS):
                self._run("relay", self._relay)
            self.heartbeats.push(self.now)
            if self._is_due("trim", TRIM_SECONDS):
                self._run("trim", self._trim)
            if self._is_due("node", BEAT_SECONDS):
                self._run("node", self._beat)
            if self._is_due("members", MEMBERS_SECONDS) and self.member_writer.is_dirty:
                self.write_members()

    def _is_due(self, job: str, seconds: float) -> bool:
        if self.now < self._due[job]:
            return False
        self._due[job] = self.now + seconds
        return True

    def _run(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        """Start a job unless the same one is still running."""
        if name in self._jobs:
            return

        async def run() -> None:
            try:
                await job()
            except Exception:
                logger.exception("the job %r failed", name)
            finally:
                del self._jobs[name]

        self._jobs[name] = self.loop.create_task(run())

    async def _check_heads(self) -> None:
        """Compare the heads of the topics whose turn it is with their positions."""
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
            logger.warning("heads could not be checked: %s", error)
            return
        expiry = getattr(self.layer, "group_expiry", 86_400) / 2
        for live, position in known.items():
            missed = live.check(heads[live.name], position)
            if missed or not live.in_group or now - live.group_added > expiry:
                self._rejoining[live.name] = live
        # Beside the checks, which must go on while the layer hangs.
        if self._rejoining:
            self._run("rejoin", self._rejoin)

    async def _rejoin(self) -> None:
        while self._rejoining:
            batch, self._rejoining = self._rejoining, {}
            await asyncio.gather(*(self._add_to_group(live) for live in batch.values()))

    async def _relay(self) -> None:
        await RELAY_THREADS.run(outbox.relay_stale)

    async def _trim(self) -> None:
        await STORE_THREADS.run(retention.trim_all)

    # Nodes and members

    async def _beat(self) -> None:
        node = self.member_writer.node
        if await node.beat():
            self._run("others", node.look_after_others)
        else:
            self._due["node"] = self.loop.time() + BEAT_RETRY_SECONDS

    def write_members(self) -> None:
        """Tell the store who is here, as far as it does not know."""
        self._run("members", self.member_writer.write)

    async def announce(self, wakeup: Wakeup) -> None:
        """Broadcast what was appended to a log of our own."""
        await abroadcast([wakeup])
