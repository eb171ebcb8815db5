"""Run the project's synchronous code in the thread of the test.

The hub runs on an event loop in another thread, but synchronous code such as ``can_subscribe()``
must use the database connection of the ``TestCase``, which belongs to the thread of the test.
So calls are submitted to that thread, which runs them while it waits for the client.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import SyncToAsync

__all__ = ["WaitingThreadExecutor"]

P = ParamSpec("P")
T = TypeVar("T")


class WaitingThreadExecutor(Executor):
    """An executor without threads of its own: ``run_next()`` runs the submitted calls."""

    def __init__(self) -> None:
        # Submitted calls; None only wakes up the waiting thread.
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a call, to be run by the thread that waits in ``run_next()``."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # raised by future.result() instead
                future.set_exception(error)

        self._queue.put(run)
        return future

    def wake(self) -> None:
        """Make a waiting ``run_next()`` return."""
        self._queue.put(None)

    def run_next(self, deadline: float) -> bool:
        """Wait for a call and run it, or wait for ``wake()``; return False after the deadline.

        Args:
            deadline: a time of ``time.monotonic()``.
        """
        try:
            call = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        if call is not None:
            _run_and_restore(call)
        return True


def _run_and_restore(call: Callable[[], None]) -> None:
    """Run a call, then restore the thread-local state of asgiref.

    asgiref records the event loop from which a call was submitted. If it stayed recorded,
    ``async_to_sync()`` in later code of the test would run on that loop.
    """
    state: dict[str, Any] = vars(SyncToAsync.threadlocal)
    before = dict(state)
    try:
        call()
    finally:
        state.clear()
        state.update(before)
