"""Thread pools in which synchronous code runs for the event loop and after commits.

There are three, so that none waits for another: ``STORE_THREADS`` for stores, ``RELAY_THREADS`` for
the outbox, whose database may be a different one that hangs, and ``USER_THREADS`` for the project's
code, which may be slow, and for reading sessions.
None of them is Django's thread-sensitive thread, which a slow view can block for seconds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

__all__ = ["RELAY_THREADS", "STORE_THREADS", "USER_THREADS", "WorkerThreads", "after_fork"]

P = ParamSpec("P")
T = TypeVar("T")


def after_fork(function: Callable[[], object]) -> None:
    """Call a function in every child that this process forks; Windows has no fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


class WorkerThreads:
    """A thread pool that starts at its first use, and again after a fork.

    Args:
        name: the prefix of the threads' names.
        count: the largest number of threads.
    """

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        self.count = count
        self._executor: ThreadPoolExecutor | None = None
        after_fork(self._forget)

    def _forget(self) -> None:
        # The threads exist only in the parent, but the executor counts them.
        self._executor = None

    @property
    def executor(self) -> ThreadPoolExecutor:
        """The executor, for libraries that need one."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.count, thread_name_prefix=self.name)
        return self._executor

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in one of the threads; any thread can wait for the returned future."""
        return self.executor.submit(function, *args, **kwargs)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in one of the threads and await its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, partial(function, *args, **kwargs))


# Four keep a disk or a database busy; each keeps a database connection open.
STORE_THREADS = WorkerThreads("realtime-store", 4)
# While one waits for a database that is away, the other continues.
RELAY_THREADS = WorkerThreads("realtime-relay", 2)
# Sessions and authorisers use the database too, so this bounds its connections.
USER_THREADS = WorkerThreads("realtime-user", 8)
