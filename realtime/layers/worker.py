"""The layer's thread: everything that one process does at the database for its channel layer.

It has a database connection of its own, takes what coroutines hand it, many at a time, and looks
for letters of other processes while anybody here may want one: every ``interval`` seconds, or when
it hears of one, where ``layers.listening`` has proved that it does.
It begins with the first need and ends by itself ten seconds after the last.

An error of the database fails the tasks that met it.
While looking for letters it is logged once and tried again, less and less often; it never ends the
thread, and the process's memberships are written anew when the database is back.
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
from realtime.layers.tables import LayerTables
from realtime.outage import Outage

__all__ = ["DatabaseWorker", "Task", "Waker"]

logger = logging.getLogger("realtime.layers")


class Waker:
    """Rung by any thread, waited for by one.

    A ring that comes while nobody waits ends the next wait at once.
    """

    def __init__(self) -> None:
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        weakref.finalize(self, _close, self._inner, self._outer).atexit = False

    def ring(self) -> None:
        """Wake the thread that waits."""
        with suppress(BlockingIOError):  # so many rings that one is sure to be heard
            self._outer.send(b"\0")

    def wait(self, seconds: float, other: int | None = None) -> bool:
        """Wait for a ring, at most so many seconds, or until a socket can be read.

        Args:
            seconds: not negative.
            other: the descriptor of the socket.

        Returns:
            True if the socket can be read.
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


Task = Message | Join | Leave | Flush

BATCH = 500  # tasks done together, so that a hub's joins cost one transaction and not thousands
ACTIVE_SECONDS = 1.0  # after a letter, more are likely
ACTIVE_SHARE = 0.4  # of the interval is waited while active
SAFETY_SECONDS = 5.0  # between two looks while every letter is heard of; one may get lost
RENEW_SECONDS = 20  # a third of the lease
TRIM_SECONDS = 60  # give or take a half, so that processes do not trim together
IDLE_SECONDS = 10  # without a reader, a member or a task, then the thread ends
BACKOFF_SECONDS = (0.1, 2.0)  # first and longest pause after an error


@dataclass(slots=True, eq=False)
class _Request:
    task: Task
    future: Future[bool] = field(default_factory=Future)


class DatabaseWorker:
    """Carries letters between this process's channels and the database.

    Args:
        tables: the process's rows; used in the thread only.
        local: the process's channels.
        interval: seconds between two looks for letters.
    """

    def __init__(self, tables: LayerTables, local: LocalChannels, interval: float) -> None:
        self.tables = tables
        self.local = local
        self.interval = interval
        self._lock = threading.Lock()
        self._bell = Waker()
        self._errands: deque[_Request] = deque()
        self._thread: threading.Thread | None = None
        self._previous: threading.Thread | None = None
        self._hurry = False
        self._asleep = False
        # The rest belongs to the thread.
        self._watch = Poller(tables)
        self._listener = Listener(tables)
        self._registered = False
        self._dirty = True  # letters may wait: look, until a look has succeeded
        self._due = self._renew_at = self._trim_at = self._active_until = self._idle_at = 0.0
        self._outage = Outage(
            "Cannot look for messages of other processes; retrying: %s",
            "Looking for messages of other processes again.",
            backoff=BACKOFF_SECONDS,
            ends_level=logging.INFO,
            logger=logger,
        )

    # From any thread

    @property
    def running(self) -> bool:
        """Is there a thread?"""
        return self._thread is not None

    def submit(self, task: Task) -> Future[bool]:
        """Have a task done; the future tells whether there was room, or the database's error."""
        errand = _Request(task)
        with self._lock:
            self._errands.append(errand)
            self._start()
            self._bell.ring()
        return errand.future

    def look(self, *, now: bool) -> None:
        """Look for letters from now on, because somebody here waits; ``now``: at once."""
        with self._lock:
            self._start()
            if now or self._asleep:
                self._hurry = True
                self._bell.ring()

    def stop(self) -> threading.Thread | None:
        """Finish what was handed in, take the process's rows back, end; return the thread."""
        with self._lock:
            if self._thread is not None:
                self._previous, self._thread = self._thread, None
                self._bell.ring()
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
            previous.join()  # two at once would take back what the other one registers
        self._registered, self._dirty = False, True
        now = time.monotonic()
        self._due, self._idle_at = now, now + IDLE_SECONDS
        self._trim_at = now + _about(TRIM_SECONDS)
        try:
            while (errands := self._wait()) is not None:
                for _, run in groupby(errands, key=lambda errand: type(errand.task)):
                    self._do(list(run))
                if errands or self.local.busy():
                    self._idle_at = time.monotonic() + IDLE_SECONDS
                if time.monotonic() >= self._due and self.local.busy():
                    self._poll()
                connections[self.tables.using].queries_log.clear()  # under DEBUG it has payloads
        finally:
            if self._registered:
                with suppress(Exception):  # then it expires
                    self.tables.retire()
            self._listener.close()
            connections[self.tables.using].close()

    def _wait(self) -> list[_Request] | None:
        """Wait for something to do; None: there will be nothing more."""
        me = threading.current_thread()
        while True:
            with self._lock:
                if self._hurry:
                    self._hurry, self._due = False, 0.0
                if self._errands:
                    count = min(BATCH, len(self._errands))
                    return [self._errands.popleft() for _ in range(count)]
                if self._thread is not me:
                    return None
                self._asleep = not self.local.busy()
                pause = (self._idle_at if self._asleep else self._due) - time.monotonic()
                if pause <= 0:
                    if not self._asleep:
                        return []
                    self._previous, self._thread = me, None
                    return None
            if self._bell.wait(pause, self._listener.socket) and self._listener.hear(
                self.local.wanted()
            ):
                self._dirty, self._due = True, 0.0

    def _do(self, errands: Sequence[_Request]) -> None:
        errands = [e for e in errands if e.future.set_running_or_notify_cancel()]
        if not errands:
            return
        try:
            results = self._perform([errand.task for errand in errands])
        except Exception as error:  # whatever it is, it is the caller's, and the thread goes on
            for errand in errands:
                errand.future.set_exception(error)
        else:
            for errand, result in zip(errands, results, strict=True):
                errand.future.set_result(result)

    def _perform(self, tasks: Sequence[Task]) -> Sequence[bool]:
        """Do tasks of one kind."""
        self._open()
        done: Sequence[bool] = [True] * len(tasks)
        match tasks[0]:
            case Message():
                done = self.tables.letters.post(cast("Sequence[Message]", tasks))
                if self.local.wanted():  # SQLite does not announce what this connection writes
                    self._dirty, self._due = True, 0.0
            case Join():
                joins = cast("Sequence[Join]", tasks)
                if any(address_of(join.channel) == self.tables.inbox for join in joins):
                    self._ensure_registered()
                self.tables.join(joins)
            case Leave():
                self.tables.leave(cast("Sequence[Leave]", tasks))
            case Flush():
                self.tables.flush()
        return done

    def _open(self) -> None:
        if self._watch.open():
            self._registered, self._dirty = False, True

    def _ensure_registered(self) -> None:
        if not self._registered:
            self.tables.register(self.local.members())
            self._registered = True
            self._renew_at = time.monotonic() + RENEW_SECONDS

    # Looking for letters

    def _poll(self) -> None:
        try:
            found = self._look()
        except Exception as error:  # of whatever kind: the readers wait for this thread
            self._due = time.monotonic() + self._outage.failed(error)
            return
        self._outage.over()
        now = time.monotonic()
        if found:
            self._active_until = now + ACTIVE_SECONDS
        if self._listener.proved:
            pause = max(self.interval, SAFETY_SECONDS)
        else:
            pause = self.interval * (ACTIVE_SHARE if now < self._active_until else 1)
        self._due = min(now + pause, max(now, self._listener.due))

    def _look(self) -> int:
        """Look for letters and take them; return how many there were."""
        wanted = self.local.wanted()
        addresses = frozenset([self.tables.inbox, *wanted])
        self._dirty |= any(not w.settled for waiters in wanted.values() for w in waiters)
        expected = self._dirty
        reopened, changed = self._watch.check(addresses, sure=expected)
        if reopened:
            self._registered = False
        self._dirty |= changed or reopened
        self._listener.keep()
        self._ensure_registered()
        self._keep_alive()
        found = self._fetch() if self._dirty else 0
        if found and self._listener.proved and not expected:
            self._listener.doubt()
        return found

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if now >= self._renew_at:
            if not self.tables.renew():  # a pause, a restored backup: others gave this process up
                self.tables.register(self.local.members())
            self._renew_at = now + RENEW_SECONDS
            if dropped := self.local.dropped():
                self.tables.leave([Leave(group, channel) for group, channel in dropped])
        if now >= self._trim_at:
            self._trim_at = now + _about(TRIM_SECONDS)
            self.tables.trim()

    def _fetch(self) -> int:
        """Take everything that waits for this process; return how many letters there were."""
        count = 0
        more = True
        while more:
            letters, more = self.tables.claim()
            count += len(letters)
            for letter in letters:
                self._deliver(letter)
        for channel, waiters in self.local.reserve().items():
            count += self._fetch_shared(channel, waiters)
        self._dirty = False
        return count

    def _fetch_shared(self, channel: str, waiters: Sequence[Waiter]) -> int:
        """Take a letter for each reader that waits here; return how many there were."""
        count = 0
        while count < len(waiters):
            letters, more = self.tables.claim_shared(channel, len(waiters) - count)
            count += len(letters)
            for letter in letters:
                self._deliver(letter)
            if unread := self.local.surplus(channel):
                self.tables.letters.post([Message(body, channel=channel) for body in unread])
            if not more:
                self.local.settle(waiters)
                break
            # Others took what was seen here, and behind it there may be more.
        return count

    def _deliver(self, letter: bytes) -> None:
        try:
            match unpack(letter):
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
        except ValueError as error:  # a process of another version, or not ours at all
            logger.warning("A message of another process cannot be read: %s", error)


def _about(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.5)
