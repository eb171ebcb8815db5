"""What it costs a server to bring one event to thousands of clients, and how long that takes.

    python -m benchmarks.fanout --clients 500,4000,16000 --transport ws,sse --peers ours,nchan

Another process publishes; the next event follows when every client has the one before.
All servers run at once with all their clients, and take turns, so that other load on the machine
meets all of them.
The processor's time is that of the server process alone.
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
from benchmarks.peers import PEERS, Peer, Place, Server, chosen, place
from benchmarks.publishers import GUARD_SECONDS, Publisher, PublishFailed
from benchmarks.report import Report, numbers, options

EVENTS = 20  # a round
ROUND_SECONDS = 3.0  # a round has fewer events where they would take longer
ONE_IS_ENOUGH = 10.0  # seconds; who needs as many for an event is measured by that event alone
SETTLE_SECONDS = 0.05  # in which a server ends what it does after the last write
TRANSPORTS = {"ws": "WebSocket", "sse": "event stream"}


@dataclass(frozen=True)
class Round:
    """What a server did in a round.

    Attributes:
        cpu, client_cpu: seconds of a core that a delivery took the server, and the load client.
        p50, p99, max: seconds from the publish to the receipt.
        wrong: events that clients missed, or got twice.
    """

    cpu: float
    client_cpu: float
    p50: float
    p99: float
    max: float
    wrong: int


class Following:
    """A server, its clients, who follow, and its publisher.

    Attributes:
        rounds: those that were measured.
        problem: why there are no more of them.
    """

    def __init__(self, peer: Peer, server: Server, load: Load, publish: Publisher) -> None:
        self.peer, self.server, self.load, self.publish = peer, server, load, publish
        self.count = len(load.clients)
        self.events = EVENTS
        self.rounds: list[Round] = []
        self.problem = ""
        self.is_slow = False

    def warm_up(self) -> None:
        """Have what is made once be there, and see how long an event takes."""
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
        """Publish events one after the other."""
        self.load.reset()
        before, client_before = self.server.usage.cpu(), self.load.report().work
        for number in range(1, events + 1):
            self.publish()
            self.load.wait(number, GUARD_SECONDS)
        time.sleep(SETTLE_SECONDS)
        cpu, seen = self.server.usage.cpu() - before, self.load.report()
        client_cpu, deliveries = seen.work - client_before, events * self.count
        wrong = max(seen.holes + seen.repeats, abs(seen.events - deliveries))
        return Round(cpu / deliveries, client_cpu / deliveries, seen.p50, seen.p99, seen.max, wrong)

    def turn(self) -> None:
        """Measure a round, if it makes sense."""
        if not self.problem and not self.is_slow:
            with self.noting_problems():
                self.rounds.append(self.measure(self.events))

    @contextmanager
    def noting_problems(self) -> Iterator[None]:
        """Note it if this server cannot do what is asked; the others go on."""
        try:
            yield
        except (LoadError, PublishFailed) as error:
            self.problem = str(error)

    def middle(self, name: str) -> float:
        """Return the median of the rounds."""
        return float(statistics.median(getattr(each, name) for each in self.rounds))

    def tell(self, report: Report, what: str) -> None:
        """Report what was measured."""
        title = self.peer.title
        if self.problem:
            report.figure(what, title, self.problem)
            return
        worst, wrong = (
            max(each.max for each in self.rounds),
            sum(each.wrong for each in self.rounds),
        )
        cpu, p50, p99 = (self.middle(name) for name in ("cpu", "p50", "p99"))
        notes = f", {wrong} events missed or twice" if wrong else ""
        latencies = f"{p50 * 1e3:.0f} / {p99 * 1e3:.0f} / {worst * 1e3:.0f} ms{notes}"
        client = self.middle("client_cpu")
        report.figure(
            f"{what}, CPU a delivery", title, f"{cpu * 1e6:.1f} µs", cpu=cpu, client_cpu=client
        )
        report.figure(f"{what}, p50 / p99 / max", title, latencies, p50=p50, p99=p99, max=worst)


@contextmanager
def following(here: Place, peer: Peer, transport: str, count: int) -> Iterator[Following]:
    """Run a peer with so many clients who follow.

    Raises:
        LoadError: they could not.
    """
    with (
        peer.start(here) as server,
        Load(server.port) as load,
        peer.publisher(here, server, count) as publish,
    ):
        load.take(peer.crowd(transport, count))
        try:
            load.connect()
        except LoadError as error:
            raise LoadError(f"{error}; its log ends: {server.last_words()}") from error
        yield Following(peer, server, load, publish)


def compare(
    here: Place, report: Report, crowds: Sequence[tuple[Peer, int]], transport: str, rounds: int
) -> Mapping[tuple[str, int], Following]:
    """Measure peers with so many clients each, in turns; return those that could be measured."""
    all_following: list[Following] = []
    with ExitStack() as stack:
        for peer, count in crowds:
            if transport not in peer.clients or count > peer.most:
                continue
            try:
                each = stack.enter_context(following(here, peer, transport, count))
            except LoadError as error:
                report.figure(f"{TRANSPORTS[transport]}, {count:,} clients", peer.title, str(error))
                continue
            all_following.append(each)
            with each.noting_problems():
                each.warm_up()
        for number in range(rounds):
            for each in all_following:
                if each.events == EVENTS or number % 3 == 0:  # the slow ones less often
                    each.turn()
        for each in all_following:
            each.tell(report, f"{TRANSPORTS[transport]}, {each.count:,} clients")
    return {(each.peer.name, each.count): each for each in all_following if not each.problem}


def check(report: Report, transport: str, count: int, by: Mapping[str, Following]) -> None:
    """Compare us with the peers."""
    who = f"{count:,} {TRANSPORTS[transport]}s"
    if count != 4_000 or "ours" not in by:
        return
    ours = by["ours"]

    def aim(what: str, name: str, limit: float, turned: bool = False) -> None:
        if name in by:
            measured = ours.middle(what) / by[name].middle(what)
            text = f"{who}, {'CPU a delivery' if what == 'cpu' else what}"
            if turned:
                report.aim(f"{text}: {PEERS[name].title} to ours", 1 / measured, limit)
            else:
                report.aim(f"{text}: ours to {PEERS[name].title}", measured, limit)

    aim("cpu", "nchan", 0.95)
    aim("p99", "nchan", 1.0)
    if transport == "ws":
        aim("cpu", "plain-redis", 1 / 35)
        aim("cpu", "uvicorn", 2.0, turned=True)


def check_growth(here: Place, report: Report, transport: str, rounds: int) -> None:
    """Compare many clients with few, in turns."""
    few, many = 500, 16_000
    name = TRANSPORTS[transport]
    quiet = Report("growth")
    ours = PEERS["ours"]
    by = compare(here, quiet, [(ours, few), (ours, many)], transport, rounds)
    if len(by) == 2:
        ratio = by["ours", many].middle("cpu") / by["ours", few].middle("cpu")
        report.aim(f"CPU a delivery, {many:,} {name}s to {few:,}", ratio, 1.3)


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
    with tempfile.TemporaryDirectory() as folder, place(Path(folder)) as here:
        for transport in chosen_options.transport.split(","):
            for count in counts:
                if not has_files_for(count):
                    print(f"{count:,} clients: skipped, this user may not open as many files")
                    continue
                crowds = [(peer, count) for peer in peers]
                turns = min(rounds, 3) if count > 4_000 else rounds
                found = compare(here, report, crowds, transport, turns)
                check(report, transport, count, {name: each for (name, _), each in found.items()})
            if {500, 16_000} <= set(counts) and "ours" in names and has_files_for(16_000):
                check_growth(here, report, transport, rounds)
    report.save(chosen_options.json)


if __name__ == "__main__":
    main()
