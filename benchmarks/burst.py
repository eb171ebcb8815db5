"""What a delivery costs the server in a burst of events, compared with single events.

    python -m benchmarks.burst --clients 1000 --transport ws,sse --peers ours,nchan

A burst is published at once (by ``publish_many()`` on this package's servers), or one event after
the other without waiting for its delivery, as simultaneous views do.
Bursts and single events take turns.
"""

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.fanout import SETTLE_SECONDS, TRANSPORTS, Trial, start_trial
from benchmarks.load import LoadError
from benchmarks.peers import PEERS, Workspace, chosen, prepare
from benchmarks.publishers import DELIVERY_TIMEOUT_SECONDS
from benchmarks.report import Report, numbers, options

EVENTS = 100  # per burst
TOO_LONG = 30.0  # seconds; a peer whose burst would take longer is left out
SLOW = 5.0  # seconds; a peer whose burst takes longer runs one round only
WAYS = {"at once": True, "one after the other": False}


def burst(trial: Trial, at_once: bool) -> tuple[float, float]:
    """Publish a burst; return CPU seconds per delivery, and seconds until the last delivery."""
    trial.load.reset()
    before, began = trial.server.usage.cpu(), time.monotonic()
    trial.publish(EVENTS, at_once=at_once)
    trial.load.wait(EVENTS, DELIVERY_TIMEOUT_SECONDS)
    took = time.monotonic() - began
    time.sleep(SETTLE_SECONDS)
    return (trial.server.usage.cpu() - before) / trial.load.report().events, took


def run(trial: Trial, report: Report, what: str, rounds: int, has_target: bool) -> None:
    """Measure one peer."""
    title = trial.peer.title
    trial.warm_up()
    single = trial.measure(1)
    if (expected := EVENTS * single.p50) > TOO_LONG:
        report.figure(
            f"{what}, CPU per delivery, events published at once",
            title,
            f"about {expected:.0f} s per burst",
        )
        return
    singles: list[float] = []
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(1 if expected > SLOW else rounds):
        singles.append(trial.measure(trial.events).cpu)
        for way, at_once in WAYS.items():
            found[way].append(burst(trial, at_once))
    alone = statistics.median(singles)
    report.figure(f"{what}, CPU per delivery of single events", title, _us(alone), cpu=alone)
    for way, bursts in found.items():
        cpu, took = (statistics.median(column) for column in zip(*bursts, strict=True))
        shown = f"{_us(cpu)}, all after {took * 1e3:.0f} ms"
        label = f"{what}, CPU per delivery, events published {way}"
        report.figure(label, title, shown, cpu=cpu, seconds=took)
        if has_target:
            report.target(
                f"{what}, {way}: CPU per delivery compared with single events", cpu / alone, 0.5
            )


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs"


def compare(
    workspace: Workspace, report: Report, names: list[str], transport: str, count: int
) -> None:
    """Measure the peers, one after the other."""
    what = f"burst of {EVENTS} to {count:,} {TRANSPORTS[transport]}s"
    for peer in chosen(names):
        if transport not in peer.clients or count > peer.most:
            continue
        with ExitStack() as stack:
            try:
                trial = stack.enter_context(start_trial(workspace, peer, transport, count))
            except LoadError as error:
                report.figure(what, peer.title, str(error))
                continue
            with trial.noting_problems():
                run(trial, report, what, 5, peer.name == "ours" and count == 1_000)
            if trial.problem:
                report.figure(what, peer.title, trial.problem)


def main() -> None:
    chosen_options = options("burst", clients="", transport="ws,sse", peers=",".join(PEERS))
    quick = chosen_options.quick
    counts = numbers(chosen_options.clients) or ([1_000] if quick else [500, 1_000, 4_000, 16_000])
    names = ["ours"] if quick else chosen_options.peers.split(",")
    report = Report("burst")
    with tempfile.TemporaryDirectory() as folder, prepare(Path(folder)) as workspace:
        for transport in chosen_options.transport.split(","):
            for count in counts:
                compare(workspace, report, names, transport, count)
    report.save(chosen_options.json)


if __name__ == "__main__":
    main()
