"""The test environment, which replaces the project's store, channel layer and server.

There is one environment at a time; captures and clients that overlap share it.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, Protocol, TypeVar
from unittest.mock import patch

from asgiref.sync import sync_to_async
from channels.layers import InMemoryChannelLayer
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime import broadcast, publishing, repeated_errors, stores
from realtime.broadcast import Wakeup
from realtime.consumers import websocket
from realtime.hub import Hub
from realtime.stores.memory import MemoryStore
from realtime.testing.commits import Commits, only_test_transactions_are_open
from realtime.testing.executor import WaitingThreadExecutor
from realtime.user_code import Pool

__all__ = ["Environment", "Server", "refuse_event_loop"]

T = TypeVar("T")

STOP_SECONDS = 10.0  # timeout for a call on an idle event loop; exceeded only if something hangs


class _Listener(Protocol):
    def receive(self, wakeup: Wakeup) -> None: ...


class Environment:
    """A store in memory, emulated commits, and a hub, which starts when a client needs it.

    Attributes:
        store: the store that ``get_store()`` returns in this environment.
        commits: runs ``on_commit()`` hooks inside a ``TestCase``.
        executor: runs the project's synchronous code in the thread of the test.
    """

    _current: Environment | None = None
    _lock = threading.RLock()

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.commits = Commits()
        self.executor = WaitingThreadExecutor()
        self._listeners: list[_Listener] = []
        self._server: Server | None = None
        self._uses = 0
        self._patches = ExitStack()
        self._in_transaction = publishing._in_transaction

    @classmethod
    def acquire(cls) -> Environment:
        """Return the current environment, set up on first use. Call ``release()`` afterwards."""
        with cls._lock:
            environment = cls._current
            if environment is None:
                environment = cls()
                environment._set_up()
                cls._current = environment
            environment._uses += 1
            return environment

    def release(self) -> None:
        """End one use; after the last, stop the server and restore the project's own store."""
        cls = type(self)
        with cls._lock:
            self._uses -= 1
            if self._uses == 0:
                cls._current = None
                try:
                    if self._server is not None:
                        self._server.stop()
                finally:
                    self._patches.close()

    def _set_up(self) -> None:
        commits = self.commits

        def on_commit(connection: Any, func: Callable[[], object], robust: bool = False) -> None:
            commits.on_commit(connection, func, robust)

        for owner, name, replacement in (
            (stores, "_store", self.store),
            (stores, "_make_store", lambda: self.store),  # called after a change of settings
            (BaseDatabaseWrapper, "on_commit", on_commit),
            (publishing, "_in_transaction", self._is_in_transaction),
            (broadcast, "_start", self._deliver),
            (websocket, "STREAM_HOLD_SECONDS", 0.0),  # no wait for a page reload before a leave
            (Pool, "_run_in_thread", _run_in_the_tests_thread),
            (repeated_errors, "_periods", {}),  # so that each test sees its own errors
        ):
            self._patches.enter_context(patch.object(owner, name, replacement))

    def _is_in_transaction(self, alias: str) -> bool:
        """Return whether an event has to wait for a commit, as it would outside of a test."""
        if only_test_transactions_are_open(connections[alias]):
            self.commits.run_hooks()  # so that events committed earlier come first
            return False
        return self._in_transaction(alias)

    def _deliver(self, wakeups: Sequence[Wakeup]) -> list[Future[None]]:
        """Pass wake-ups to the captures and the hub, instead of the channel layer."""
        for wakeup in wakeups:
            for listener in list(self._listeners):
                listener.receive(wakeup)
        return []

    def add_listener(self, listener: _Listener) -> None:
        """Start to pass published events to a listener."""
        self._listeners.append(listener)

    def remove_listener(self, listener: _Listener) -> None:
        """Stop passing published events to a listener."""
        self._listeners.remove(listener)

    @property
    def server(self) -> Server:
        """The hub with its thread, started on first use."""
        with self._lock:
            if self._server is None:
                self._server = Server(self.store)
                self.add_listener(self._server)
            return self._server


async def _run_in_the_tests_thread(_: Pool, function: Callable[..., Any], *args: Any) -> Any:
    return await sync_to_async(function, thread_sensitive=True)(*args)


class Server:
    """A hub on its own event loop, in a thread that never uses the database.

    Attributes:
        hub: the hub; use it on its event loop only.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="realtime-testing", daemon=True
        )
        self._thread.start()
        self.hub = self.start(lambda: self._make_hub(store)).result(STOP_SECONDS)

    async def _make_hub(self, store: MemoryStore) -> Hub:
        hub = Hub(store, InMemoryChannelLayer())
        hub.start()
        return hub

    def start(self, coroutine: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Start a coroutine on the event loop, in a new context; return a future of its result."""
        future: Future[T] = Future()

        def begin() -> None:
            task = self._loop.create_task(coroutine())
            task.add_done_callback(lambda done: _copy_result(done, future))

        self._loop.call_soon_threadsafe(begin, context=contextvars.Context())
        return future

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function on the event loop, after all earlier calls."""
        self._loop.call_soon_threadsafe(function, *args)

    def receive(self, wakeup: Wakeup) -> None:
        """Pass a wake-up to the hub."""
        self.call(self.hub.receive, wakeup)

    def write_members(self) -> None:
        """Write the current members of all topics to the store."""
        self.start(self._write_members).result(STOP_SECONDS)

    async def _write_members(self) -> None:
        await self.hub.member_writer.write()
        # A write that the hub had already started ends during this sleep: the memory store never
        # waits.
        await asyncio.sleep(0)

    def stop(self) -> None:
        """Close the hub and stop the thread."""
        self.start(self.hub.close).result(STOP_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        self._loop.close()


def _copy_result(task: asyncio.Task[T], future: Future[T]) -> None:
    if task.cancelled():
        future.cancel()
    elif (error := task.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())


def refuse_event_loop(instead: str) -> None:
    """Raise an error if this thread runs an event loop.

    A blocking call would stop the loop, and the test's transaction belongs to another thread.

    Args:
        instead: the code to write instead.

    Raises:
        SynchronousOnlyOperation: an event loop is running; the error says what to write instead.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SynchronousOnlyOperation(f"this call would block the event loop; use: {instead}")
