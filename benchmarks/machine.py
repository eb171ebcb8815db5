"""What the benchmarks ask of the machine: cores of their own, and what processes use.

Linux alone, through /proc; the processor's time comes from ``schedstat``, in nanoseconds.
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
CLIENT_CORE = CORES[-1]  # of the load client, the publisher and Redis
END_SECONDS = 10  # for a process to end before it is killed
SPARE_FILES = 500  # descriptors that a process needs besides those of its clients


def describe() -> str:
    """Return one line about the machine and who runs where."""
    load = f"load {os.getloadavg()[0]:.1f}"
    if SERVER_CORE == CLIENT_CORE:
        return f"1 core, {load}: server and clients share it, so that latencies say little"
    return (
        f"{len(CORES)} cores, {load}: servers on core {SERVER_CORE}, "
        f"the load client, publishers and Redis on core {CLIENT_CORE}"
    )


def raise_file_limit() -> None:
    """Let this process and its children open as many files as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def has_files_for(clients: int) -> bool:
    """Tell whether a process may have so many connections."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard == resource.RLIM_INFINITY or clients + SPARE_FILES <= hard


def end_well() -> None:
    """Have SIGTERM end this process as Ctrl-C does, so that what it started ends with it."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Have the processes that are started meanwhile run on one core."""
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
    """Run a process on a core and end it, and it alone, at the end."""
    with on_core(core):
        process = subprocess.Popen(command, env=env, **options)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[Any], number: int = signal.SIGTERM) -> None:
    """End a process as an operator does; as a crash does if it takes too long."""
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
    """What a process and its children use.

    Args:
        pid: of the process; its children are looked for at each question.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def _pids(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [self.pid, *map(int, children.split())]

    def cpu(self) -> float:
        """Return the seconds of a core that all threads have used."""
        nanoseconds = 0
        for pid in self._pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):  # a thread that just ended
                    nanoseconds += int((task / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    def memory(self) -> float:
        """Return the resident kilobytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._pids())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e3
