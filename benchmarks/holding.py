"""What idle connections cost: memory, and CPU time while nothing happens.

    python -m benchmarks.holding --clients 4000 --idle 10000 --seconds 190

Memory is the growth of the process while the clients connect, after others have warmed it up; each
client is subscribed and has received an event.
Then more clients connect, and all servers idle at the same time; CPU time is each server's own.
"""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.capacity import OPTIONS
from benchmarks.fanout import TRANSPORTS, Trial
from benchmarks.load import Load, LoadError
from benchmarks.machine import has_files_for
from benchmarks.peers import Peer, Workspace, chosen, prepare
from benchmarks.publishers import PublishFailed
from benchmarks.report import Report, options

WARM = 200  # clients that connect before the measured ones
SETTLE_SECONDS = 1.0
MEMORY = {"ws": 28.0, "sse": 20.0}  # KB per client; the targets


def hold(
    stack: ExitStack,
    workspace: Workspace,
    report: Report,
    peer: Peer,
    transport: str,
    counts: list[int],
) -> Trial | None:
    """Measure the memory of clients, and connect more of them for ``idle()``."""
    count, total = counts
    what = f"{count:,} {TRANSPORTS[transport]}s, memory per client"
    server = stack.enter_context(peer.start(workspace))
    load = stack.enter_context(Load(server.port))
    publish = stack.enter_context(peer.publisher(workspace, server, total + WARM))
    try:
        load.take(peer.make_clients(transport, total + WARM))
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
            name = f"{count:,} {TRANSPORTS[transport]}s, memory per client (absolute)"
            report.target(name, each, MEMORY[transport], "KB")
        if total > count:
            load.connect(WARM + count)
    except (LoadError, PublishFailed) as error:
        report.figure(what, peer.title, str(error))
        return None
    return Trial(peer, server, load, publish)


def idle(report: Report, held: list[Trial], transport: str, seconds: float) -> None:
    """Measure the CPU time of servers while nothing happens."""
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
            report.target(f"{what}, `daphne {flags}` (absolute)", share * 100, 5.0, "% of a core")


def main() -> None:
    chosen_options = options(
        "holding",
        clients=4_000,
        idle=10_000,
        seconds=190,  # each client gets one ping, sent every 180 s, and about nine heartbeats
        transport="ws,sse",
        peers="ours,uvicorn,nchan,plain-redis,node",
    )
    total = chosen_options.clients if chosen_options.quick else chosen_options.idle
    if not has_files_for(total + WARM):
        print(f"{total:,} clients: skipped, the limit of open files is too low")
        return
    report = Report("holding")
    names = "ours,plain-redis" if chosen_options.quick else chosen_options.peers
    peers = chosen(names.split(","))
    with tempfile.TemporaryDirectory() as folder, prepare(Path(folder)) as workspace:
        for transport in chosen_options.transport.split(","):
            with ExitStack() as stack:
                counts = [chosen_options.clients, total]
                all_held = [
                    hold(stack, workspace, report, peer, transport, counts)
                    for peer in peers
                    if transport in peer.clients
                ]
                held = [each for each in all_held if each is not None]
                if not chosen_options.quick:
                    idle(report, held, transport, chosen_options.seconds)
    report.save(chosen_options.json)


if __name__ == "__main__":
    main()
