"""Run the project's code, such that slow or broken code hurts only the client that causes it.

There is a pool for each kind of code, so that slow actions delay no permission check, and slow
permission checks delay no sign-in. In a pool, callers take turns: a user or an address that sends
many commands waits for its own commands, and the others do not.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import Any

from asgiref.sync import iscoroutinefunction
from channels.db import database_sync_to_async

from realtime.fair_slots import FairSlots
from realtime.threads import ACTION_THREADS, IDENTITY_THREADS, PERMISSION_THREADS, WorkerThreads

__all__ = ["ACTIONS", "IDENTITIES", "PERMISSIONS", "Pool", "caller_of", "source"]

HANDSHAKE_SECONDS = 4.0  # to wait for a turn; Daphne gives up a handshake after 5 s
COMMAND_SECONDS = 10.0  # to wait for a turn; clients wait at least as long for an answer
CALLS_PER_USER = 4  # so that one browser's slow calls leave half of the threads to the others

source: ContextVar[Hashable] = ContextVar("realtime_source", default=None)
"""The address or the connection that the current task serves; it tells anonymous callers apart."""


def caller_of(user: Any) -> Hashable:
    """Return with whom a user shares its turns: with itself, or with its source if anonymous."""
    if user is not None and getattr(user, "is_authenticated", False):
        return "user", user.pk
    return source.get()


class Pool:
    """Runs functions of the project, sync or async, each kind of code in threads of its own.

    Args:
        threads: run the sync functions.
        per_caller: how many of the threads one caller can use at the same time.
        patience: seconds to wait for a turn.
        calls_per_caller: how many functions of one caller, sync or async, run at the same time.
    """

    def __init__(
        self,
        threads: WorkerThreads,
        per_caller: int,
        patience: float,
        calls_per_caller: int | None = None,
    ) -> None:
        self._threads = threads
        self._slots = FairSlots(threads.count, per_caller, patience)
        self._calls = calls_per_caller and FairSlots(math.inf, calls_per_caller, patience)
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, caller: Hashable, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function of the project, sync or async, and return its result.

        A sync function runs in one of the threads; old database connections are closed before and
        after it. Exceptions of the function propagate.

        Args:
            caller: who waits for the result; see ``caller_of()``.
            function: the function.
            args: its arguments.

        Raises:
            ProtocolError: the caller waited too long for its turn; the function was not run.
            RuntimeError: the function raised an exception that means something else to its caller:
                ``StopIteration`` cannot leave a future, ``CancelledError`` and ``GeneratorExit``
                would end the caller's task, and ``SystemExit`` and others the process.
        """
        if not self._calls:
            return await self._run(caller, function, *args)
        release = await self._calls.acquire(caller)
        try:
            return await self._run(caller, function, *args)
        finally:
            release()

    async def _run(self, caller: Hashable, function: Callable[..., Any], *args: Any) -> Any:
        task = asyncio.current_task()
        try:
            if not iscoroutinefunction(function):
                result = await self._run_in_turn(caller, function, *args)
            else:
                result = function(*args)
            # A sync function can return an awaitable, for example a decorated async method.
            return await result if inspect.isawaitable(result) else result
        except StopIteration as error:
            raise _contained(function, error) from error
        except Exception:
            raise
        except asyncio.CancelledError as error:
            if task is None or task.cancelling():
                raise  # the caller's own cancellation
            raise _contained(function, error) from error
        except GeneratorExit as error:
            if not _is_running(task):
                raise  # this coroutine is being closed
            raise _contained(function, error) from error
        except BaseException as error:
            raise _contained(function, error) from error

    async def _run_in_turn(self, caller: Hashable, function: Callable[..., Any], *args: Any) -> Any:
        release = await self._slots.acquire(caller)
        # In a task of its own: if the caller is cancelled, the thread still runs, and the slot is
        # free only when it ends.
        task = asyncio.get_running_loop().create_task(self._run_in_thread(function, *args))
        self._running.add(task)

        def end(task: asyncio.Task[Any]) -> None:
            self._running.discard(task)
            release()
            if not task.cancelled():
                task.exception()  # nobody may be left to retrieve it

        task.add_done_callback(end)
        return await asyncio.shield(task)

    async def _run_in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        run = database_sync_to_async(
            _run_contained, thread_sensitive=False, executor=self._threads.executor
        )
        return await run(function, *args)


def _is_running(task: asyncio.Task[Any] | None) -> bool:
    try:
        return task is not None and asyncio.current_task() is task
    except RuntimeError:
        return False  # no event loop runs


def _run_contained(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except Exception as error:
        if isinstance(error, StopIteration):
            raise _contained(function, error) from error
        raise
    except BaseException as error:
        raise _contained(function, error) from error


def _contained(function: Callable[..., Any], error: BaseException) -> RuntimeError:
    name = getattr(function, "__qualname__", repr(function))
    return RuntimeError(f"{name}() raised {type(error).__name__}")  # its str() can fail, too


# Sessions, tokens and `AUTHENTICATE`. Behind a proxy that is not in TRUSTED_PROXIES all anonymous
# clients are one caller, so it can use all threads but one.
IDENTITIES = Pool(IDENTITY_THREADS, IDENTITY_THREADS.count - 1, HANDSHAKE_SECONDS)
PERMISSIONS = Pool(PERMISSION_THREADS, PERMISSION_THREADS.count // 2, COMMAND_SECONDS)
ACTIONS = Pool(ACTION_THREADS, CALLS_PER_USER, COMMAND_SECONDS, CALLS_PER_USER)
