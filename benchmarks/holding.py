"""What connections cost that are only there: memory, and time of a core while nothing happens.

    python -m benchmarks.holding --clients 4000 --idle 10000 --seconds 190

Memory is what the process grew by while the clients came, after others had come before; each client
follows, and has had an event.
Then more come, and all servers idle at the same time; the processor's time is each server's own.
"""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.capacity import OPTIONS
from benchmarks.fanout import TRANSPORTS, Following
from benchmarks.load import Load, LoadError
from benchmarks.machine import has_files_for
from benchmarks.peers import Peer, Place, chosen, place
from benchmarks.publishers import PublishFailed
from benchmarks.report import Report, options

WARM = 200  # clients before those whose memory is measured
SETTLE_SECONDS = 1.0
MEMORY = {"ws": 28.0, "sse": 20.0}  # KB that a client may take


def hold(
    stack: ExitStack, here: Place, report: Report, peer: Peer, transport: str, counts: list[int]
) -> Following | None:
    """Measure the memory of clients, and let more come for the measure of idling."""
    count, total = counts
    what = f"{count:,} {TRANSPORTS[transport]}s, memory each"
    server = stack.enter_context(peer.start(here))
    load = stack.enter_context(Load(server.port))
    publish = stack.enter_context(peer.publisher(here, server, total + WARM))
    try:
        load.take(peer.crowd(transport, total + WARM))
        load.connect(0, WARM)
        publish()
        load.wait(1)
        time.sleep(SETTLE_SECONDS)
        before = server.usage.memory()
        load.connect(WARM, count)
        load.reset()
        publish()
        load.wait(1)
        time.sleep(SETTLE_SECONDS)
        each = (server.usage.memory() - before) / count
        report.figure(what, peer.title, f"{each:.1f} KB", kilobytes=each)
        if peer.name == "ours":
            name = f"{count:,} {TRANSPORTS[transport]}s, memory each (absolute)"
            report.aim(name, each, MEMORY[transport], "KB")
        if total > count:
            load.connect(WARM + count)
    except (LoadError, PublishFailed) as error:
        report.figure(what, peer.title, str(error))
        return None
    return Following(peer, server, load, publish)


def idle(report: Report, held: list[Following], transport: str, seconds: float) -> None:
    """Measure what servers use while nothing happens."""
    before = [each.server.usage.cpu() for each in held]
    time.sleep(seconds)
    for each, cpu in zip(held, before, strict=True):
        share = (each.server.usage.cpu() - cpu) / seconds
        closed = each.load.report().closed
        what = f"{each.count - WARM:,} idle {TRANSPORTS[transport]}s"
        shown = f"{share:.1%} of a core" + (f", {closed} were closed" if closed else "")
        report.figure(what, each.peer.title, shown, share=share)
        if each.peer.name == "ours":
            flags = " ".join(OPTIONS)
            report.aim(f"{what}, `daphne {flags}` (absolute)", share * 100, 5.0, "% of a core")


def main() -> None:
    chosen_options = options(
        "holding",
        clients=4_000,
        idle=10_000,
        seconds=190,  # a ping to each client, every 180 s, and nine heartbeats
        transport="ws,sse",
        peers="ours,uvicorn,nchan,plain-redis,node",
    )
    total = chosen_options.clients if chosen_options.quick else chosen_options.idle
    if not has_files_for(total + WARM):
        print(f"{total:,} clients: skipped, this user may not open as many files")
        return
    report = Report("holding")
    names = "ours,plain-redis" if chosen_options.quick else chosen_options.peers
    peers = chosen(names.split(","))
    with tempfile.TemporaryDirectory() as folder, place(Path(folder)) as here:
        for transport in chosen_options.transport.split(","):
            with ExitStack() as stack:
                counts = [chosen_options.clients, total]
                all_held = [
                    hold(stack, here, report, peer, transport, counts)
                    for peer in peers
                    if transport in peer.clients
                ]
                held = [each for each in all_held if each is not None]
                if not chosen_options.quick:
                    idle(report, held, transport, chosen_options.seconds)
    report.save(chosen_options.json)


if __name__ == "__main__":
    main()
