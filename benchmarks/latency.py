"""Latency from publish() to a WebSocket client of a running Daphne.

    python -m benchmarks.latency            # every installed engine

The publisher is a Django view of the same server process, or a separate process.
For comparison, plain Channels sends to a consumer with ``group_send()``, if the engine has one of
Channels' own layers.
Events are published one at a time, 10 to 60 ms apart, so that no event waits for another.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack

import websockets

from benchmarks.engines import Engine, engines
from tests.support.server import free_port

EVENTS = 300
SOCKETS = {"publish": "/realtime/ws?v=1", "send": "/plain/"}

PUBLISHER = """
import sys
from benchmarks import site
publish_once = getattr(site, sys.argv[1] + "_now")
publish_once()
print("ready", flush=True)
for _ in sys.stdin:
    publish_once()
"""


async def wait_for(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def request(port: int, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    text = f"GET /{path}/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    writer.write(text.encode())
    await reader.read()
    writer.close()


async def measure(
    port: int, way: str, trigger: Callable[[], Coroutine[None, None, None]]
) -> list[float]:
    latencies: list[float] = []
    async with websockets.connect(f"ws://127.0.0.1:{port}{SOCKETS[way]}") as socket:
        if way == "publish":
            await socket.recv()
            await socket.send(json.dumps({"type": "subscribe", "topic": "bench.latency"}))
            await socket.recv()
        for _ in range(EVENTS):
            await asyncio.sleep(random.uniform(0.01, 0.06))
            triggering = asyncio.ensure_future(trigger())
            frame = json.loads(await asyncio.wait_for(socket.recv(), 30))
            latencies.append(time.time() - frame["data"]["at"])
            await triggering
    return latencies


def show(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
    print(f"{what:<58} p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   (n={len(ordered)})", flush=True)


def run(engine: Engine) -> None:
    port = free_port()
    with ExitStack() as stack:
        server = subprocess.Popen(
            [sys.executable, "-m", "daphne", "-v0", "-p", str(port), "benchmarks.site:application"],
            env=engine.env,
        )
        stack.callback(server.wait)
        stack.callback(server.terminate)
        asyncio.run(wait_for(port))
        ways = {"publish": engine.name}
        if engine.has_channels_layer:
            ways["send"] = f"{engine.name}, plain Channels"
        for way, name in ways.items():
            latencies = asyncio.run(measure(port, way, lambda way=way: request(port, way)))
            show(f"{name}: a view of the same process", latencies)
            if engine.is_shared:
                show(f"{name}: another process", from_another_process(stack, engine, port, way))


def from_another_process(stack: ExitStack, engine: Engine, port: int, way: str) -> list[float]:
    publisher = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, way],
        env=engine.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    stack.callback(publisher.communicate)
    assert publisher.stdout is not None
    assert publisher.stdin is not None
    publisher.stdout.readline()
    stdin = publisher.stdin

    async def trigger() -> None:
        stdin.write(b"\n")
        stdin.flush()

    return asyncio.run(measure(port, way, trigger))


def main() -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for engine in engines():
        run(engine)


if __name__ == "__main__":
    main()
