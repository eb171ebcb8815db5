"""What clients cost a Daphne process, in memory and CPU time.

    python -m benchmarks.capacity [clients]     # 1,000 by default, on SQLite

First one client, and then that many more, follow one topic, are idle for two heartbeats, and
receive 100 events each.
CPU time is that of the server process alone, which other load on the machine hardly affects; it is
read from /proc, so this needs Linux.
Daphne's options are those of deploy/systemd.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import websockets

from benchmarks.engines import MIGRATE
from benchmarks.latency import request, wait_for
from benchmarks.machine import exit_on_sigterm
from tests.support.server import free_port

OPTIONS = ["-v0", "--ping-interval", "180", "--ping-timeout", "30", "--websocket_timeout", "-1"]
TOPIC = "bench.latency"
IDLE_SECONDS = 50  # two heartbeats
EVENTS = 100
AT_ONCE = 20  # concurrent handshakes

Next = Callable[[], Awaitable[None]]  # waits for a client's next event


class Process:
    """The CPU time and memory of a process, from the kernel."""

    def __init__(self, pid: int) -> None:
        self.folder = Path(f"/proc/{pid}")

    def cpu(self) -> float:
        """Return the CPU seconds that the process has used."""
        fields = (self.folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Return its resident memory in kilobytes."""
        return (
            int((self.folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e3
        )


async def websocket(port: int) -> Next:
    """Follow the topic over a WebSocket."""
    url = f"ws://127.0.0.1:{port}/realtime/ws?v=1"
    options: dict[str, Any] = {"ping_interval": None, "max_queue": None, "compression": None}
    socket = await websockets.connect(url, open_timeout=60, **options)
    await socket.send(json.dumps({"type": "subscribe", "topic": TOPIC}))
    while json.loads(await socket.recv())["type"] != "subscribed":
        pass

    async def event() -> None:
        while json.loads(await socket.recv())["type"] != "event":
            pass

    return event


async def stream(port: int) -> Next:
    """Follow the topic over an event stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    path = f"/realtime/sse?topic={TOPIC}"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

    async def until(kind: str) -> None:
        sought = f'"type":"{kind}"'.encode()
        while sought not in (line := await reader.readline()):
            assert line, "the stream ended"
        assert writer  # keeps a reference; without it the connection would be closed

    await until("subscribed")
    return lambda: until("event")


async def measure(
    name: str, port: int, server: Process, count: int, follow: Callable[[int], Awaitable[Next]]
) -> None:
    """Print what one client costs the process, and what each of ``count`` more clients costs."""
    first = [await follow(port)]
    alone, idle_alone = server.memory(), await idle(server)
    event_alone = await events(port, server, first)
    memory, cpu = server.memory(), server.cpu()
    turn = asyncio.Semaphore(AT_ONCE)

    async def one() -> Next:
        async with turn:
            return await follow(port)

    clients = await asyncio.gather(*(one() for _ in range(count)))
    connecting = (server.cpu() - cpu) / count
    held = (server.memory() - memory) / count
    idle_more = (await idle(server) - idle_alone) / count
    event_more = (await events(port, server, first + clients) - event_alone) / count
    print(
        f"{name}\n"
        f"  a process with one client: {alone / 1e3:.0f} MB, {idle_alone:.1%} of a core idle, "
        f"{event_alone * 1e3:.1f} ms of a core to publish and deliver an event\n"
        f"  each of {count} more: {held:.1f} KB, "
        f"{connecting * 1e3:.2f} ms to connect and subscribe, "
        f"{idle_more * 1e3:.2%} of a core idle (for 1,000), {event_more * 1e6:.0f} µs per event",
        flush=True,
    )


async def idle(server: Process) -> float:
    """Return the share of a core that the process uses while nothing happens."""
    cpu = server.cpu()
    await asyncio.sleep(IDLE_SECONDS)
    return (server.cpu() - cpu) / IDLE_SECONDS


async def events(port: int, server: Process, clients: list[Next]) -> float:
    """Return the CPU seconds of publishing one event and delivering it to all these clients."""
    cpu = server.cpu()
    for _ in range(EVENTS):
        await request(port, "publish")
        await asyncio.gather(*(event() for event in clients))
    return (server.cpu() - cpu) / EVENTS


def run(name: str, follow: Callable[[int], Awaitable[Next]], count: int, folder: str) -> None:
    env = os.environ | {"BENCHMARK_DB": str(Path(folder) / f"{name}.sqlite3")}
    subprocess.run([sys.executable, "-c", MIGRATE], env=env, check=True)
    port = free_port()
    command = [sys.executable, "-m", "daphne", *OPTIONS, "-e"]
    command += [f"tcp:port={port}:interface=127.0.0.1:backlog=4096", "benchmarks.site:application"]
    process = subprocess.Popen(command, env=env)
    try:
        asyncio.run(wait_for(port))
        asyncio.run(warm_up(port))
        asyncio.run(measure(name, port, Process(process.pid), count, follow))
    finally:
        process.terminate()
        process.wait()


async def warm_up(port: int) -> None:
    """Deliver one event, so that imports and first-time caching are not measured."""
    event = await websocket(port)
    await request(port, "publish")
    await event()


def main() -> None:
    exit_on_sigterm()
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    with tempfile.TemporaryDirectory() as folder:
        run("WebSocket", websocket, count, folder)
        run("event stream", stream, count, folder)


if __name__ == "__main__":
    main()
