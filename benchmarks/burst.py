"""A burst of events beside as many single ones: what a delivery costs the server.

    python -m benchmarks.burst --clients 1000 --transport ws,sse --peers ours,nchan

A burst is published at once, by ``publish_many()`` for ours, or one event after the other without
waiting for anybody, as views do that are called at the same time.
Bursts and single events take turns.
"""

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.fanout import SETTLE_SECONDS, TRANSPORTS, Following, following
from benchmarks.load import LoadError
from benchmarks.peers import PEERS, Place, chosen, place
from benchmarks.publishers import GUARD_SECONDS
from benchmarks.report import Report, numbers, options

EVENTS = 100  # a burst
TOO_LONG = 30.0  # seconds that a burst may take; who needs more is left out
SLOW = 5.0  # seconds; who needs more has one round
WAYS = {"at once": True, "one after the other": False}


def burst(each: Following, at_once: bool) -> tuple[float, float]:
    """Publish a burst; return the seconds of a core a delivery, and those until all have it."""
    each.load.reset()
    before, began = each.server.usage.cpu(), time.monotonic()
    each.publish(EVENTS, at_once=at_once)
    each.load.wait(EVENTS, GUARD_SECONDS)
    took = time.monotonic() - began
    time.sleep(SETTLE_SECONDS)
    return (each.server.usage.cpu() - before) / each.load.report().events, took


def run(each: Following, report: Report, what: str, rounds: int, has_aim: bool) -> None:
    """Measure one peer."""
    title = each.peer.title
    each.warm_up()
    single = each.measure(1)
    if (expected := EVENTS * single.p50) > TOO_LONG:
        report.figure(f"{what}, CPU a delivery at once", title, f"some {expected:.0f} s a burst")
        return
    singles: list[float] = []
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(1 if expected > SLOW else rounds):
        singles.append(each.measure(each.events).cpu)
        for way, at_once in WAYS.items():
            found[way].append(burst(each, at_once))
    alone = statistics.median(singles)
    report.figure(f"{what}, CPU a delivery of single events", title, _us(alone), cpu=alone)
    for way, bursts in found.items():
        cpu, took = (statistics.median(column) for column in zip(*bursts, strict=True))
        shown = f"{_us(cpu)}, all after {took * 1e3:.0f} ms"
        report.figure(f"{what}, CPU a delivery {way}", title, shown, cpu=cpu, seconds=took)
        if has_aim:
            report.aim(f"{what}, {way}: CPU a delivery to that of single ones", cpu / alone, 0.5)


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs"


def compare(here: Place, report: Report, names: list[str], transport: str, count: int) -> None:
    """Measure the peers, one after the other."""
    what = f"burst of {EVENTS} to {count:,} {TRANSPORTS[transport]}s"
    for peer in chosen(names):
        if transport not in peer.clients or count > peer.most:
            continue
        with ExitStack() as stack:
            try:
                each = stack.enter_context(following(here, peer, transport, count))
            except LoadError as error:
                report.figure(what, peer.title, str(error))
                continue
            with each.noting_problems():
                run(each, report, what, 5, peer.name == "ours" and count == 1_000)
            if each.problem:
                report.figure(what, peer.title, each.problem)


def main() -> None:
    chosen_options = options("burst", clients="", transport="ws,sse", peers=",".join(PEERS))
    quick = chosen_options.quick
    counts = numbers(chosen_options.clients) or ([1_000] if quick else [500, 1_000, 4_000, 16_000])
    names = ["ours"] if quick else chosen_options.peers.split(",")
    report = Report("burst")
    with tempfile.TemporaryDirectory() as folder, place(Path(folder)) as here:
        for transport in chosen_options.transport.split(","):
            for count in counts:
                compare(here, report, names, transport, count)
    report.save(chosen_options.json)


if __name__ == "__main__":
    main()
