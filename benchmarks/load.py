"""The load client: compiles ``client/`` and drives it.

Its own CPU time is reported with every figure, to show that it was not the bottleneck.
"""

import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.machine import CLIENT_CORE, started

SOURCE = Path(__file__).with_name("client")
GET_COMPILER = "the load client needs a C compiler: put cc, gcc or clang on PATH"
AT_ONCE = 64  # concurrent handshakes
CONNECT_SECONDS = 120.0
EVENT_SECONDS = 60.0


@dataclass(frozen=True)
class Client:
    """What one client does.

    Attributes:
        kind: ``ws`` or ``sse``.
        path: of its request; here and in the frame, @SINCE@ is replaced by the client's last
            cursor and @TOPIC@ by the topic.
        header: an additional header line, such as a cookie.
        frame: sent once the client is connected.
        marker: the client is ready when the server has sent this text; if empty, after the
            handshake.
        is_stalled: whether the client stops reading once it is ready.
    """

    kind: str
    path: str
    header: str = ""
    frame: str = ""
    marker: str = ""
    is_stalled: bool = False

    def line(self) -> str:
        """Return its line in the file that client/main.c reads."""
        return "\t".join([self.kind, str(int(self.is_stalled)), self.path, self.header, self.frame])


@dataclass(frozen=True)
class Latencies:
    """What all clients saw since the last reset.

    Attributes:
        events: number of deliveries.
        p50, p99, max: seconds from publish to receipt.
        holes, repeats: events that a client missed, or received twice or out of order.
        closed: number of connections that have been closed.
        cpu, spun: CPU seconds that the load client has used since it started, and the part of them
            that it spent polling for input.
    """

    events: int
    p50: float
    p99: float
    max: float
    holes: int
    repeats: int
    closed: int
    cpu: float
    spun: float

    @property
    def work(self) -> float:
        """CPU seconds since the start, without the polling."""
        return self.cpu - self.spun


class LoadError(Exception):
    """Some clients failed, or were too slow."""


@functools.cache
def compiled() -> Path:
    """Return the path of the load client, compiled once per process.

    Raises:
        SystemExit: there is no compiler; the message says what to install.
    """
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        sys.exit(GET_COMPILER)
    folder = tempfile.TemporaryDirectory(prefix="realtime-load-")
    _folders.append(folder)
    binary = Path(folder.name) / "load"
    sources = sorted(map(str, SOURCE.glob("*.c")))
    subprocess.run([compiler, "-O2", "-o", str(binary), *sources], check=True)
    return binary


_folders: list[tempfile.TemporaryDirectory[str]] = []  # removed when this process ends


class Load:
    """A load client for one port; a context manager that starts and stops it.

    Args:
        port: the server's port on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.clients: list[Client] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Load":
        command = [str(compiled()), str(self.port)]
        with ExitStack() as stack:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._process = stack.enter_context(started(command, CLIENT_CORE, text=True, **pipes))
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._answer()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def take(self, clients: Iterable[Client]) -> None:
        """Cut all connections and replace the clients; the new ones inherit the old cursors."""
        self.clients = list(clients)
        file = self._folder / "clients"
        file.write_text("".join(f"{client.line()}\n" for client in self.clients))
        self._ask(f"clients {file}")

    def connect(
        self,
        first: int = 0,
        count: int | None = None,
        *,
        sends: bool = True,
        seconds: float = CONNECT_SECONDS,
    ) -> float:
        """Open connections and return the seconds until the last of them was ready.

        Args:
            first, count: which clients; without a count, all from the first on.
            sends: whether each client sends its frame and is ready when its marker arrives;
                otherwise it is ready after its handshake.
            seconds: the time limit.

        Raises:
            LoadError: some clients did not become ready in time.
        """
        count = len(self.clients) - first if count is None else count
        marker = (self.clients[first].marker if sends else "") or "-"
        return self._ready(
            count, f"connect {first} {count} {AT_ONCE} {seconds} {int(sends)} {marker}"
        )

    def send(self, seconds: float = CONNECT_SECONDS) -> float:
        """Send the frames of all connections; return the seconds until all are ready again.

        Raises:
            LoadError: some clients did not become ready in time.
        """
        marker = self.clients[0].marker or "-"
        return self._ready(len(self.clients), f"send 0 {len(self.clients)} {seconds} {marker}")

    def wait(self, events: int, seconds: float = EVENT_SECONDS) -> None:
        """Wait until every reading client has received ``events`` events since the last reset.

        Raises:
            LoadError: some clients had not received them after ``seconds``.
        """
        count = len(self.clients)
        missing = self._ask(f"wait 0 {count} {events} {seconds}")["missing"]
        if missing:
            raise LoadError(f"{missing:,} of {count:,} clients lack events after {seconds:.0f} s")

    def reset(self) -> None:
        """Reset the counts and latencies."""
        self._ask("reset")

    def report(self) -> Latencies:
        """Return the measurements since the last reset."""
        return Latencies(**self._ask("report"))

    def client(self, number: int) -> dict[str, Any]:
        """Return one client's state, events, last number, close code and cursor."""
        return self._ask(f"client {number}")

    def wake(self, first: int, count: int) -> None:
        """Make stalled clients read."""
        self._ask(f"wake {first} {count}")

    def cut(self) -> None:
        """Cut all connections."""
        self._ask(f"close 0 {len(self.clients)}")

    def _ready(self, count: int, command: str) -> float:
        answer = self._ask(command)
        if answer["ready"] < count:
            raise LoadError(
                f"{answer['ready']} of {count} clients are ready, {answer['failed']} failed "
                f"({answer['problem'] or 'no error'}), {answer['late']} were too slow"
            )
        return float(answer["seconds"])

    def _ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LoadError("the load client exited; its error is on stderr")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LoadError(answer["error"])
        return answer
