"""How fast clients have what they missed, after their server was killed and started again.

    python -m benchmarks.resuming --clients 4000 --transport ws,sse

Clients follow a topic, their server is killed, 100 events are published, the server starts, and
all come back with their last cursor.
Beside it is what as many separate reads of the log take, each with its frames encoded, on the same
core: what a server does that reads the log for each client.
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
from benchmarks.peers import PEERS, SUBSCRIBED, Place, place
from benchmarks.report import Report, numbers, options

EVENTS = 100  # that are missed
AT_ONCE = 64  # reads under way
SECONDS = 120.0  # for all to have all
FRAME = '{"type":"subscribe","topic":"@TOPIC@","since":"@SINCE@"}'
BACK = {
    "ws": Client("ws", "/realtime/ws?v=1", frame=FRAME, marker=SUBSCRIBED),
    "sse": Client("sse", "/realtime/sse?topic=@TOPIC@&since=@SINCE@", marker=SUBSCRIBED),
}


def resume(here: Place, transport: str, count: int, *, at_once: bool) -> tuple[float, str]:
    """Cut clients and let them come back; return the seconds it took, and a cursor of before.

    Args:
        here: where the server keeps its log.
        transport: of the clients.
        count: how many there are.
        at_once: all are connected when the first subscribes, and only that is measured.

    Raises:
        LoadError: some did not get everything.
    """
    ours = PEERS["ours"]
    with (
        ours.start(here) as server,
        Load(server.port) as load,
        ours.publisher(here, server, count) as publish,
    ):
        load.take(ours.crowd(transport, count))
        load.connect()
        load.reset()
        publish()
        load.wait(1)
        cursor = str(load.client(0)["cursor"])
        server.kill(SIGKILL)
        publish(EVENTS, at_once=True)
        server.start()
        load.take(replace(ours, clients=BACK).crowd(transport, count))
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
            raise LoadError(f"{seen.holes} events are missing, {seen.repeats} came twice")
        return took, cursor


def separate_reads(here: Place, cursor: str, count: int) -> float:
    """Return the seconds that reading the log for each client takes."""
    command = [sys.executable, "-m", "benchmarks.resuming", "read", cursor, str(count)]
    with on_core(SERVER_CORE):
        done = subprocess.run(
            command, env=here.env(), stdout=subprocess.PIPE, text=True, check=True
        )
    return float(done.stdout)


async def read_all(cursor: str, count: int) -> float:
    """Read and encode for each client; the process of `separate_reads()`."""
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


def compare(here: Place, report: Report, transport: str, count: int, rounds: int) -> None:
    """Measure resumes and separate reads in turns; the best of each counts."""
    what = f"{count:,} {TRANSPORTS[transport]}s resume {EVENTS} events"
    title = PEERS["ours"].title
    totals, alone, reads = [], [], []
    try:
        for _ in range(rounds):
            took, cursor = resume(here, transport, count, at_once=False)
            totals.append(took)
            reads.append(separate_reads(here, cursor, count))
            if transport == "ws":  # a stream subscribes with its request
                alone.append(resume(here, transport, count, at_once=True)[0])
    except LoadError as error:
        report.figure(what, title, str(error))
        return
    total, read = min(totals), min(reads)
    shown = f"{total:.2f} s, {count / total:,.0f}/s"
    report.figure(f"{what}, with the connecting", title, shown, seconds=total)
    if alone:
        shown = f"{min(alone):.2f} s, {count / min(alone):,.0f}/s"
        report.figure(f"{what}, already connected", title, shown, seconds=min(alone))
    report.figure(f"{what}, as separate reads", title, f"{read:.2f} s", seconds=read)
    if count == 4_000 and transport == "ws":
        report.aim(f"{what}: time to separate reads", min(alone) / read, 0.5)


def main() -> None:
    if sys.argv[1:2] == ["read"]:
        import_module("benchmarks.site")  # it configures Django
        print(asyncio.run(read_all(sys.argv[2], int(sys.argv[3]))))
        return
    chosen = options("resuming", clients="", transport="", rounds=3)
    counts = numbers(chosen.clients) or ([4_000] if chosen.quick else [500, 4_000, 16_000])
    transports = chosen.transport or ("ws" if chosen.quick else "ws,sse")
    report = Report("resuming")
    with tempfile.TemporaryDirectory() as folder, place(Path(folder)) as here:
        for transport in transports.split(","):
            for count in counts:
                if has_files_for(count):
                    rounds = 1 if chosen.quick or count > 4_000 else chosen.rounds
                    compare(here, report, transport, count, rounds)
                else:
                    print(f"{count:,} clients: skipped, this user may not open as many files")
    report.save(chosen.json)


if __name__ == "__main__":
    main()
