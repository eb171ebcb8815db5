"""Announce appended events to every process, with wake-ups over the channel layer.

The channel layer can lose, repeat, delay or reorder a wake-up.
That costs latency but never an event, because hubs compare sequence numbers and read missing events
from the log.
So nothing here raises: a failure is logged, and the next head check of each hub finds the events.

A process uses the layer on one event loop: the hub's loop if there is a hub, and otherwise the loop
of a daemon thread, which starts with the first publish, and again with the first publish after a
fork.
Layers such as channels_redis keep a connection per loop, and ``async_to_sync`` would create a loop,
and so a connection, for every call.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
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
from realtime.stores.database.dropping import before_drop
from realtime.threads import after_fork, refuse_green_threads

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
# How long a publisher waits until its wake-up is sent; the event is already in the log.
WAIT_SECONDS = 0.1
EXIT_SECONDS = 1.0  # how long a process that exits waits until its wake-ups are sent
SEND_SECONDS = 5.0  # timeout of a send; by then, head checks have found the events
MESSAGE_BYTES = 256 * 1024  # maximum JSON in one wake-up; large messages slow down most layers
# Maximum number of unsent wake-ups; further ones are dropped, and head checks find their events.
WAITING_WAKEUPS = 10_000
CONCURRENT_TOPICS = 16  # topics that send at the same time; each sends one message at a time


def group_name(topic: str) -> str:
    """Return the channel-layer group of a topic.

    Channels allows fewer than 100 ASCII letters, digits and ``-_.``, so the name is hashed.
    The hash is keyed with ``SECRET_KEY``, which the processes of one site share and two sites do
    not: two sites on one Redis would otherwise receive each other's events.
    """
    key = conf.secret(b"realtime.groups")
    return f"realtime.{hashlib.blake2b(topic.encode(), digest_size=20, key=key).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Wakeup:
    """A message to the hubs: new events of one topic.

    Attributes:
        topic: the topic's name.
        previous: the tag of the event before the first stored one; None if all are ephemeral.
        events: the new events. The stored ones are contiguous in the log; ephemeral ones can be
            between them.
    """

    topic: str
    previous: int | None
    events: tuple[Event, ...]

    @classmethod
    def of(cls, topic: str, appended: Appended) -> Wakeup:
        """Return the wake-up that announces the events of an append."""
        return cls(topic, appended.previous.tag, appended.events)

    def to_message(self) -> dict[str, Any]:
        """Return the channel-layer message, which every layer can serialise."""
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
        """Return the wake-up of a message that ``to_message()`` made."""
        topic = message["topic"]
        events = tuple(
            Event(topic, name, json, None if cursor is None else Cursor.parse(cursor), at, origin)
            for name, json, cursor, at, origin in message["events"]
        )
        return cls(topic, message["previous"], events)

    @property
    def size(self) -> int:
        """The number of characters in the JSON of the events."""
        return sum(len(event.json) for event in self.events)

    @property
    def last(self) -> int | None:
        """The tag of the last stored event; None if all are ephemeral."""
        cursors = (event.cursor for event in reversed(self.events))
        return next((cursor.tag for cursor in cursors if cursor is not None), None)

    def follows(self, last: int | None) -> bool:
        """Return whether these events can be appended to a message.

        ``last`` is the tag of the last stored event in that message; None if it has none.
        """
        return last is None or self.previous is None or self.previous == last

    def split(self, max_bytes: int = MESSAGE_BYTES) -> list[Wakeup]:
        """Split into wake-ups of at most ``max_bytes`` of JSON each, or of one larger event."""
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
    """Return the layer that hubs and publishers share.

    It is the project's default channel layer if ``CHANNEL_LAYERS`` has one, and otherwise a
    ``DatabaseChannelLayer`` for this app alone, on the database of the log.
    """
    global _layer
    if conf.has_channel_layers():
        layer = get_channel_layer()
        if layer is not None:
            return layer
    with _layer_lock:
        if _layer is None:
            from realtime.layers.database import DatabaseChannelLayer

            # A store outside Django's databases has no alias; its wake-ups use the default one.
            _layer = DatabaseChannelLayer(using=get_store().alias or "default")
    return _layer


@receiver(setting_changed)
def _forget_layer(*, setting: str, **kwargs: object) -> None:
    global _layer
    if setting in {"CHANNEL_LAYERS", "REALTIME", "DATABASES"}:
        _layer = None


_Queued = tuple[Wakeup, concurrent.futures.Future[None]]


class _Sender:
    """Sends the wake-ups of this process on one loop.

    It sends one message at a time for each topic. Wake-ups that arrive during a send are combined
    into the next message, so a burst arrives in order and costs few sends.

    Attributes:
        slots: limits the number of topics that send at the same time.
        waiting: the queued wake-ups of each topic that has a task.
        tasks: the sending tasks, referenced here because the loop holds only weak references.
        count: the number of wake-ups that are queued or being sent.
        outage: tracks and logs the failures of the layer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.slots = asyncio.Semaphore(CONCURRENT_TOPICS)
        self.waiting: dict[str, deque[_Queued]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.count = 0
        self.outage = Outage(
            "the channel layer fails; events arrive late until it is back: %s",
            "the channel layer is back",
            level=logging.ERROR,
        )

    def put(self, wakeup: Wakeup, done: concurrent.futures.Future[None]) -> None:
        """Queue a wake-up; ``done`` is resolved when the wake-up was sent or dropped.

        Call this on the loop.
        """
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
                    batch = self.take_batch(queue)
                    try:
                        await self.send(topic, [wakeup for wakeup, _ in batch])
                    finally:
                        self.finish(batch)
        finally:
            del self.waiting[topic]
            self.finish(queue)

    def take_batch(self, queue: deque[_Queued]) -> list[_Queued]:
        """Remove and return as many wake-ups as fit into one message."""
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

    def finish(self, batch: Iterable[_Queued]) -> None:
        for _, done in batch:
            self.count -= 1
            if not done.done():
                done.set_result(None)


class _Publisher:
    """Holds the sender of this process, and replaces it when the loop changes.

    Attributes:
        sender: the current sender.
        pending: the futures of wake-ups that have been neither sent nor dropped yet.
    """

    def __init__(self) -> None:
        self.reset()
        after_fork(self.reset)

    def reset(self) -> None:
        """Forget the sender and create new locks.

        In a forked child, the sender's thread does not exist, and another thread of the parent can
        have held a lock.
        """
        global _layer_lock
        _layer_lock = threading.Lock()
        self.lock = threading.Lock()
        self.sender: _Sender | None = None
        self.pending: set[concurrent.futures.Future[None]] = set()

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
    refuse_green_threads()
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


_publisher = _Publisher()


def adopt_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Send wake-ups on this loop from now on; the hub calls this with the loop it runs on."""
    _publisher.adopt(loop)


def _start(wakeups: Sequence[Wakeup]) -> list[concurrent.futures.Future[None]]:
    sender = _publisher.get()
    futures: list[concurrent.futures.Future[None]] = []
    for wakeup in wakeups:
        for part in wakeup.split():
            if not part.events:
                continue
            done: concurrent.futures.Future[None] = concurrent.futures.Future()
            # Use a new context: in the publisher's, the layer could find its open transaction.
            sender.loop.call_soon_threadsafe(sender.put, part, done, context=Context())
            _publisher.pending.add(done)
            done.add_done_callback(_publisher.pending.discard)
            futures.append(done)
    return futures


def broadcast(wakeups: Sequence[Wakeup]) -> None:
    """Announce events from synchronous code; return when they are announced, or after 100 ms.

    It never raises, because hubs find unannounced events in the log.
    In a thread with a running event loop it does not wait.
    """
    try:
        futures = _start(wakeups)
        if not _on_loop():
            concurrent.futures.wait(futures, WAIT_SECONDS)
    except Exception as error:
        if not threading.main_thread().is_alive():  # Python exits, and can start no thread
            logger.debug("events were not announced; the next head check finds them: %s", error)
            return
        logger.exception("events could not be announced; they arrive with the next head check")


async def abroadcast(wakeups: Sequence[Wakeup]) -> None:
    """Async version of ``broadcast()``."""
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
    """Register the flush at exit, so that it runs before the layer's own exit function.

    Exit functions run in reverse order, so the layer is created first.
    """
    try:
        get_layer()
    except Exception:
        logger.debug("the channel layer cannot be created yet", exc_info=True)
    atexit.unregister(_flush_at_exit)
    atexit.register(_flush_at_exit)


@receiver(before_drop)
def _flush_before_drop(**_: object) -> None:
    _flush_at_exit()


def _flush_at_exit() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    futures = list(_publisher.pending)
    if futures and not _on_loop():
        concurrent.futures.wait(futures, max(0.0, deadline - time.monotonic()))
