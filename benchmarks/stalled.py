"""One client that never reads among many that do: what it costs the server, and the others.

    python -m benchmarks.stalled --clients 1000

Events of 12 KB come, at most 50 a second, first without the one that does not read, then with it,
then without it again.
The kernel takes some megabytes for it, the server keeps what ``LIMITS["buffer_bytes"]`` says, and
10 seconds later it ends the connection.
At the end it reads what there is: it was closed, or it catches up.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.fanout import TRANSPORTS
from benchmarks.load import Load
from benchmarks.peers import PEERS, Place, Server, place
from benchmarks.publishers import Publisher
from benchmarks.report import Report, options

SIZE = 12_000  # bytes of JSON an event, so that the kernel's buffer is soon full
PAUSE_SECONDS = 0.02
PART = 100  # events whose latencies are looked at together
EVENTS = 1_200  # a phase: 14 MB, over 24 s
WARM_EVENTS = 300  # until what the server keeps of a topic has its full size
BUFFER_BYTES = 1_048_576  # LIMITS["buffer_bytes"]
CATCH_UP_SECONDS = 15.0


@dataclass(frozen=True)
class Phase:
    """What others saw meanwhile, and by how many KB the server grew at most."""

    p50: float
    p99: float
    grown: float


def phase(server: Server, load: Load, publish: Publisher, events: int) -> Phase:
    """Publish events, each once the readers have the one before; the latencies are medians."""
    before = most = server.usage.memory()
    seen = []
    for _ in range(events // PART):
        load.reset()
        for number in range(1, PART + 1):
            due = time.monotonic() + PAUSE_SECONDS
            publish(size=SIZE)
            load.wait(number)
            if number % 10 == 0:
                most = max(most, server.usage.memory())
            time.sleep(max(0.0, due - time.monotonic()))
        seen.append(load.report())
    p50, p99 = (statistics.median(getattr(each, name) for each in seen) for name in ("p50", "p99"))
    return Phase(p50, p99, most - before)


def end_of(load: Load, publish: Publisher, number: int) -> str:
    """Let the client read, and say what became of it."""
    load.wake(number, 1)
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while True:
        one: dict[str, Any] = load.client(number)
        if one["state"] == 0:
            return f"closed with {one['code']}" if one["code"] else "closed while it did not read"
        if one["last"] == publish.number - 1:
            return f"caught up with all {EVENTS} events"
        if time.monotonic() > deadline:
            return f"STUCK at event {one['last']} of {publish.number}"
        time.sleep(0.05)


def run(here: Place, report: Report, transport: str, count: int) -> None:
    """Measure the three phases."""
    ours = PEERS["ours"]
    with (
        ours.start(here) as server,
        Load(server.port) as load,
        ours.publisher(here, server, count) as publish,
    ):
        crowd = ours.crowd(transport, count)
        load.take([*crowd, replace(crowd[0], is_stalled=True)])
        load.connect(0, count)
        phase(server, load, publish, WARM_EVENTS)
        first = phase(server, load, publish, EVENTS)
        load.connect(count)
        with_it = phase(server, load, publish, EVENTS)
        became = end_of(load, publish, count)
        last = phase(server, load, publish, EVENTS // 2)
        lost = load.report().closed - (became.startswith("closed"))
    without = statistics.mean([first.p99, last.p99])
    what = f"{count:,} {TRANSPORTS[transport]}s"
    p50s = f"{first.p50 * 1e3:.1f}, {with_it.p50 * 1e3:.1f}, {last.p50 * 1e3:.1f} ms"
    p99s = f"{first.p99 * 1e3:.1f}, {with_it.p99 * 1e3:.1f}, {last.p99 * 1e3:.1f} ms"
    report.figure(f"{what}, p50 without, with, without one that never reads", ours.title, p50s)
    report.figure(
        f"{what}, p99 without, with, without it", ours.title, p99s, without=without, p99=with_it.p99
    )
    grown = f"{with_it.grown:.0f} KB (without it {first.grown:.0f} KB)"
    report.figure(f"{what}, what the server grew by meanwhile", ours.title, grown)
    report.figure(f"{what}, the one that never reads", ours.title, became)
    extra = max(0.0, with_it.grown - first.grown)
    report.aim(f"{what}, p99 with one that never reads to without", with_it.p99 / without, 1.5)
    report.aim(f"{what}, memory taken by it to its buffer limit", extra * 1e3 / BUFFER_BYTES, 1.0)
    report.aim(f"{what}, stuck or others closed", float(lost + ("STUCK" in became)), 0.0, "clients")


def main() -> None:
    chosen = options("stalled", clients=1_000, transport="ws,sse")
    report = Report("stalled")
    with tempfile.TemporaryDirectory() as folder, place(Path(folder)) as here:
        for transport in ["ws"] if chosen.quick else chosen.transport.split(","):
            run(here, report, transport, chosen.clients)
    report.save(chosen.json)


if __name__ == "__main__":
    main()
