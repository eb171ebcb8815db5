"""Announce appended events to every process, by wake-ups over the channel layer.

The channel layer may lose, repeat, delay or reorder a wake-up.
That costs latency but never an event, because hubs compare sequence numbers and read what is
missing from the log.
So nothing here raises: a failure is logged, and the next head check of each hub finds the events.

A process uses the layer on one loop.
That is the hub's if there is a hub, and otherwise that of a daemon thread, which starts with the
first publish and again after a fork.
Layers such as channels_redis keep a connection per loop, and ``async_to_sync`` would create a loop,
and so a connection, for every call.
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
from realtime.threads import refuse_green_threads

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
WAIT_SECONDS = 0.1  # that a publisher waits for its wake-up; the event is in the log already
EXIT_SECONDS = 1.0  # that a process waits at exit for unsent wake-ups
SEND_SECONDS = 5.0  # the timeout of a send; by then hubs have checked their heads
MESSAGE_BYTES = 256 * 1024  # of JSON in one wake-up; large messages slow down most layers
WAITING_WAKEUPS = 10_000  # in this process; beyond that, new ones are dropped for head checks
CONCURRENT_TOPICS = 16  # topics that send at the same time; each sends one message at a time


def group_name(topic: str) -> str:
    """Return the channel-layer group of a topic.

    Channels allows fewer than 100 ASCII letters, digits and ``-_.``, so the name is hashed.
    """
    return f"realtime.{hashlib.blake2b(topic.encode(), digest_size=20).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Wakeup:
    """A message to the hubs: new events of one topic.

    Attributes:
        topic: the topic's name.
        previous: the tag of the event before the first stored one; None if all are ephemeral.
        events: the stored ones are contiguous in the log; there may be ephemeral ones between them.
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
        """The number of characters of its events' JSON."""
        return sum(len(event.json) for event in self.events)

    @property
    def last(self) -> int | None:
        """The tag of its last stored event; None if all are ephemeral."""
        cursors = (event.cursor for event in reversed(self.events))
        return next((cursor.tag for cursor in cursors if cursor is not None), None)

    def follows(self, last: int | None) -> bool:
        """Tell whether it can follow a stored event with this tag in one message."""
        return last is None or self.previous is None or self.previous == last

    def split(self, max_bytes: int = MESSAGE_BYTES) -> list[Wakeup]:
        """Return the events as wake-ups of at most ``max_bytes`` of JSON each, or of one event."""
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

            # A log outside of the databases has no alias; then the wake-ups use the default.
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

    A topic sends one message at a time, and all its waiting wake-ups become the next one, so a
    burst arrives in order and costs few sends.

    Attributes:
        slots: limits the number of topics that send at the same time.
        waiting: the queued wake-ups of each topic that has a task.
        tasks: the tasks that send; the loop holds only weak references.
        count: the number of wake-ups that are queued or being sent.
        outage: whether the layer fails.
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
        """Queue a wake-up, on the loop; ``done`` is resolved when it was sent or dropped."""
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
    """The sender of this process, which changes with its loop.

    Attributes:
        sender: the current sender.
        pending: the futures of wake-ups that are neither sent nor dropped.
    """

    def __init__(self) -> None:
        self.reset()
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Forget the sender; in a forked child its thread is gone, and the locks may be held."""
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
    """Send on this loop from now on; the hub calls it, because it uses the layer on its loop."""
    _publisher.adopt(loop)


def _start(wakeups: Sequence[Wakeup]) -> list[concurrent.futures.Future[None]]:
    sender = _publisher.get()
    futures: list[concurrent.futures.Future[None]] = []
    for wakeup in wakeups:
        for part in wakeup.split():
            if not part.events:
                continue
            done: concurrent.futures.Future[None] = concurrent.futures.Future()
            # A new context, or the layer could find the publisher's transaction in it.
            sender.loop.call_soon_threadsafe(sender.put, part, done, context=Context())
            _publisher.pending.add(done)
            done.add_done_callback(_publisher.pending.discard)
            futures.append(done)
    return futures


def broadcast(wakeups: Sequence[Wakeup]) -> None:
    """Announce events from synchronous code; return when they are sent, or after 100 ms.

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
    """Register the flush at exit after the layer's own exit function, so that it runs before it."""
    try:
        get_layer()
    except Exception:
        logger.debug("the channel layer cannot be created yet", exc_info=True)
    atexit.unregister(_flush_at_exit)
    atexit.register(_flush_at_exit)


def _flush_at_exit() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    futures = list(_publisher.pending)
    if futures and not _on_loop():
        concurrent.futures.wait(futures, max(0.0, deadline - time.monotonic()))
