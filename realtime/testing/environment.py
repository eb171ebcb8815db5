"""What stands in for the project's store and server while something is tested.

There is one environment at a time, shared by all captures and clients that overlap.
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

from realtime import broadcast, publishing, stores
from realtime.broadcast import Wakeup
from realtime.consumers import websocket
from realtime.hub import Hub
from realtime.stores.memory import MemoryStore
from realtime.testing.commits import Commits, is_only_in_the_test
from realtime.testing.executor import ThreadExecutor
from realtime.topics import base

__all__ = ["Environment", "Server", "refuse_event_loop"]

T = TypeVar("T")

STOP_SECONDS = 10.0  # for a loop that has nothing to do; beyond it something hangs


class _Listener(Protocol):
    def take(self, wakeup: Wakeup) -> None: ...


class Environment:
    """A store in memory, commits inside a test, and a hub once a client wants one.

    Attributes:
        store: what ``get_store()`` returns meanwhile.
        commits: runs what waits for a commit.
        errands: the project's synchronous code that a client set off.
    """

    _current: Environment | None = None
    _lock = threading.RLock()

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.commits = Commits()
        self.errands = ThreadExecutor()
        self._listeners: list[_Listener] = []
        self._server: Server | None = None
        self._uses = 0
        self._patches = ExitStack()
        self._in_transaction = publishing._in_transaction

    @classmethod
    def enter(cls) -> Environment:
        """Return the environment, set up by the first who enters."""
        with cls._lock:
            environment = cls._current
            if environment is None:
                environment = cls()
                environment._set_up()
                cls._current = environment
            environment._uses += 1
            return environment

    def leave(self) -> None:
        """Give the project its own store back, if this was the last who entered."""
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
            (stores, "_make_store", lambda: self.store),  # other settings may be overridden inside
            (BaseDatabaseWrapper, "on_commit", on_commit),
            (publishing, "_in_transaction", self._is_in_transaction),
            (broadcast, "_start", self._announce),
            (websocket, "STREAM_HOLD_SECONDS", 0.0),  # there are no reloads that a leave waits for
            (base, "_run_in_thread", _run_in_the_tests_thread),
        ):
            self._patches.enter_context(patch.object(owner, name, replacement))

    def _is_in_transaction(self, alias: str) -> bool:
        """Tell whether an event has to wait for a commit, as it would outside of a test."""
        if is_only_in_the_test(connections[alias]):
            self.commits.settle()  # what was committed before comes before
            return False
        return self._in_transaction(alias)

    def _announce(self, wakeups: Sequence[Wakeup]) -> list[Future[None]]:
        """Tell the captures and the hub, instead of the channel layer."""
        for wakeup in wakeups:
            for listener in list(self._listeners):
                listener.take(wakeup)
        return []

    def listen(self, listener: _Listener) -> None:
        """Have a listener take what is published from now on."""
        self._listeners.append(listener)

    def unlisten(self, listener: _Listener) -> None:
        """Have it take nothing more."""
        self._listeners.remove(listener)

    @property
    def server(self) -> Server:
        """The hub's thread, started at the first use."""
        with self._lock:
            if self._server is None:
                self._server = Server(self.store)
                self.listen(self._server)
            return self._server


async def _run_in_the_tests_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await sync_to_async(function, thread_sensitive=True)(*args)


class Server:
    """A hub on an event loop of its own, in a thread that never touches the database.

    Attributes:
        hub: used on its loop only.
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
        """Run a coroutine there, in a context that knows nothing of the test's event loop."""
        future: Future[T] = Future()

        def begin() -> None:
            task = self._loop.create_task(coroutine())
            task.add_done_callback(lambda done: _pass_on(done, future))

        self._loop.call_soon_threadsafe(begin, context=contextvars.Context())
        return future

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function there, after all that was called before."""
        self._loop.call_soon_threadsafe(function, *args)

    def take(self, wakeup: Wakeup) -> None:
        """Tell the hub what was published."""
        self.call(self.hub.receive, wakeup)

    def write_members(self) -> None:
        """Have the store know who is on which topic now."""
        self.start(self._write_members).result(STOP_SECONDS)

    async def _write_members(self) -> None:
        await self.hub.member_writer.write()
        # What the hub was writing itself, in a store that never waits, is done a turn later.
        await asyncio.sleep(0)

    def stop(self) -> None:
        """Close the hub and end the thread."""
        self.start(self.hub.close).result(STOP_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        self._loop.close()


def _pass_on(task: asyncio.Task[T], future: Future[T]) -> None:
    if task.cancelled():
        future.cancel()
    elif (error := task.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())


def refuse_event_loop(instead: str) -> None:
    """Raise if this thread runs an event loop, which must not wait and has no transaction.

    Raises:
        SynchronousOnlyOperation: it does; the text says what to write instead.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SynchronousOnlyOperation(f"in a coroutine, write: {instead}")
