"""What it costs a server to deliver one event to thousands of clients, and how long that takes.

    python -m benchmarks.fanout --clients 500,4000,16000 --transport ws,sse --peers ours,nchan

Another process publishes; the next event follows when every client has received the previous one.
All servers run at the same time with all their clients, and take turns, so that other load on the
machine affects all of them.
CPU time is that of the server process alone.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Load, LoadError
from benchmarks.machine import has_files_for
from benchmarks.peers import PEERS, Peer, Server, Workspace, chosen, prepare
from benchmarks.publishers import DELIVERY_TIMEOUT_SECONDS, Publisher, PublishFailed
from benchmarks.report import Report, numbers, options

EVENTS = 20  # per round
ROUND_SECONDS = 3.0  # a round has fewer events if EVENTS would take longer
ONE_IS_ENOUGH = 10.0  # seconds; a peer that needs longer for one event is measured only once
SETTLE_SECONDS = 0.05  # for the work that a server does after the last write
TRANSPORTS = {"ws": "WebSocket", "sse": "event stream"}


@dataclass(frozen=True)
class Round:
    """The measurements of one round.

    Attributes:
        cpu, client_cpu: CPU seconds per delivery of the server, and of the load client.
        p50, p99, max: seconds from publish to receipt.
        wrong: events that clients missed or received twice.
    """

    cpu: float
    client_cpu: float
    p50: float
    p99: float
    max: float
    wrong: int


class Trial:
    """A server with its subscribed clients and its publisher.

    Attributes:
        rounds: the rounds measured so far.
        problem: why the server failed, so that no more rounds are measured; empty if it did not.
        is_slow: one event took so long that no more rounds are measured.
    """

    def __init__(self, peer: Peer, server: Server, load: Load, publish: Publisher) -> None:
        self.peer, self.server, self.load, self.publish = peer, server, load, publish
        self.count = len(load.clients)
        self.events = EVENTS
        self.rounds: list[Round] = []
        self.problem = ""
        self.is_slow = False

    def warm_up(self) -> None:
        """Deliver events so that caches are filled, and choose the number of events per round."""
        began = time.monotonic()
        first = self.measure(1)
        if time.monotonic() - began > ONE_IS_ENOUGH:
            self.is_slow = True
            self.rounds.append(first)
            return
        began = time.monotonic()
        self.measure(1)
        self.events = max(1, min(EVENTS, int(ROUND_SECONDS / (time.monotonic() - began))))

    def measure(self, events: int) -> Round:
        """Publish events one after the other, and measure their deliveries."""
        self.load.reset()
        before, client_before = self.server.usage.cpu(), self.load.report().work
        for number in range(1, events + 1):
            self.publish()
            self.load.wait(number, DELIVERY_TIMEOUT_SECONDS)
        time.sleep(SETTLE_SECONDS)
        cpu, seen = self.server.usage.cpu() - before, self.load.report()
        client_cpu, deliveries = seen.work - client_before, events * self.count
        wrong = max(seen.holes + seen.repeats, abs(seen.events - deliveries))
        return Round(cpu / deliveries, client_cpu / deliveries, seen.p50, seen.p99, seen.max, wrong)

    def turn(self) -> None:
        """Measure a round, unless the peer has failed or is too slow."""
        if not self.problem and not self.is_slow:
            with self.noting_problems():
                self.rounds.append(self.measure(self.events))

    @contextmanager
    def noting_problems(self) -> Iterator[None]:
        """Record a failure of this server, so that the other servers can continue."""
        try:
            yield
        except (LoadError, PublishFailed) as error:
            self.problem = str(error)

    def median(self, name: str) -> float:
        """Return the median of a measurement over the rounds."""
        return float(statistics.median(getattr(each, name) for each in self.rounds))

    def add_to(self, report: Report, what: str) -> None:
        """Add the figures to a report."""
        title = self.peer.title
        if self.problem:
            report.figure(what, title, self.problem)
            return
        worst, wrong = (
            max(each.max for each in self.rounds),
            sum(each.wrong for each in self.rounds),
        )
        cpu, p50, p99 = (self.median(name) for name in ("cpu", "p50", "p99"))
        notes = f", {wrong} events missed or received twice" if wrong else ""
        latencies = f"{p50 * 1e3:.0f} / {p99 * 1e3:.0f} / {worst * 1e3:.0f} ms{notes}"
        client = self.median("client_cpu")
        report.figure(
            f"{what}, CPU per delivery", title, f"{cpu * 1e6:.1f} µs", cpu=cpu, client_cpu=client
        )
        report.figure(f"{what}, p50 / p99 / max", title, latencies, p50=p50, p99=p99, max=worst)


@contextmanager
def start_trial(workspace: Workspace, peer: Peer, transport: str, count: int) -> Iterator[Trial]:
    """Run a peer with ``count`` subscribed clients.

    Raises:
        LoadError: some clients could not connect or subscribe.
    """
    with (
        peer.start(workspace) as server,
        Load(server.port) as load,
        peer.publisher(workspace, server, count) as publish,
    ):
        load.take(peer.make_clients(transport, count))
        try:
            load.connect()
        except LoadError as error:
            raise LoadError(f"{error}; its log ends: {server.last_log_line()}") from error
        yield Trial(peer, server, load, publish)


def compare(
    workspace: Workspace,
    report: Report,
    pairs: Sequence[tuple[Peer, int]],
    transport: str,
    rounds: int,
) -> Mapping[tuple[str, int], Trial]:
    """Measure peers in turns, each with its number of clients; return those that did not fail."""
    trials: list[Trial] = []
    with ExitStack() as stack:
        for peer, count in pairs:
            if transport not in peer.clients or count > peer.most:
                continue
            try:
                each = stack.enter_context(start_trial(workspace, peer, transport, count))
            except LoadError as error:
                report.figure(f"{TRANSPORTS[transport]}, {count:,} clients", peer.title, str(error))
                continue
            trials.append(each)
            with each.noting_problems():
                each.warm_up()
        for number in range(rounds):
            for each in trials:
                if each.events == EVENTS or number % 3 == 0:  # slow peers run less often
                    each.turn()
        for each in trials:
            each.add_to(report, f"{TRANSPORTS[transport]}, {each.count:,} clients")
    return {(each.peer.name, each.count): each for each in trials if not each.problem}


def check(report: Report, transport: str, count: int, by: Mapping[str, Trial]) -> None:
    """Compare this package with its peers."""
    clients = f"{count:,} {TRANSPORTS[transport]}s"
    if count != 4_000 or "ours" not in by:
        return
    ours = by["ours"]

    def target(what: str, name: str, limit: float) -> None:
        if name in by:
            measured = ours.median(what) / by[name].median(what)
            text = f"{clients}, {'CPU per delivery' if what == 'cpu' else what}"
            report.target(f"{text} compared with {PEERS[name].title}", measured, limit)

    target("cpu", "nchan", 0.95)
    target("p99", "nchan", 1.0)
    if transport == "ws":
        target("cpu", "plain-redis", 1 / 35)
        if "uvicorn" in by:
            text = f"{clients}, CPU per delivery of realtime on uvicorn compared with Daphne"
            report.target(text, by["uvicorn"].median("cpu") / ours.median("cpu"), 2.0)


def check_growth(workspace: Workspace, report: Report, transport: str, rounds: int) -> None:
    """Compare many clients with few clients, in turns."""
    few, many = 500, 16_000
    name = TRANSPORTS[transport]
    quiet = Report("growth")
    ours = PEERS["ours"]
    by = compare(workspace, quiet, [(ours, few), (ours, many)], transport, rounds)
    if len(by) == 2:
        ratio = by["ours", many].median("cpu") / by["ours", few].median("cpu")
        report.target(f"CPU per delivery, {many:,} {name}s compared with {few:,}", ratio, 1.3)


def main() -> None:
    chosen_options = options(
        "fanout", clients="", transport="ws,sse", peers=",".join(PEERS), rounds=9
    )
    quick = chosen_options.quick
    counts = numbers(chosen_options.clients) or ([4_000] if quick else [500, 4_000, 16_000])
    names = ["ours", "nchan", "plain-redis"] if quick else chosen_options.peers.split(",")
    rounds = 5 if quick else chosen_options.rounds
    report = Report("fanout")
    peers = chosen(names)
    with tempfile.TemporaryDirectory() as folder, prepare(Path(folder)) as workspace:
        for transport in chosen_options.transport.split(","):
            for count in counts:
                if not has_files_for(count):
                    print(f"{count:,} clients: skipped, the limit of open files is too low")
                    continue
                pairs = [(peer, count) for peer in peers]
                turns = min(rounds, 3) if count > 4_000 else rounds
                found = compare(workspace, report, pairs, transport, turns)
                check(report, transport, count, {name: each for (name, _), each in found.items()})
            if {500, 16_000} <= set(counts) and "ours" in names and has_files_for(16_000):
                check_growth(workspace, report, transport, rounds)
    report.save(chosen_options.json)


if __name__ == "__main__":
    main()
