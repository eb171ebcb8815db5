"""Pin processes to cores, and measure their CPU time and memory.

Works on Linux only, through /proc; CPU time comes from ``schedstat``, in nanoseconds.
"""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = CORES[0]
CLIENT_CORE = CORES[-1]  # for the load client, the publisher and Redis
END_SECONDS = 10  # for a process to exit before it is killed
SPARE_FILES = 500  # descriptors that a process needs in addition to those of its clients


def describe() -> str:
    """Return one line about the machine, and which process runs on which core."""
    load = f"load {os.getloadavg()[0]:.1f}"
    if SERVER_CORE == CLIENT_CORE:
        return f"1 core, {load}: server and clients share it, so latencies mean little"
    return (
        f"{len(CORES)} cores, {load}: servers on core {SERVER_CORE}, "
        f"the load client, publishers and Redis on core {CLIENT_CORE}"
    )


def raise_file_limit() -> None:
    """Raise the limit of open files of this process and its children to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def has_files_for(clients: int) -> bool:
    """Tell whether a process can open a connection for each of these clients."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard == resource.RLIM_INFINITY or clients + SPARE_FILES <= hard


def exit_on_sigterm() -> None:
    """Make SIGTERM unwind this process, so that its context managers stop what it started."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the cleanup
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Pin the processes that are started in the block to one core."""
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


@contextmanager
def started(
    command: Sequence[str],
    core: int,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[subprocess.Popen[Any]]:
    """Run a process on a core, and stop it (not its children) at the end of the block."""
    with on_core(core):
        process = subprocess.Popen(command, env=env, **options)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[Any], number: int = signal.SIGTERM) -> None:
    """Stop a process with a signal, and kill it if it takes too long."""
    process.send_signal(number)
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


class Usage:
    """The CPU time and memory of a process and its children.

    Args:
        pid: the ID of the process; its children are looked up at each call.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def _pids(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [self.pid, *map(int, children.split())]

    def cpu(self) -> float:
        """Return the CPU seconds that all threads have used."""
        nanoseconds = 0
        for pid in self._pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):  # the thread has just ended
                    nanoseconds += int((task / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    def memory(self) -> float:
        """Return the resident memory in kilobytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._pids())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e3
