"""How fast clients receive the events that they missed while their server was down.

    python -m benchmarks.resuming --clients 4000 --transport ws,sse

Clients follow a topic, their server is killed, 100 events are published, the server starts, and
all clients reconnect with their last cursor.
For comparison, one read of the log per client is measured on the same core, including the encoding
of its frames: the work of a server that reads the log for each client.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from signal import SIGKILL

from benchmarks.fanout import TRANSPORTS
from benchmarks.load import Client, Load, LoadError
from benchmarks.machine import SERVER_CORE, has_files_for, on_core
from benchmarks.peers import PEERS, SUBSCRIBED, Workspace, prepare
from benchmarks.report import Report, numbers, options

EVENTS = 100  # that the clients miss
AT_ONCE = 64  # concurrent reads
SECONDS = 120.0  # for all clients to receive all events
FRAME = '{"type":"subscribe","topic":"@TOPIC@","since":"@SINCE@"}'
BACK = {
    "ws": Client("ws", "/realtime/ws?v=1", frame=FRAME, marker=SUBSCRIBED),
    "sse": Client("sse", "/realtime/sse?topic=@TOPIC@&since=@SINCE@", marker=SUBSCRIBED),
}


def resume(workspace: Workspace, transport: str, count: int, *, at_once: bool) -> tuple[float, str]:
    """Disconnect clients and resume them; return the seconds taken, and the cursor before the gap.

    Args:
        workspace: where the server keeps its log.
        transport: of the clients.
        count: the number of clients.
        at_once: connect all clients before the first subscribes, and measure only the resume.

    Raises:
        LoadError: some clients did not receive everything.
    """
    ours = PEERS["ours"]
    with (
        ours.start(workspace) as server,
        Load(server.port) as load,
        ours.publisher(workspace, server, count) as publish,
    ):
        load.take(ours.make_clients(transport, count))
        load.connect()
        load.reset()
        publish()
        load.wait(1)
        cursor = str(load.client(0)["cursor"])
        server.kill(SIGKILL)
        publish(EVENTS, at_once=True)
        server.start()
        load.take(replace(ours, clients=BACK).make_clients(transport, count))
        load.reset()
        if at_once:
            load.connect(sends=False)
        began = time.monotonic()
        if at_once:
            load.send()
        else:
            load.connect()
        load.wait(EVENTS, SECONDS)
        took, seen = time.monotonic() - began, load.report()
        if seen.holes or seen.repeats or seen.events != count * EVENTS:
            raise LoadError(f"{seen.holes} events were missed, {seen.repeats} received twice")
        return took, cursor


def separate_reads(workspace: Workspace, cursor: str, count: int) -> float:
    """Return the seconds that it takes to read the log for each client."""
    command = [sys.executable, "-m", "benchmarks.resuming", "read", cursor, str(count)]
    with on_core(SERVER_CORE):
        done = subprocess.run(
            command, env=workspace.env(), stdout=subprocess.PIPE, text=True, check=True
        )
    return float(done.stdout)


async def read_all(cursor: str, count: int) -> float:
    """Read and encode for each client, in the process of ``separate_reads()``."""
    from realtime.protocol.encoders import event_frame
    from realtime.protocol.events import Cursor
    from realtime.stores import get_store

    store, after, topic = get_store(), Cursor.parse(cursor), PEERS["ours"].topic(count)
    turn = asyncio.Semaphore(AT_ONCE)

    async def one() -> int:
        async with turn:
            page = await store.aread(topic, after)
            return len([event_frame(event).encode() for event in page.events])

    assert await one() == EVENTS
    began = time.monotonic()
    assert sum(await asyncio.gather(*(one() for _ in range(count)))) == count * EVENTS
    return time.monotonic() - began


def compare(workspace: Workspace, report: Report, transport: str, count: int, rounds: int) -> None:
    """Measure resumes and separate reads in turns; the best of each counts."""
    what = f"{count:,} {TRANSPORTS[transport]}s resume {EVENTS} events"
    title = PEERS["ours"].title
    totals, alone, reads = [], [], []
    try:
        for _ in range(rounds):
            took, cursor = resume(workspace, transport, count, at_once=False)
            totals.append(took)
            reads.append(separate_reads(workspace, cursor, count))
            if transport == "ws":  # a stream subscribes with its request
                alone.append(resume(workspace, transport, count, at_once=True)[0])
    except LoadError as error:
        report.figure(what, title, str(error))
        return
    total, read = min(totals), min(reads)
    shown = f"{total:.2f} s, {count / total:,.0f}/s"
    report.figure(f"{what}, including the connect", title, shown, seconds=total)
    if alone:
        shown = f"{min(alone):.2f} s, {count / min(alone):,.0f}/s"
        report.figure(f"{what}, already connected", title, shown, seconds=min(alone))
    report.figure(f"{what}, as separate reads", title, f"{read:.2f} s", seconds=read)
    if count == 4_000 and transport == "ws":
        report.target(f"{what}: time compared with separate reads", min(alone) / read, 0.5)


def main() -> None:
    if sys.argv[1:2] == ["read"]:
        import_module("benchmarks.site")  # it configures Django
        print(asyncio.run(read_all(sys.argv[2], int(sys.argv[3]))))
        return
    chosen = options("resuming", clients="", transport="", rounds=3)
    counts = numbers(chosen.clients) or ([4_000] if chosen.quick else [500, 4_000, 16_000])
    transports = chosen.transport or ("ws" if chosen.quick else "ws,sse")
    report = Report("resuming")
    with tempfile.TemporaryDirectory() as folder, prepare(Path(folder)) as workspace:
        for transport in transports.split(","):
            for count in counts:
                if has_files_for(count):
                    rounds = 1 if chosen.quick or count > 4_000 else chosen.rounds
                    compare(workspace, report, transport, count, rounds)
                else:
                    print(f"{count:,} clients: skipped, the limit of open files is too low")
    report.save(chosen.json)


if __name__ == "__main__":
    main()
