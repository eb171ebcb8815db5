"""What one client that never reads costs the server and the clients that do read.

    python -m benchmarks.stalled --clients 1000

Events of 12 KB are published, at most 50 per second, first without the stalled client, then with
it, then without it again.
The kernel buffers some megabytes for that client, the server buffers ``LIMITS["buffer_bytes"]``,
and after 10 more seconds it closes the connection.
In the end the client reads: either its connection was closed, or it catches up.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.fanout import TRANSPORTS
from benchmarks.load import Load
from benchmarks.peers import PEERS, Server, Workspace, prepare
from benchmarks.publishers import Publisher
from benchmarks.report import Report, options

SIZE = 12_000  # bytes of JSON per event, which soon fill the kernel's buffer
PAUSE_SECONDS = 0.02
PART = 100  # events whose latencies are evaluated together
EVENTS = 1_200  # per phase: 14 MB, over 24 s
WARM_EVENTS = 300  # until the server's buffer of recent frames has its full size
BUFFER_BYTES = 1_048_576  # LIMITS["buffer_bytes"]
CATCH_UP_SECONDS = 15.0


@dataclass(frozen=True)
class Phase:
    """The latencies of the other clients, and the server's maximum growth in KB."""

    p50: float
    p99: float
    grown: float


def phase(server: Server, load: Load, publish: Publisher, events: int) -> Phase:
    """Publish each event when the previous one has been received; return the median latencies."""
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


def outcome_of(load: Load, publish: Publisher, number: int) -> str:
    """Make the client read, and return what happens to it."""
    load.wake(number, 1)
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while True:
        one: dict[str, Any] = load.client(number)
        if one["state"] == 0:
            return f"closed with {one['code']}" if one["code"] else "closed by the server"
        if one["last"] == publish.number - 1:
            return f"caught up with all {EVENTS} events"
        if time.monotonic() > deadline:
            return f"STUCK at event {one['last']} of {publish.number}"
        time.sleep(0.05)


def run(workspace: Workspace, report: Report, transport: str, count: int) -> None:
    """Measure the three phases."""
    ours = PEERS["ours"]
    with (
        ours.start(workspace) as server,
        Load(server.port) as load,
        ours.publisher(workspace, server, count) as publish,
    ):
        crowd = ours.make_clients(transport, count)
        load.take([*crowd, replace(crowd[0], is_stalled=True)])
        load.connect(0, count)
        phase(server, load, publish, WARM_EVENTS)
        first = phase(server, load, publish, EVENTS)
        load.connect(count)
        with_it = phase(server, load, publish, EVENTS)
        outcome = outcome_of(load, publish, count)
        last = phase(server, load, publish, EVENTS // 2)
        lost = load.report().closed - outcome.startswith("closed")
    without = statistics.mean([first.p99, last.p99])
    what = f"{count:,} {TRANSPORTS[transport]}s"
    p50s = f"{first.p50 * 1e3:.1f}, {with_it.p50 * 1e3:.1f}, {last.p50 * 1e3:.1f} ms"
    p99s = f"{first.p99 * 1e3:.1f}, {with_it.p99 * 1e3:.1f}, {last.p99 * 1e3:.1f} ms"
    report.figure(f"{what}, p50 before, with and after a client that never reads", ours.title, p50s)
    report.figure(
        f"{what}, p99 before, with and after that client",
        ours.title,
        p99s,
        without=without,
        p99=with_it.p99,
    )
    grown = f"{with_it.grown:.0f} KB (before: {first.grown:.0f} KB)"
    report.figure(f"{what}, memory growth of the server meanwhile", ours.title, grown)
    report.figure(f"{what}, the client that never reads", ours.title, outcome)
    extra = max(0.0, with_it.grown - first.grown)
    for text, measured, limit, unit in (
        (
            "p99 with a client that never reads compared with without",
            with_it.p99 / without,
            1.5,
            "x",
        ),
        (
            "memory taken by that client compared with its buffer limit",
            extra * 1e3 / BUFFER_BYTES,
            1.0,
            "x",
        ),
        ("stuck or other clients closed", float(lost + ("STUCK" in outcome)), 0.0, "clients"),
    ):
        report.target(f"{what}, {text}", measured, limit, unit)


def main() -> None:
    chosen = options("stalled", clients=1_000, transport="ws,sse")
    report = Report("stalled")
    with tempfile.TemporaryDirectory() as folder, prepare(Path(folder)) as workspace:
        for transport in ["ws"] if chosen.quick else chosen.transport.split(","):
            run(workspace, report, transport, chosen.clients)
    report.save(chosen.json)


if __name__ == "__main__":
    main()
