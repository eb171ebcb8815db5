"""The pools are bounded, and start again after a fork."""

import asyncio
import os
import threading

import pytest

from realtime.threads import WorkerThreads


def test_a_pool_has_no_more_threads_than_its_count() -> None:
    pool = WorkerThreads("test-bounded", 2)
    both = threading.Barrier(2)
    names = [pool.submit(lambda: (both.wait(10), threading.current_thread().name)[1])
             for _ in range(6)]  # fmt: skip
    assert len({future.result(20) for future in names}) == 2
    pool.executor.shutdown()


async def test_a_coroutine_waits_without_blocking_the_loop() -> None:
    pool = WorkerThreads("test-loop", 1)
    may_end = threading.Event()
    waiting = asyncio.create_task(pool.run(may_end.wait, 20))
    await asyncio.sleep(0)
    assert not waiting.done()  # the loop is not blocked, so this line runs
    may_end.set()
    assert await waiting is True
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 / 0)
    pool.executor.shutdown()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_its_own_threads() -> None:
    pool = WorkerThreads("test-fork", 1)
    assert pool.submit(os.getpid).result(20) == os.getpid()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if pool.submit(os.getpid).result(20) == os.getpid() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    pool.executor.shutdown()
