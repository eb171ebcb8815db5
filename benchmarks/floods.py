"""What each flood of one client costs a Daphne, and the clients that behave (`make soak`).

    python -m benchmarks.floods [--seconds 4] [--clients 200]

An attacker runs for some seconds, first directly and then through nginx with deploy/nginx.conf.
Meanwhile an event is published every 20 ms to clients that check each number, and to a quiet
client whose latency is reported. The first run of each route has no attacker; the others are
compared with it.

Exits with 1 if an event was lost, an attacker was not cut, or the server has grown too much.
Latencies and times depend on other work on the machine, so they are reported only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.attackers import ATTACKS, PATIENCE_SECONDS, Outcome
from benchmarks.load import Latencies, Load, LoadError
from benchmarks.machine import CLIENT_CORE, SERVER_CORE, describe, exit_on_sigterm, on_core, started
from benchmarks.peers import PEERS, Server, Workspace, prepare
from benchmarks.publishers import Publisher
from tests.deploy.support.running import deployed_nginx
from tests.support.nginx import GET_NGINX, nginx_path

PAUSE_SECONDS = 0.02
ARRIVAL_SECONDS = 30.0
GROWTH_KB = 5_000.0  # that are allowed
P99_MS = 20.0  # on a machine without other work
CUT_SECONDS = 1.0
HEADING = (
    "flood",
    "server grows by",
    "CPU of the server",
    "p99 of the quiet client",
    "cut within",
    "lost",
)


@dataclass(frozen=True)
class Phase:
    """The measurements while one attacker runs.

    Attributes:
        grown: maximum growth of the server, in KB.
        cpu: share of a core that the server used.
        quiet, crowd: what the quiet client and the others received.
        held: seconds for which the server held a connection of the attacker.
        outcome: of the attacker; None if there was none.
    """

    grown: float
    cpu: float
    quiet: Latencies
    crowd: Latencies
    held: float
    outcome: Outcome | None

    @property
    def lost(self) -> int:
        """Events that a client missed, received twice or late, and clients that were closed."""
        return sum(each.holes + each.repeats + each.closed for each in (self.quiet, self.crowd))


class Held:
    """Measures how long a server holds additional connections, by its descriptors.

    The attacker cannot know that itself: nginx keeps a client that does not read its last bytes.

    Attributes:
        longest: the longest time in seconds.
    """

    def __init__(self, server: Server) -> None:
        self._folder = Path(f"/proc/{server.process.pid}/fd")
        self._usual = self._count()
        self._since: float | None = None
        self.longest = 0.0

    def _count(self) -> int:
        return len(list(self._folder.iterdir()))

    def look(self) -> None:
        """Count the connections now."""
        now = time.monotonic()
        if self._count() <= self._usual:
            self._since = None
        else:
            self._since = now if self._since is None else self._since
            self.longest = max(self.longest, now - self._since)


class Soak:
    """A server, its clients, and the publisher.

    Args:
        server: the Daphne that is measured.
        port: where clients and attackers connect.
        loads: the quiet client, and the others.
        publish: publishes one event.
    """

    def __init__(self, server: Server, port: int, loads: list[Load], publish: Publisher) -> None:
        self.server, self.port, self.loads, self.publish = server, port, loads, publish

    def measure(self, name: str | None, seconds: float) -> Phase:
        """Publish for some seconds, next to an attacker if there is a name."""
        for load in self.loads:
            load.reset()
        usage, held = self.server.usage, Held(self.server)
        before = most = usage.memory()
        cpu, began, events = usage.cpu(), time.monotonic(), 0
        with attacker(name, self.port, seconds) as process:
            while (due := began + events * PAUSE_SECONDS) < began + seconds or (
                process is not None and process.poll() is None
            ):
                time.sleep(max(0.0, due - time.monotonic()))
                self.publish()
                events += 1
                held.look()
                if events % 5 == 0:
                    most = max(most, usage.memory())
            share = (usage.cpu() - cpu) / (time.monotonic() - began)
            for load in self.loads:
                load.wait(events, ARRIVAL_SECONDS)
            outcome = None
            if process is not None:
                output, _ = process.communicate(timeout=ARRIVAL_SECONDS)
                outcome = Outcome(**json.loads(output))
        quiet, crowd = (load.report() for load in self.loads)
        grown = max(most, usage.memory()) - before
        return Phase(grown, share, quiet, crowd, held.longest, outcome)


@contextmanager
def attacker(
    name: str | None, port: int, seconds: float
) -> Iterator["subprocess.Popen[str] | None"]:
    """Run an attacker; end it at the end of the block."""
    if name is None:
        yield None
        return
    command = [sys.executable, "-m", "benchmarks.attackers", name, str(port), str(seconds)]
    with started(command, CLIENT_CORE, stdout=subprocess.PIPE, text=True) as process:
        yield process


@contextmanager
def prepared(workspace: Workspace, route: str, clients: int) -> Iterator[Soak]:
    """Run the server, nginx if the route has it, and the clients."""
    ours = PEERS["ours"]
    with ours.start(workspace) as server, ours.publisher(workspace, server, clients) as publish:
        with on_core(SERVER_CORE):
            proxy = deployed(workspace, route, server)
        with proxy as port, Load(port) as quiet, Load(port) as crowd:
            everybody = ours.make_clients("ws", clients)
            for load, chosen in ((quiet, everybody[:1]), (crowd, everybody)):
                load.take(chosen)
                load.connect()
            yield Soak(server, port, [quiet, crowd], publish)


@contextmanager
def deployed(workspace: Workspace, route: str, server: Server) -> Iterator[int]:
    """Yield the port of a route; run nginx with the shipped configuration if the route has it."""
    if route == "directly":
        yield server.port
        return
    folder = workspace.folder / "nginx"
    folder.mkdir()
    with deployed_nginx(folder, [f"127.0.0.1:{server.port}"]) as port:
        yield port


def row(name: str, phase: Phase, without: Phase) -> list[str]:
    """Return the cells of a phase, compared with the one without a flood."""
    p99, usual = phase.quiet.p99 * 1e3, without.quiet.p99 * 1e3
    cut = "-"
    if phase.outcome is not None:
        kept = ATTACKS[name].kept
        times = f"{phase.held:.2f} s ({phase.outcome.connections} times)"
        cut = f"kept {kept}" if kept else times
    ratio = f" ({p99 / usual:.1f} x)" if phase is not without else ""
    grown = f"{phase.grown / 1e3:+.1f} MB"
    return [name, grown, f"{phase.cpu:.0%}", f"{p99:.1f} ms{ratio}", cut, str(phase.lost)]


def problems(name: str, phase: Phase) -> list[str]:
    """Return why a phase fails."""
    found = []
    if phase.lost:
        found.append(f"{phase.lost} events or clients were lost")
    if phase.grown > GROWTH_KB:
        found.append(f"the server has grown by {phase.grown:,.0f} KB, not {GROWTH_KB:,.0f}")
    if not ATTACKS[name].kept and phase.held >= PATIENCE_SECONDS:
        found.append("the attacker was not cut")
    return [f"{name}: {each}" for each in found]


def table(cells: list[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each flood")
    parser.add_argument("--clients", type=int, default=200)
    options = parser.parse_args()
    exit_on_sigterm()
    routes = ["directly"]
    if nginx_path() is None:
        print(f"through nginx: skipped, it needs {GET_NGINX}")
    else:
        routes.append("through nginx")
    failed: list[str] = []
    print(describe())
    with tempfile.TemporaryDirectory() as folder, prepare(Path(folder)) as workspace:
        for route in routes:
            Path(folder).chmod(0o755)
            failed += [f"{route}, {each}" for each in soak(workspace, route, options)]
    print(
        f"\ntargets: growth at most {GROWTH_KB / 1e3:.0f} MB, p99 below {P99_MS:.0f} ms on a "
        f"machine without other work, cut within {CUT_SECONDS:.0f} s, nothing lost"
    )
    if failed:
        sys.exit("\n".join(failed))


def soak(workspace: Workspace, route: str, options: argparse.Namespace) -> list[str]:
    """Run all floods on one route; return what has failed."""
    failed: list[str] = []
    with prepared(workspace, route, options.clients) as prepared_soak:
        prepared_soak.measure(None, options.seconds)  # fills buffers and caches
        without = prepared_soak.measure(None, options.seconds)
        print(f"\n{route}:\n\n{table(list(HEADING))}\n{table(['---'] * len(HEADING))}")
        print(table(row("none", without, without)), flush=True)
        for name in ATTACKS:
            try:
                phase = prepared_soak.measure(name, options.seconds)
            except LoadError as error:
                failed.append(f"{name}: {error}")
                break
            print(table(row(name, phase, without)), flush=True)
            failed += problems(name, phase)
    return failed


if __name__ == "__main__":
    main()
