"""Bounded threads of our own, where synchronous code runs for the event loop and after commits.

Three pools, so that none keeps another waiting: ``STORE_THREADS`` for stores, ``RELAY_THREADS`` for
the outbox, whose database may be another one that hangs, and ``USER_THREADS`` for the project's
code, which may be slow, and the session look-up.
None is Django's thread-sensitive thread, which a slow view may hold for seconds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

__all__ = ["RELAY_THREADS", "STORE_THREADS", "USER_THREADS", "WorkerThreads"]

P = ParamSpec("P")
T = TypeVar("T")


class WorkerThreads:
    """A thread pool that starts with its first call and anew after a fork."""

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.count = count
        self._executor: ThreadPoolExecutor | None = None
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        # The threads stayed behind in the parent; the executor object believes they are here.
        self._executor = None

    @property
    def executor(self) -> ThreadPoolExecutor:
        """The executor, for libraries that ask for one."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.count, thread_name_prefix=self.name)
        return self._executor

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in one of the threads; return a future that any thread can wait for."""
        return self.executor.submit(function, *args, **kwargs)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in one of the threads and wait without holding the loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, partial(function, *args, **kwargs))


# Four hold the disk or the database busy; each keeps a database connection open.
STORE_THREADS = WorkerThreads("realtime-store", 4)
# One may wait for a database that is away, the other goes on.
RELAY_THREADS = WorkerThreads("realtime-relay", 2)
# Session look-ups and authorisers wait for the database too; eight bound its connections.
USER_THREADS = WorkerThreads("realtime-user", 8)
