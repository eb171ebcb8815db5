"""From publish() to a WebSocket client of a running Daphne.

    python -m benchmarks.latency            # SQLite, and PostgreSQL and Redis where there are such

The publisher is a Django view of the same server process, or a process of its own.
Events come one at a time, 10 to 60 ms apart, so that nothing waits behind another.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import websockets

from tests.support.redis import RedisServer, redis_binary
from tests.support.server import free_port
from tests.support.services import postgres_binaries, postgres_server

EVENTS = 300

MIGRATE = """
import benchmarks.site
from django.core.management import call_command
call_command("migrate", verbosity=0)
"""

PUBLISHER = """
import sys
from benchmarks.site import publish_now
publish_now()
print("ready", flush=True)
for _ in sys.stdin:
    publish_now()
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


async def request(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /publish/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()


async def measure(port: int, trigger: object) -> list[float]:
    latencies: list[float] = []
    async with websockets.connect(f"ws://127.0.0.1:{port}/realtime/ws?v=1") as socket:
        await socket.recv()
        await socket.send(json.dumps({"type": "subscribe", "topic": "bench.latency"}))
        await socket.recv()
        for _ in range(EVENTS):
            await asyncio.sleep(random.uniform(0.01, 0.06))
            triggering = asyncio.ensure_future(trigger())  # type: ignore[operator]
            frame = json.loads(await asyncio.wait_for(socket.recv(), 30))
            latencies.append(time.time() - frame["data"]["at"])
            await triggering
    return latencies


def show(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p50, p99 = (ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.99))
    print(f"{what:<52} p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   (n={len(ordered)})", flush=True)


def run(database: str, url: str, redis: str = "") -> None:
    env = os.environ | {"BENCHMARK_DB": url, "BENCHMARK_REDIS": redis}
    subprocess.run([sys.executable, "-c", MIGRATE], env=env, check=True)
    port = free_port()
    with ExitStack() as stack:
        server = subprocess.Popen(
            [sys.executable, "-m", "daphne", "-v0", "-p", str(port), "benchmarks.site:application"],
            env=env,
        )
        stack.callback(server.wait)
        stack.callback(server.terminate)
        asyncio.run(wait_for(port))
        latencies = asyncio.run(measure(port, lambda: request(port)))
        show(f"{database}: a view of the same process", latencies)
        publisher = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER],
            env=env,
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

        show(f"{database}: another process", asyncio.run(measure(port, trigger)))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run("SQLite", str(Path(folder) / "bench.sqlite3"))
    if (binaries := postgres_binaries()) is None:
        print("PostgreSQL: not here")
    else:
        with postgres_server(binaries) as url:
            run("PostgreSQL", url)
    if (binary := redis_binary()) is None:
        print("Redis: not here")
        return
    with tempfile.TemporaryDirectory() as folder, RedisServer(binary, Path(folder)) as server:
        run("Redis", str(Path(folder) / "bench.sqlite3"), server.url)


if __name__ == "__main__":
    main()
