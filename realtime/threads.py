"""Thread pools in which synchronous code runs for the event loop and after commits.

There are several pools, so that none of them waits for another: ``STORE_THREADS`` for stores,
``RELAY_THREADS`` for the outboxes, one pool for each database alias because one can hang, and three
pools for the project's code, which can be slow (``user_code``): ``IDENTITY_THREADS`` also read
sessions, ``PERMISSION_THREADS`` ask the topics, and ``ACTION_THREADS`` run actions.
None of them uses Django's thread-sensitive thread, which a slow view can block for seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

from django.core.exceptions import ImproperlyConfigured

__all__ = [
    "ACTION_THREADS",
    "IDENTITY_THREADS",
    "PERMISSION_THREADS",
    "RELAY_THREADS",
    "STORE_THREADS",
    "WorkerThreads",
    "after_fork",
    "refuse_green_threads",
]

P = ParamSpec("P")
T = TypeVar("T")

BUSY_SECONDS = 5.0  # that run_in_each() waits for threads that are busy


def after_fork(function: Callable[[], object]) -> None:
    """Call a function in every child that this process forks; Windows has no fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


class WorkerThreads:
    """A thread pool that starts on first use, and again on first use after a fork.

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
        # The child's copy of the executor counts threads that exist only in the parent.
        self._executor = None

    @property
    def executor(self) -> ThreadPoolExecutor:
        """The executor, for libraries that need one."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.count, thread_name_prefix=self.name)
        return self._executor

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in one of the threads; any thread can wait for the returned future.

        While Python exits there are no new threads, so the calling thread runs it.
        """
        if not threading.main_thread().is_alive():
            return _run_here(partial(function, *args, **kwargs))
        return self.executor.submit(function, *args, **kwargs)

    def has_current_thread(self) -> bool:
        """Tell whether the calling thread is one of these."""
        return threading.current_thread().name.startswith(self.name)

    def run_in_each(self, function: Callable[[], object]) -> None:
        """Run a function once in each thread, after the work that is queued; wait for it.

        If some threads are busy for longer than five seconds, it is not run in all of them.
        """
        if self._executor is None:
            return
        # The barrier makes every thread run exactly one of the tasks.
        barrier = threading.Barrier(self.count)

        def run() -> None:
            with suppress(threading.BrokenBarrierError):
                barrier.wait(BUSY_SECONDS)
            function()

        wait([self.submit(run) for _ in range(self.count)], 2 * BUSY_SECONDS)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in one of the threads and await its result."""
        if not threading.main_thread().is_alive():
            return function(*args, **kwargs)  # as in submit()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, partial(function, *args, **kwargs))


def _run_here(function: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
    return future


def refuse_green_threads() -> None:
    """Raise if gevent or eventlet has replaced the threads of this process.

    The event loop that sends wake-ups would then run in the one real thread, and Django would
    refuse all synchronous database access there, as in asynchronous code.

    Raises:
        ImproperlyConfigured: it has; the error says which workers to use.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_module_patched("threading"):
        name = "gevent"
    elif eventlet is not None and eventlet.is_monkey_patched("thread"):
        name = "eventlet"
    else:
        return
    raise ImproperlyConfigured(
        f"realtime cannot publish from a {name} worker, because {name} replaces threads; use "
        "threads or processes: celery worker --pool threads, or gunicorn --worker-class gthread"
    )


class AliasThreads(dict[str, WorkerThreads]):
    """A thread pool for each database alias, made at its first use.

    Args:
        name: the prefix of the threads' names.
        count: the largest number of threads for an alias.
    """

    def __init__(self, name: str, count: int) -> None:
        super().__init__()
        self.name = name
        self.count = count

    def __missing__(self, alias: str) -> WorkerThreads:
        return self.setdefault(alias, WorkerThreads(f"{self.name}-{alias}", self.count))

    def has_current_thread(self) -> bool:
        """Tell whether the calling thread is one of these."""
        return threading.current_thread().name.startswith(self.name)

    def run_in_each(self, function: Callable[[], object]) -> None:
        """Run a function once in each thread, as ``WorkerThreads.run_in_each()`` does."""
        for threads in list(self.values()):
            threads.run_in_each(function)


# Four threads keep a disk or a database busy; each keeps a database connection open.
STORE_THREADS = WorkerThreads("realtime-store", 4)
# While one thread searches for stale rows or waits for a lock, the other relays new events.
RELAY_THREADS = AliasThreads("realtime-relay", 2)
# The project's code uses the database, so these also limit its connections.
IDENTITY_THREADS = WorkerThreads("realtime-identity", 4)
PERMISSION_THREADS = WorkerThreads("realtime-permission", 8)
ACTION_THREADS = WorkerThreads("realtime-action", 8)
