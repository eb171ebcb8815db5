"""What it costs a server to bring one event to thousands of clients, and how long that takes.

    python -m benchmarks.fanout --clients 500,4000,16000 --transport ws,sse --peers ours,nchan

Another process publishes; the next event follows when every client has the one before.
All servers run at once with all their clients, and take turns, so that other load on the machine
meets all of them.
The processor's time is that of the server process alone.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.load import Load, LoadError
from benchmarks.machine import describe, has_files_for, raise_file_limit
from benchmarks.peers import PEERS, Peer, Place, Server, chosen, place
from benchmarks.publishers import Publisher

EVENTS = 20  # a round
ROUND_SECONDS = 3.0  # a round has fewer events where they would take longer
GUARD_SECONDS = 120.0  # for one event to reach everybody
SETTLE_SECONDS = 0.05  # in which a server ends what it does after the last write


@dataclass(frozen=True)
class Figures:
    """What a peer did.

    Attributes:
        peer, transport, clients: of whom.
        events: deliveries to each client that were measured.
        cpu: seconds of a core a delivery took the server.
        p50, p99, max: seconds from the publish to the receipt.
        holes: events that clients missed.
        client_cpu: seconds of a core a delivery took the load client.
        problem: why there are no figures.
    """

    peer: str
    transport: str
    clients: int
    events: int = 0
    cpu: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0
    holes: int = 0
    client_cpu: float = 0.0
    problem: str = ""

    def __str__(self) -> str:
        start = f"{PEERS[self.peer].title:<30} {self.transport:<4} {self.clients:>6,} clients  "
        if self.problem:
            return start + self.problem
        holes = f"  {self.holes} events MISSED" if self.holes else ""
        return start + (
            f"{self.cpu * 1e6:7.2f} us a delivery  p50 {self.p50 * 1e3:7.1f}  "
            f"p99 {self.p99 * 1e3:7.1f}  max {self.max * 1e3:7.1f} ms  "
            f"(load client {self.client_cpu * 1e6:.1f} us){holes}"
        )


class Following:
    """A server, its clients, who follow, and its publisher."""

    def __init__(self, peer: Peer, server: Server, load: Load, publish: Publisher) -> None:
        self.peer, self.server, self.load, self.publish = peer, server, load, publish
        self.count = len(load.clients)
        self.events = EVENTS
        self.rounds: list[Figures] = []
        self.problem = ""

    def one(self, number: int) -> None:
        """Publish an event and wait for it; it is the one of this number since the last reset."""
        self.publish()
        self.load.wait(number, GUARD_SECONDS)

    def warm_up(self) -> None:
        """Have what is made once be there, and see how long an event takes."""
        self.load.reset()
        self.one(1)
        began = time.monotonic()
        self.one(2)
        self.events = max(1, min(EVENTS, int(ROUND_SECONDS / (time.monotonic() - began))))

    def measure(self) -> Figures:
        """Publish the events of a round one after the other."""
        self.load.reset()
        before, client_before = self.server.usage.cpu(), self.load.report().work
        for number in range(1, self.events + 1):
            self.one(number)
        time.sleep(SETTLE_SECONDS)
        cpu, seen = self.server.usage.cpu() - before, self.load.report()
        return Figures(
            self.peer.name,
            self.load.clients[0].kind,
            self.count,
            self.events,
            cpu / seen.events,
            seen.p50,
            seen.p99,
            seen.max,
            seen.holes,
            (seen.work - client_before) / seen.events,
        )

    def summary(self) -> Figures:
        """Return the medians of the rounds; the worst of their maxima."""
        if self.problem or not self.rounds:
            kind = self.load.clients[0].kind
            return Figures(self.peer.name, kind, self.count, problem=self.problem)
        middle = {
            name: statistics.median(getattr(each, name) for each in self.rounds)
            for name in ("cpu", "p50", "p99", "client_cpu")
        }
        return Figures(
            **asdict(self.rounds[0])
            | middle
            | {
                "events": sum(each.events for each in self.rounds),
                "max": max(each.max for each in self.rounds),
                "holes": sum(each.holes for each in self.rounds),
            }
        )


@contextmanager
def following(here: Place, peer: Peer, transport: str, count: int) -> Iterator[Following]:
    """Run a peer with so many clients who follow."""
    with (
        peer.start(here) as server,
        Load(server.port) as load,
        peer.publisher(here, server) as publish,
    ):
        load.take(peer.clients[transport].repeated(count))
        try:
            load.connect()
        except LoadError as error:
            raise LoadError(f"{error}; its log ends: {server.last_words()}") from error
        yield Following(peer, server, load, publish)


def compare(
    here: Place, peers: Sequence[Peer], transport: str, count: int, rounds: int
) -> list[Figures]:
    """Measure peers in turns."""
    done: list[Figures] = []
    with ExitStack() as stack:
        all_following: list[Following] = []
        for peer in peers:
            if transport not in peer.clients:
                continue
            try:
                each = stack.enter_context(following(here, peer, transport, count))
                all_following.append(each)
                each.warm_up()
            except LoadError as error:
                done.append(Figures(peer.name, transport, count, problem=str(error)))
                all_following = [other for other in all_following if other.peer is not peer]
        for _ in range(rounds):
            for each in all_following:
                if not each.problem:
                    try:
                        each.rounds.append(each.measure())
                    except LoadError as error:
                        each.problem = str(error)
        done += [each.summary() for each in all_following]
    return done


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout")
    parser.add_argument("--clients", default="500,4000,16000")
    parser.add_argument("--transport", default="ws,sse")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    raise_file_limit()
    print(describe(), flush=True)
    peers = chosen(options.peers.split(","))
    with tempfile.TemporaryDirectory() as folder, place(Path(folder)) as here:
        for transport in options.transport.split(","):
            for count in map(int, options.clients.split(",")):
                if not has_files_for(count):
                    print(f"{count:,} clients: skipped, this user may not open as many files")
                    continue
                for figures in compare(here, peers, transport, count, options.rounds):
                    print(figures, flush=True)


if __name__ == "__main__":
    main()
