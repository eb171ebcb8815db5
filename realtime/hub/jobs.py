"""What a hub does on a timer, apart from serving subscribers.

It relays stale outbox rows, trims logs, writes this node's heartbeat, measures the offset to the
store's clock, and retries member changes that could not be written.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from realtime import outbox, retention
from realtime.nodes import BEAT_SECONDS
from realtime.outage import Outage
from realtime.request_time import ameasure
from realtime.threads import STORE_THREADS

if TYPE_CHECKING:
    from realtime.hub.member_writer import MemberWriter
    from realtime.stores.base import Store

__all__ = ["Job", "Jobs", "keep_running"]

logger = logging.getLogger("realtime")

TICK_SECONDS = 0.25
RELAY_SECONDS = 1.0
CLOCK_SECONDS = 10.0  # between two checks of whether the store's clock must be measured again
MEMBERS_SECONDS = 1.0  # between tries to write member changes to a store that failed
BEAT_RETRY_SECONDS = 2.0  # between tries to write this node's row to a store that failed
RESTART_SECONDS = 1.0  # before a task that ended unexpectedly begins again
TRIM_SECONDS = 3_600.0  # between two looks for logs to trim; events outlive their max_age by it
# That a look counts for all nodes: less, so that the same node can do the next one.
TRIM_TURN_SECONDS = 3_500.0


async def keep_running(what: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function that never returns; log it and begin again if it ends after all.

    Args:
        what: the task, for the log.
        run: the coroutine function.
    """
    while True:
        try:
            await run()
            logger.error("%s ended; it begins again", what)
        except Exception:
            logger.exception("%s failed; it begins again", what)
        await asyncio.sleep(RESTART_SECONDS)


class Job:
    """Work that is done repeatedly, one run at a time.

    A failed run does not end the job. It is logged, unless the run before it failed too.

    Args:
        work: performs one run.
        failing: what to log if it raises, such as "logs could not be trimmed".
        every: seconds from one start by the timer to the next.
        due: the time of the first start by the timer, on the loop's clock.

    Attributes:
        task: the latest run; None before the first.
        is_running: whether a run is under way.
        due: the time of the next start by the timer, on the loop's clock.
    """

    __slots__ = ("_every", "_outage", "_work", "due", "is_running", "task")

    def __init__(
        self, work: Callable[[], Awaitable[None]], failing: str, *, every: float, due: float
    ) -> None:
        self._work = work
        self._every = every
        self._outage = Outage(f"{failing}: %s", level=logging.ERROR)
        self.due = due
        self.is_running = False
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start a run, unless one is under way."""
        if not self.is_running:
            self.is_running = True  # set first: an eager task can end before create_task() returns
            self.task = asyncio.get_running_loop().create_task(self._run())

    def start_if_due(self, now: float) -> None:
        """Start a run if its time has come."""
        if now >= self.due:
            self.due = now + self._every
            self.start()

    async def _run(self) -> None:
        try:
            await self._work()
        except Exception as error:
            self._outage.failed(error)
        else:
            self._outage.over()
        finally:
            self.is_running = False


class Jobs:
    """The jobs of one hub and their timer; used on the hub's loop only.

    Attributes:
        relay: publishes what committed transactions of dead processes left in the outbox.
        trim: applies ``max_age`` to logs that nobody publishes to, and forgets empty ones; on one
            node at a time.
        clock: measures the offset to the store's clock.
        node: writes this node's heartbeat.
        others: declares nodes without a heartbeat dead.
        members: retries the member changes that could not be written.
    """

    def __init__(self, store: Store, member_writer: MemberWriter) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._member_writer = member_writer
        self._timer: asyncio.Task[None] | None = None
        self._all: list[Job] = []
        spread = random.uniform(0.1, 1.0) * TRIM_SECONDS  # so that nodes do not trim together
        self.relay = self.add(_relay, "stale events could not be relayed", RELAY_SECONDS)
        self.trim = self.add(self._trim, "logs could not be trimmed", TRIM_SECONDS, spread)
        self.clock = self.add(self._measure, "the store's clock cannot be read", CLOCK_SECONDS)
        self.node = self.add(self._beat, "the heartbeat failed", BEAT_SECONDS)
        self.others = self.add(member_writer.node.look_after_others, "other nodes were not checked")
        self.members = self.add(self._write_members, "members were not written", MEMBERS_SECONDS)

    def add(
        self,
        work: Callable[[], Awaitable[None]],
        failing: str,
        every: float = math.inf,
        delay: float = 0.0,
    ) -> Job:
        """Return a new job.

        Args:
            work: performs one run.
            failing: what to log if it raises.
            every: seconds between two starts, at least a tick; without it, the timer never starts
                the job.
            delay: seconds until the first start.
        """
        due = self._loop.time() + delay if every < math.inf else math.inf
        job = Job(work, failing, every=every, due=due)
        self._all.append(job)
        return job

    def start(self) -> None:
        """Start the timer."""
        self._timer = self._loop.create_task(keep_running("the hub's timer", self._tick))

    def stop(self) -> list[asyncio.Task[None]]:
        """Cancel the timer and all runs; return their tasks, for the caller to wait for."""
        tasks = [task for task in self.tasks if task is not None]
        for task in tasks:
            task.cancel()
        return tasks

    @property
    def tasks(self) -> list[asyncio.Task[None] | None]:
        """The timer, and the latest run of each job."""
        return [self._timer, *(job.task for job in self._all)]

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._loop.time()
            for job in self._all:
                job.start_if_due(now)

    async def _trim(self) -> None:
        if await self._store.atake("trim", 1, 1, TRIM_TURN_SECONDS):  # else another node has
            await STORE_THREADS.run(retention.trim_due)

    async def _measure(self) -> None:
        await ameasure(self._store)

    async def _beat(self) -> None:
        if await self._member_writer.node.beat():
            self.others.start()
        else:
            self.node.due = self._loop.time() + BEAT_RETRY_SECONDS

    async def _write_members(self) -> None:
        if self._member_writer.is_dirty:
            await self._member_writer.write()


async def _relay() -> None:
    outbox.relay_stale_if_due()
