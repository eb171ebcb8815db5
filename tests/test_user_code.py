"""Running code of the project: its errors, its threads, and turns of its callers."""

import asyncio
import threading
from collections.abc import Iterator
from functools import partial

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import SynchronousOnlyOperation

from realtime.exceptions import ProtocolError
from realtime.threads import WorkerThreads
from realtime.user_code import ACTIONS, IDENTITIES, PERMISSIONS, Pool, caller_of, source
from tests.support.waiting import await_until

DEADLINE = 10.0


@pytest.fixture
def pool() -> Iterator[Pool]:
    threads = WorkerThreads("test-user-code", 4)
    yield Pool(threads, 2, 0.05)
    threads.executor.shutdown()


class Gate:
    """A slow function of the project: it returns when the gate is opened."""

    def __init__(self) -> None:
        self.started = 0
        self._lock = threading.Lock()
        self._open = threading.Event()

    def __call__(self) -> str:
        with self._lock:
            self.started += 1
        assert self._open.wait(DEADLINE)
        return "done"

    def open(self) -> None:
        self._open.set()


async def test_sync_code_runs_in_our_threads_and_async_code_on_the_event_loop() -> None:
    async def coroutine() -> str:
        return threading.current_thread().name

    assert (await PERMISSIONS.run("ada", lambda: threading.current_thread().name)).startswith(
        "realtime-permission"
    )
    assert await PERMISSIONS.run("ada", coroutine) == threading.current_thread().name
    assert await PERMISSIONS.run("ada", partial(coroutine)) == threading.current_thread().name


async def test_exceptions_of_user_code_propagate() -> None:
    async def query() -> bool:
        return User.objects.exists()

    with pytest.raises(ZeroDivisionError):
        await PERMISSIONS.run("ada", lambda: 1 / 0)
    with pytest.raises(SynchronousOnlyOperation):
        await PERMISSIONS.run("ada", query)


class Odd(BaseException):
    """An exception that `except Exception` does not catch, and whose text ends the process."""

    def __str__(self) -> str:
        raise SystemExit


UNCONTAINED = [
    Odd,
    StopIteration,
    asyncio.CancelledError,
    GeneratorExit,
    SystemExit,
    KeyboardInterrupt,
]


@pytest.mark.parametrize("kind", UNCONTAINED)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_an_exception_that_would_end_the_caller_is_an_error_of_the_function(
    kind: type[BaseException], is_async: bool
) -> None:
    def sync() -> None:
        raise kind("inner")

    async def coroutine() -> None:
        raise kind("inner")

    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError):
            await PERMISSIONS.run("ada", coroutine if is_async else sync)


async def test_the_callers_own_cancellation_is_not_an_error_of_the_function() -> None:
    waiting = asyncio.create_task(PERMISSIONS.run("ada", asyncio.Event().wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# Turns


async def test_a_caller_with_slow_functions_leaves_threads_to_the_others(pool: Pool) -> None:
    gate = Gate()
    slow = [asyncio.create_task(pool.run("eve", gate)) for _ in range(2)]
    await await_until(lambda: gate.started == 2, "eve has two threads", DEADLINE)
    late = asyncio.create_task(pool.run("eve", gate))
    assert await pool.run("ada", lambda: "ada's") == "ada's"
    with pytest.raises(ProtocolError) as caught:
        await late
    assert caught.value.code == "busy"
    gate.open()
    assert await asyncio.gather(*slow) == ["done", "done"]
    assert await pool.run("eve", lambda: "again") == "again"
    assert gate.started == 2


async def test_a_thread_is_in_use_until_its_function_ends_even_if_the_client_has_left(
    pool: Pool,
) -> None:
    gate = Gate()
    slow = [asyncio.create_task(pool.run("eve", gate)) for _ in range(2)]
    await await_until(lambda: gate.started == 2, "eve has two threads", DEADLINE)
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)
    with pytest.raises(ProtocolError, match="busy"):
        await pool.run("eve", gate)
    gate.open()
    await await_until(lambda: not pool._running, "the threads are free", DEADLINE)
    assert await pool.run("eve", lambda: "again") == "again"


async def test_a_user_has_four_calls_under_way_even_async_ones_and_others_have_theirs() -> None:
    pool = Pool(WorkerThreads("test-calls", 4), 4, 0.05, 4)
    waiting = [asyncio.create_task(pool.run("eve", asyncio.Event().wait)) for _ in range(4)]
    await asyncio.sleep(0)  # they begin
    with pytest.raises(ProtocolError) as caught:
        await pool.run("eve", asyncio.sleep, 0)
    assert caught.value.code == "busy"
    await pool.run("ada", asyncio.sleep, 0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    await pool.run("eve", asyncio.sleep, 0)


async def test_slow_actions_and_permission_checks_do_not_delay_sign_ins() -> None:
    gate = Gate()
    threads = ACTIONS._threads.count + PERMISSIONS._threads.count
    busy = [
        asyncio.create_task(pool.run(number, gate))
        for pool in (ACTIONS, PERMISSIONS)
        for number in range(pool._threads.count)
    ]
    try:
        await await_until(lambda: gate.started == threads, "all threads are in use", DEADLINE)
        assert await IDENTITIES.run("ada", lambda: "signed in") == "signed in"
    finally:
        gate.open()
        await asyncio.wait(busy)


def test_users_take_turns_by_user_and_anonymous_clients_by_source() -> None:
    source.set("10.0.0.1")
    ada = User(pk=7)
    assert caller_of(ada) == caller_of(User(pk=7)) != caller_of(User(pk=8))
    assert caller_of(AnonymousUser()) == caller_of(None) == "10.0.0.1"
    source.set(None)
