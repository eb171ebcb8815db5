"""How long a connect takes while other clients call slow actions.

    python -m benchmarks.slowcalls --callers 5

Each of the callers, who are not signed in, keeps eight calls of an action under way that takes half
a second. Meanwhile signed-in clients connect one after the other and subscribe to a topic whose
permission is asked in a thread, too. Before, the same is measured without the callers.
"""

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import websockets

from benchmarks.peers import PEERS, Server, prepare
from benchmarks.people import cookies
from benchmarks.report import Report, options

CALLS = 8  # of each caller under way
CONNECTS = 100
LIMIT = 0.1  # seconds that a connect may take


async def call(server: Server) -> None:
    """Keep calls under way until the task is cancelled."""
    url = f"ws://127.0.0.1:{server.port}/realtime/ws?v=1"
    async with websockets.connect(url) as client:
        await client.recv()
        for number in range(CALLS):
            await client.send(ask("call", number, action="work"))
        while True:
            answer = json.loads(await client.recv())
            if "id" in answer:
                await client.send(ask("call", answer["id"], action="work"))


def ask(kind: str, number: int, **fields: str) -> str:
    """Return a command about the slow topic."""
    return json.dumps({"type": kind, "id": number, "topic": "slow.a", **fields})


async def connect(server: Server, header: str) -> float:
    """Return the seconds until a new client is subscribed."""
    url = f"ws://127.0.0.1:{server.port}/realtime/ws?v=1"
    name, _, value = header.partition(": ")
    start = time.monotonic()
    async with websockets.connect(url, additional_headers={name: value}) as client:
        await client.send(ask("subscribe", 1))
        while json.loads(await client.recv())["type"] != "subscribed":
            pass
        return time.monotonic() - start


async def measure(server: Server, headers: list[str], callers: int) -> list[float]:
    """Return the seconds of each connect beside so many callers."""
    tasks = [asyncio.create_task(call(server)) for _ in range(callers)]
    try:
        await asyncio.sleep(1.0)  # until all threads are in use
        return [await connect(server, header) for header in headers]
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


def main() -> None:
    chosen = options("slowcalls", callers=5)
    report = Report("slowcalls")
    with tempfile.TemporaryDirectory() as folder, prepare(Path(folder)) as workspace:
        headers = cookies(workspace, CONNECTS)
        with PEERS["ours"].start(workspace) as server:
            asyncio.run(measure(server, headers[:10], 0))  # warm it up
            for count in (0, chosen.callers):
                found = sorted(asyncio.run(measure(server, headers, count)))
                p50, slowest = statistics.median(found), found[-1]
                report.figure(
                    f"a connect beside {count} callers of slow actions",
                    PEERS["ours"].title,
                    f"{p50 * 1e3:.0f} ms, the slowest of {CONNECTS} {slowest * 1e3:.0f} ms",
                    p50=p50,
                    slowest=slowest,
                )
    report.target(f"beside {chosen.callers} callers the slowest connect", slowest, LIMIT, "s")
    report.save(chosen.json)


if __name__ == "__main__":
    main()
