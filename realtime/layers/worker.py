"""The layer's thread: all that one process does in the database for its channel layer.

It has its own database connection, executes the operations that coroutines submit, many at a time,
and receives the messages of other processes.
For those it polls every ``interval`` seconds, but only while a reader waits or a channel is in a
group; where ``layers.notify`` has verified LISTEN, it waits for notifications instead.
It starts when it is first needed and stops after ten seconds without work.

A database error fails the operations that it hit.
An error while polling is logged once, and the poll is retried with backoff.
No error ends the thread.
When the database is back, the process writes its memberships again.
"""

from __future__ import annotations

import logging
import random
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import cast

from django.db import connections

from realtime.layers.local import LocalChannels, Waiter
from realtime.layers.messages import Flush, Join, Leave, Message, address_of, unpack
from realtime.layers.notify import Listener
from realtime.layers.polling import Poller
from realtime.layers.storage import LayerStorage
from realtime.outage import Outage

__all__ = ["DatabaseWorker", "Operation", "Waker"]

logger = logging.getLogger("realtime.layers")


class Waker:
    """Lets any thread wake a waiting thread; after an earlier wake-up, a wait ends at once."""

    def __init__(self) -> None:
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        weakref.finalize(self, _close, self._inner, self._outer).atexit = False

    def wake(self) -> None:
        """Wake the thread that waits."""
        with suppress(BlockingIOError):  # the buffer is full, so the thread will wake anyway
            self._outer.send(b"\0")

    def wait(self, seconds: float, other: int | None = None) -> bool:
        """Wait for a wake-up, or until another socket is readable.

        Args:
            seconds: how long to wait at most; not negative.
            other: the descriptor of the other socket.

        Returns:
            True if the other socket is readable.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._inner, selectors.EVENT_READ)
            if other is not None:
                selector.register(other, selectors.EVENT_READ)
            ready = {key.fileobj for key, _ in selector.select(seconds)}
        if self._inner in ready:
            with suppress(BlockingIOError):
                self._inner.recv(4096)
        return other in ready


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        one.close()


Operation = Message | Join | Leave | Flush

BATCH = 500  # requests executed together, so that a hub's joins do not cost one transaction each
ACTIVE_SECONDS = 1.0  # after a message, when more are likely
ACTIVE_SHARE = 0.4  # of the interval: the wait between polls during that time
SAFETY_SECONDS = 5.0  # between polls while LISTEN works, because a notification may get lost
RENEW_SECONDS = 20  # a third of the lease
TRIM_SECONDS = 60  # varied by a half, so that processes do not trim together
IDLE_SECONDS = 10  # without a reader, a member or a request, until the thread stops
BACKOFF_SECONDS = (0.1, 2.0)  # the first and the longest wait after a failed poll


@dataclass(slots=True, eq=False)
class _Request:
    operation: Operation
    future: Future[bool] = field(default_factory=Future)


class DatabaseWorker:
    """Carries messages between the channels of this process and the database.

    Args:
        storage: the process's rows; only the thread uses them.
        local: the process's channels.
        interval: seconds between polls.
    """

    def __init__(self, storage: LayerStorage, local: LocalChannels, interval: float) -> None:
        self.storage = storage
        self.local = local
        self.interval = interval
        self._lock = threading.Lock()  # guards the attributes of this block
        self._waker = Waker()  # ends the thread's wait
        self._requests: deque[_Request] = deque()  # submitted and not yet executed
        self._thread: threading.Thread | None = None  # the current thread, if one is needed
        self._previous: threading.Thread | None = None  # the one before it, which may still run
        self._poll_now = False  # a reader of a shared channel began to wait
        self._is_idle = False  # the thread does not poll
        # Only the thread uses the attributes below. Times are those of time.monotonic().
        self._poller = Poller(storage)  # asks for messages
        self._listener = Listener(storage)  # is notified of messages
        self._is_registered = False  # the lease and the members are in the database
        self._may_have_messages = True  # until a poll succeeds
        self._poll_at = 0.0  # the next poll
        self._renew_at = 0.0  # the next renewal of the lease
        self._trim_at = 0.0  # the next trim
        self._active_until = 0.0  # when polls become less frequent again
        self._stop_at = 0.0  # when the thread stops if it stays idle
        self._outage = Outage(
            "Cannot poll for messages of other processes; retrying: %s",
            "Polling for messages of other processes again.",
            backoff=BACKOFF_SECONDS,
            ends_level=logging.INFO,
            logger=logger,
        )

    # From any thread

    @property
    def running(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    def submit(self, operation: Operation) -> Future[bool]:
        """Execute an operation soon.

        Returns:
            a future with False if an address was full, True otherwise, or the database's error.
        """
        request = _Request(operation)
        with self._lock:
            self._requests.append(request)
            self._start()
            self._waker.wake()
        return request.future

    def poll(self, *, now: bool) -> None:
        """Poll from now on, because a reader waits here; at once if ``now``."""
        with self._lock:
            self._start()
            if now or self._is_idle:
                self._poll_now = True
                self._waker.wake()

    def stop(self) -> threading.Thread | None:
        """Stop the thread and return it; it executes what was submitted and removes its rows."""
        with self._lock:
            if self._thread is not None:
                self._previous, self._thread = self._thread, None
                self._waker.wake()
            return self._previous

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(self._previous,), name="realtime-layer", daemon=True
            )
            self._thread.start()

    # In the thread

    def _run(self, previous: threading.Thread | None) -> None:
        if previous is not None:
            previous.join()  # it would remove the rows that this thread registers
        self._is_registered, self._may_have_messages = False, True
        now = time.monotonic()
        self._poll_at, self._stop_at = now, now + IDLE_SECONDS
        self._trim_at = now + _about(TRIM_SECONDS)
        try:
            while (requests := self._wait()) is not None:
                for _, run in groupby(requests, key=lambda request: type(request.operation)):
                    self._execute(list(run))
                if requests or self.local.needs_polling():
                    self._stop_at = time.monotonic() + IDLE_SECONDS
                if time.monotonic() >= self._poll_at and self.local.needs_polling():
                    self._poll_or_back_off()
                # With DEBUG, Django would keep every query with its payload.
                connections[self.storage.using].queries_log.clear()
        finally:
            if self._is_registered:
                with suppress(Exception):  # the lease expires instead
                    self.storage.unregister()
            self._listener.close()
            connections[self.storage.using].close()

    def _wait(self) -> list[_Request] | None:
        """Wait for requests or for the next poll; return None if the thread must stop."""
        me = threading.current_thread()
        while True:
            with self._lock:
                if self._poll_now:
                    self._poll_now, self._poll_at = False, 0.0
                if self._requests:
                    count = min(BATCH, len(self._requests))
                    return [self._requests.popleft() for _ in range(count)]
                if self._thread is not me:
                    return None
                self._is_idle = not self.local.needs_polling()
                pause = (self._stop_at if self._is_idle else self._poll_at) - time.monotonic()
                if pause <= 0:
                    if not self._is_idle:
                        return []
                    self._previous, self._thread = me, None
                    return None
            if self._waker.wait(pause, self._listener.socket) and self._listener.receive(
                self.local.shared_readers()
            ):
                self._may_have_messages, self._poll_at = True, 0.0

    def _execute(self, requests: Sequence[_Request]) -> None:
        requests = [r for r in requests if r.future.set_running_or_notify_cancel()]
        if not requests:
            return
        try:
            results = self._perform([request.operation for request in requests])
        except Exception as error:  # any error goes to the callers; the thread must survive
            for request in requests:
                request.future.set_exception(error)
        else:
            for request, result in zip(requests, results, strict=True):
                request.future.set_result(result)

    def _perform(self, operations: Sequence[Operation]) -> Sequence[bool]:
        """Perform operations of one kind; return, for each, whether there was room."""
        self._connect()
        results: Sequence[bool] = [True] * len(operations)
        match operations[0]:
            case Message():
                results = self.storage.outgoing.write(cast("Sequence[Message]", operations))
                # SQLite's data_version ignores the writes of this connection, so look anyway.
                if self.local.shared_readers():
                    self._may_have_messages, self._poll_at = True, 0.0
            case Join():
                joins = cast("Sequence[Join]", operations)
                if any(address_of(join.channel) == self.storage.inbox for join in joins):
                    self._ensure_registered()
                self.storage.join(joins)
            case Leave():
                self.storage.leave(cast("Sequence[Leave]", operations))
            case Flush():
                self.storage.flush()
        return results

    def _connect(self) -> None:
        if self._poller.connect():
            self._is_registered, self._may_have_messages = False, True

    def _ensure_registered(self) -> None:
        if not self._is_registered:
            self.storage.register(self.local.members())
            self._is_registered = True
            self._renew_at = time.monotonic() + RENEW_SECONDS

    # Polling

    def _poll_or_back_off(self) -> None:
        try:
            count = self._poll()
        except Exception as error:  # any error is retried, because the readers need this thread
            self._poll_at = time.monotonic() + self._outage.failed(error)
            return
        self._outage.over()
        now = time.monotonic()
        if count:
            self._active_until = now + ACTIVE_SECONDS
        if self._listener.verified:
            pause = max(self.interval, SAFETY_SECONDS)
        else:
            pause = self.interval * (ACTIVE_SHARE if now < self._active_until else 1)
        self._poll_at = min(now + pause, max(now, self._listener.due))

    def _poll(self) -> int:
        """Receive the waiting messages, keep the lease, and return the number of messages."""
        readers = self.local.shared_readers()
        addresses = frozenset([self.storage.inbox, *readers])
        self._may_have_messages |= any(not w.caught_up for ws in readers.values() for w in ws)
        was_expected = self._may_have_messages
        is_new, has_changed = self._poller.poll(addresses, is_known=was_expected)
        if is_new:
            self._is_registered = False
        self._may_have_messages |= has_changed or is_new
        self._listener.maintain()
        self._ensure_registered()
        self._renew_and_trim()
        count = self._receive() if self._may_have_messages else 0
        if count and self._listener.verified and not was_expected:
            self._listener.verify_again()
        return count

    def _renew_and_trim(self) -> None:
        now = time.monotonic()
        if now >= self._renew_at:
            # The lease may have expired: the process was paused, or an old backup restored.
            if not self.storage.renew():
                self.storage.register(self.local.members())
            self._renew_at = now + RENEW_SECONDS
            if expired := self.local.take_expired_members():
                self.storage.leave([Leave(group, channel) for group, channel in expired])
        if now >= self._trim_at:
            self._trim_at = now + _about(TRIM_SECONDS)
            self.storage.trim()

    def _receive(self) -> int:
        """Deliver all messages that wait for this process and return their number."""
        count = 0
        has_more = True
        while has_more:
            messages, has_more = self.storage.claim()
            count += len(messages)
            for packed in messages:
                self._deliver(packed)
        for channel, waiters in self.local.reserve_shared_readers().items():
            count += self._receive_shared(channel, waiters)
        self._may_have_messages = False
        return count

    def _receive_shared(self, channel: str, waiters: Sequence[Waiter]) -> int:
        """Deliver at most one message to each reader of a shared channel; return how many."""
        count = 0
        while count < len(waiters):
            messages, has_more = self.storage.claim_shared(channel, len(waiters) - count)
            count += len(messages)
            for packed in messages:
                self._deliver(packed)
            if surplus := self.local.take_surplus(channel):
                self.storage.outgoing.write([Message(body, channel=channel) for body in surplus])
            if not has_more:
                self.local.mark_caught_up(waiters)
                break
            # Other processes may have claimed some of these rows; there may be more after them.
        return count

    def _deliver(self, packed: bytes) -> None:
        try:
            match unpack(packed):
                case ["message", [*channels], bytes(body)]:
                    for channel in channels:
                        self.local.put(channel, body)  # a full channel misses it
                case ["join", str(group), str(channel)]:
                    self.local.join(group, channel)
                case ["leave", str(group), str(channel)]:
                    self.local.leave(group, channel)
                case ["flush"]:
                    self.local.clear()
                case other:
                    raise ValueError(f"unknown form: {other!r:.80}")
        except ValueError as error:  # another version of this app wrote it, or another program
            logger.warning("A message of another process cannot be read: %s", error)


def _about(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.5)
