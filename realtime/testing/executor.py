"""Work that the client's event loop hands to the thread of the test.

The project's synchronous code, such as ``can_subscribe()``, runs there, where the database
connection of a ``TestCase`` and its transaction are.
The thread works on it while it waits for the client.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import SyncToAsync

__all__ = ["ThreadExecutor"]

P = ParamSpec("P")
T = TypeVar("T")


class ThreadExecutor(Executor):
    """An executor without threads: whoever waits runs what was submitted."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a function run by the thread that waits, now or next."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # it belongs to who submitted it
                future.set_exception(error)

        self._queue.put(run)
        return future

    def wake(self) -> None:
        """Let the thread that waits look again."""
        self._queue.put(None)

    def wait(self, deadline: float) -> bool:
        """Wait for the next errand or ``wake()`` and run it; False if none came in time.

        Args:
            deadline: on ``time.monotonic()``.
        """
        try:
            errand = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        if errand is not None:
            _run_as_guest(errand)
        return True


def _run_as_guest(errand: Callable[[], None]) -> None:
    """Run it, and let this thread forget whose loop it came from.

    asgiref notes that loop for ``async_to_sync()``; later code of the test would run on it.
    """
    noted: dict[str, Any] = vars(SyncToAsync.threadlocal)
    before = dict(noted)
    try:
        errand()
    finally:
        noted.clear()
        noted.update(before)
