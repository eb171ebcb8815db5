"""Announce appended events to every process: the wake-up, and the loop that sends it.

A wake-up may be lost, repeated, delayed or reordered by the channel layer; that costs latency and
never an event, because hubs compare numbers and read what is missing from the log.
So nothing here raises: a failure is logged, and the next head check of each hub makes up for it.

A process has one loop on which the layer is used: the hub's where there is a hub, else a daemon
thread's, made at the first publish and anew after a fork.
A layer such as channels_redis keeps connections per loop, and ``async_to_sync`` would make a new
loop, and so a new connection, at every call.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import hashlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from channels.layers import BaseChannelLayer, get_channel_layer
from django.core.signals import setting_changed
from django.dispatch import receiver

from realtime import conf
from realtime.outage import Outage
from realtime.protocol.events import Cursor, Event
from realtime.stores import get_store
from realtime.stores.base import Appended

__all__ = [
    "WAKEUP_TYPE",
    "Wakeup",
    "abroadcast",
    "adopt_loop",
    "broadcast",
    "get_layer",
    "group_name",
]

logger = logging.getLogger("realtime")

WAKEUP_TYPE = "realtime.wakeup"
WAIT_SECONDS = 0.1  # that a publisher waits for its wake-up; the log has the event already
EXIT_SECONDS = 1.0  # that a process which ends waits for wake-ups under way
SEND_SECONDS = 5.0  # after which a hanging layer is given up; hubs check their heads by then
MESSAGE_BYTES = 256 * 1024  # of JSON in one wake-up; Redis and PostgreSQL layers like them small
WAITING_WAKEUPS = 10_000  # in the process; beyond that new ones are left to head checks
CONCURRENT_TOPICS = 16  # group_sends under way; one topic's go one after the other, in order


def group_name(topic: str) -> str:
    """Return the channel-layer group of a topic.

    Channels allows ASCII letters, digits and ``-_.`` under 100 characters, so the name is hashed.
    """
    return f"realtime.{hashlib.blake2b(topic.encode(), digest_size=20).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Wakeup:
    """What a hub is told of new events of one topic.

    Attributes:
        topic: the topic's name.
        previous: tag of the event before the first stored one, None if all are ephemeral.
        events: contiguous in the log where stored; ephemeral ones may stand between them.
    """

    topic: str
    previous: int | None
    events: tuple[Event, ...]

    @classmethod
    def of(cls, topic: str, appended: Appended) -> Wakeup:
        """Return the wake-up that announces what an append did."""
        return cls(topic, appended.previous.tag, appended.events)

    def to_message(self) -> dict[str, Any]:
        """Return the channel-layer message; every layer can serialise it."""
        return {
            "type": WAKEUP_TYPE,
            "topic": self.topic,
            "previous": self.previous,
            "events": [
                [e.name, e.json, None if e.cursor is None else str(e.cursor), e.time, e.origin]
                for e in self.events
            ],
        }

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Wakeup:
        """Read a message that ``to_message()`` made."""
        topic = message["topic"]
        events = tuple(
            Event(topic, name, json, None if cursor is None else Cursor.parse(cursor), at, origin)
            for name, json, cursor, at, origin in message["events"]
        )
        return cls(topic, message["previous"], events)

    @property
    def size(self) -> int:
        """The characters of its events' JSON."""
        return sum(len(event.json) for event in self.events)

    @property
    def last(self) -> int | None:
        """The tag of its last stored event; None if all are ephemeral."""
        cursors = (event.cursor for event in reversed(self.events))
        return next((cursor.tag for cursor in cursors if cursor is not None), None)

    def follows(self, last: int | None) -> bool:
        """Tell whether it can travel in one message behind a stored event with this tag."""
        return last is None or self.previous is None or self.previous == last

    def split(self, max_bytes: int = MESSAGE_BYTES) -> list[Wakeup]:
        """Return the same as several wake-ups, each with at most so many bytes of JSON."""
        parts: list[Wakeup] = []
        previous, size, events = self.previous, 0, list[Event]()
        for event in self.events:
            if events and size + len(event.json) > max_bytes:
                parts.append(part := Wakeup(self.topic, previous, tuple(events)))
                previous = previous if part.last is None else part.last
                size, events = 0, []
            events.append(event)
            size += len(event.json)
        parts.append(Wakeup(self.topic, previous, tuple(events)))
        return parts


_layer: BaseChannelLayer | None = None
_layer_lock = threading.Lock()


def get_layer() -> BaseChannelLayer:
    """Return the layer that hub and publisher share.

    It is the project's default channel layer where ``CHANNEL_LAYERS`` names one, else a
    ``DatabaseChannelLayer`` on the log's database that only this app uses.
    """
    global _layer
    if conf.has_channel_layers():
        layer = get_channel_layer()
        if layer is not None:
            return layer
    with _layer_lock:
        if _layer is None:
            from realtime.layers.database import DatabaseChannelLayer

            # A log elsewhere leaves the default database for the wake-ups.
            _layer = DatabaseChannelLayer(using=get_store().alias or "default")
    return _layer


@receiver(setting_changed)
def _forget_layer(*, setting: str, **kwargs: object) -> None:
    global _layer
    if setting in {"CHANNEL_LAYERS", "REALTIME", "DATABASES"}:
        _layer = None


class _Sender:
    """Sends the wake-ups of this process, on one loop.

    Each topic's go one after the other, and those that wait become one message, so that a burst
    costs fewer sends and arrives in order.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.slots = asyncio.Semaphore(CONCURRENT_TOPICS)
        self.waiting: dict[str, deque[tuple[Wakeup, concurrent.futures.Future[None]]]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.count = 0
        self.outage = Outage(
            "the channel layer fails; events arrive late until it is back: %s",
            "the channel layer is back",
            level=logging.ERROR,
        )

    def put(self, wakeup: Wakeup, done: concurrent.futures.Future[None]) -> None:
        """Take a wake-up; on the loop only. ``done`` is resolved when it was sent or given up."""
        self.count += 1
        if self.count > WAITING_WAKEUPS:
            self.finish([(wakeup, done)])
            return
        queue = self.waiting.get(wakeup.topic)
        if queue is not None:
            queue.append((wakeup, done))
            return
        self.waiting[wakeup.topic] = deque([(wakeup, done)])
        task = self.loop.create_task(self.send_topic(wakeup.topic))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def send_topic(self, topic: str) -> None:
        queue = self.waiting[topic]
        try:
            async with self.slots:
                while queue:
                    batch = self.take(queue)
                    try:
                        await self.send(topic, [wakeup for wakeup, _ in batch])
                    finally:
                        self.finish(batch)
        finally:
            del self.waiting[topic]
            self.finish(queue)

    def take(
        self, queue: deque[tuple[Wakeup, concurrent.futures.Future[None]]]
    ) -> list[tuple[Wakeup, concurrent.futures.Future[None]]]:
        """Take as many from the left as make one message."""
        batch = [queue.popleft()]
        wakeup = batch[0][0]
        size, last = wakeup.size, wakeup.last
        while queue:
            wakeup = queue[0][0]
            size += wakeup.size
            if size > MESSAGE_BYTES or not wakeup.follows(last):
                break
            batch.append(queue.popleft())
            last = last if wakeup.last is None else wakeup.last
        return batch

    async def send(self, topic: str, wakeups: Sequence[Wakeup]) -> None:
        events = tuple(event for wakeup in wakeups for event in wakeup.events)
        previous = next((w.previous for w in wakeups if w.previous is not None), None)
        message = Wakeup(topic, previous, events).to_message()
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await get_layer().group_send(group_name(topic), message)
        except Exception as error:
            self.outage.failed(error)
        else:
            self.outage.over()

    def finish(
        self, batch: Sequence[tuple[Wakeup, concurrent.futures.Future[None]]] | deque[Any]
    ) -> None:
        for _, done in batch:
            self.count -= 1
            if not done.done():
                done.set_result(None)


class _Home:
    """Where this process sends from."""

    def __init__(self) -> None:
        self.reset()
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Start anew: in a forked child the loop's thread is gone and the locks may be held."""
        global _layer_lock
        _layer_lock = threading.Lock()
        self.lock = threading.Lock()
        self.sender: _Sender | None = None
        self.under_way: set[concurrent.futures.Future[None]] = set()

    def get(self) -> _Sender:
        with self.lock:
            if self.sender is None or not self.sender.loop.is_running():
                _flush_before_the_layer_closes()
                self.sender = _Sender(_start_loop_thread())
            return self.sender

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        with self.lock:
            if self.sender is None or self.sender.loop is not loop:
                self.sender = _Sender(loop)


def _start_loop_thread() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    started = threading.Event()
    loop.call_soon(started.set)

    def run() -> None:
        try:
            loop.run_forever()
        finally:
            loop.close()

    threading.Thread(target=run, name="realtime-publisher", daemon=True).start()
    started.wait()
    return loop


_home = _Home()


def adopt_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Send from this loop from now on; the hub calls it, since it reads the same layer there."""
    _home.adopt(loop)


def _start(wakeups: Sequence[Wakeup]) -> list[concurrent.futures.Future[None]]:
    sender = _home.get()
    futures: list[concurrent.futures.Future[None]] = []
    for wakeup in wakeups:
        for part in wakeup.split():
            if not part.events:
                continue
            done: concurrent.futures.Future[None] = concurrent.futures.Future()
            # Not in the publisher's context: a layer could take its transaction for this one's.
            sender.loop.call_soon_threadsafe(sender.put, part, done, context=Context())
            _home.under_way.add(done)
            done.add_done_callback(_home.under_way.discard)
            futures.append(done)
    return futures


def broadcast(wakeups: Sequence[Wakeup]) -> None:
    """Announce events from synchronous code; return when sent, after 100 ms at the latest.

    Never raises: the events are in the log, and hubs find what was not announced.
    On the thread of the sending loop itself it does not wait.
    """
    try:
        futures = _start(wakeups)
        if not _on_loop():
            concurrent.futures.wait(futures, WAIT_SECONDS)
    except Exception:
        logger.exception("events could not be announced; they arrive with the next head check")


async def abroadcast(wakeups: Sequence[Wakeup]) -> None:
    """Announce events from a coroutine; as ``broadcast()``."""
    try:
        futures = [asyncio.wrap_future(future) for future in _start(wakeups)]
        if futures:
            await asyncio.wait(futures, timeout=WAIT_SECONDS)
    except Exception:
        logger.exception("events could not be announced; they arrive with the next head check")


def _on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _flush_before_the_layer_closes() -> None:
    """Have the flush run at exit before what the layer does there: last in, first out."""
    try:
        get_layer()
    except Exception:
        logger.debug("the channel layer cannot be made yet", exc_info=True)
    atexit.unregister(_flush_at_exit)
    atexit.register(_flush_at_exit)


def _flush_at_exit() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    futures = list(_home.under_way)
    if futures and not _on_loop():
        concurrent.futures.wait(futures, max(0.0, deadline - time.monotonic()))
