"""What one delivery costs, step by step, measured inside a Daphne process.

    python -m benchmarks.ledger --clients 4000

Real clients on real sockets follow a topic over WebSockets.
The server then runs each step in isolation for all clients, and reports the CPU time of its thread.
Alternatives that the package does not use are measured too, for comparison.
"""

import asyncio
import json
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

ROUNDS = 9  # of each step, in turns; the minimum counts, because other load only adds time
PAUSE_SECONDS = 0.1  # for the clients to read what they received
Step = Callable[[], Awaitable[None] | None]


class Ledger:
    """The steps, on the hub of this process."""

    def __init__(self) -> None:
        # These need a configured Django, which only the server has.
        from realtime.broadcast import Wakeup
        from realtime.hub import get_hub
        from realtime.protocol.encoders import Frame, Wire
        from realtime.protocol.events import Cursor, Event
        from realtime.writers.daphne import protocol_of

        hub = get_hub()
        topic: Any = max(hub.topics.values(), key=lambda each: len(each.live))
        self.flusher: Any = hub.flusher
        self.live = topic.live
        self.writers: list[Any] = list(self.live.values())
        self.protocols = [protocol_of(writer._send) for writer in self.writers]
        self.sends = [writer._socket_send for writer in self.writers]
        data = json.dumps({"at": time.time(), "n": 1, "filler": "x" * 100})
        event = Event(topic.name, "tick", data, Cursor("epoch", 1, 7), time.time(), None)
        message = Wakeup(topic.name, 7, (event,)).to_message()
        cursor = event.cursor
        assert cursor is not None

        def fresh() -> Any:
            frame = topic.make_frame(event, cursor)
            frame.wire(Wire.WEBSOCKET)
            return frame

        self.fresh = fresh
        self.bytes: bytes = fresh().wire(Wire.WEBSOCKET)
        self.text: str = fresh().text
        self.once: Mapping[str, Step] = {
            "parse the wake-up": lambda: Wakeup.from_message(message) and None,
            "encode the event's frame": lambda: topic.make_frame(event, cursor) and None,
            "make the WebSocket frame's bytes": lambda: (
                Frame(self.text).wire(Wire.WEBSOCKET) and None
            ),
        }
        self.each: Mapping[str, Step] = {
            "socket.send() alone": self.bare,
            "a write pass: is the client ready, send(), was everything sent?": self.write_pass,
            "queues: queue for all, then flush each": self.queues,
            "of that, the queueing": self.queueing,
            "for comparison: the transport's write()": self.transport,
            "for comparison: Daphne's send()": self.asgi,
        }

    def bare(self) -> None:
        data = self.bytes
        for send in self.sends:
            send(data)

    def write_pass(self) -> None:
        self.flusher._may_begin_pass = True
        self.flusher.write_all(self.fresh(), self.live, _never_full)
        self.flusher._continue_pass(self.flusher._pass, float("inf"))
        self.flusher._may_begin_pass = False

    def queues(self) -> None:
        self.flusher.write_all(self.fresh(), self.live, _never_full)
        for writers in (self.flusher._interactive, self.flusher._bulk):
            self.flusher._flush_writers(writers, float("inf"))

    def queueing(self) -> None:
        self.flusher.write_all(self.fresh(), self.live, _never_full)

    async def transport(self) -> None:
        data = self.bytes
        for protocol in self.protocols:
            protocol.transport.write(data)
        await _written(self.protocols)

    async def asgi(self) -> None:
        text = self.text
        for writer in self.writers:
            await writer._send({"type": "websocket.send", "text": text})
        await _written(self.protocols)

    async def run(self) -> dict[str, float]:
        """Return the microseconds of each step, per frame or per delivery."""
        found: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for steps, count, times in ((self.once, 1, 100), (self.each, len(self.writers), 1)):
                for name, step in steps.items():
                    began = time.thread_time()
                    for _ in range(times):
                        if (work := step()) is not None:
                            await work
                    used = time.thread_time() - began
                    found.setdefault(name, []).append(used / count / times * 1e6)
                    await asyncio.sleep(PAUSE_SECONDS if steps is self.each else 0)
        return {name: min(each) for name, each in found.items()}


def _never_full(recipient: object, accepted: int) -> None:
    raise AssertionError("the buffer of a client was full")


async def _written(protocols: list[Any]) -> None:
    """Wait until the transports have written everything."""

    def is_pending() -> bool:
        return any(p.transport._tempDataBuffer or p.transport.dataBuffer for p in protocols)

    while is_pending():  # noqa: ASYNC110 - each turn of the loop is part of the measurement
        await asyncio.sleep(0)


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve the benchmark site, and the ledger under ``/ledger/``."""
    from benchmarks.site import application as site

    if scope["type"] != "http" or scope["path"] != "/ledger/":
        await site(scope, receive, send)
        return
    body = json.dumps(await Ledger().run()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    from benchmarks.load import Load
    from benchmarks.peers import PEERS, daphne, prepare
    from benchmarks.report import Report, options

    chosen = options("ledger", clients=4_000)
    count = 500 if chosen.quick else chosen.clients
    report = Report("ledger")
    with (
        tempfile.TemporaryDirectory() as folder,
        prepare(Path(folder)) as workspace,
        daphne(workspace, application="benchmarks.ledger:application") as server,
        Load(server.port) as load,
    ):
        load.take(PEERS["ours"].make_clients("ws", count))
        load.connect()
        url = f"http://127.0.0.1:{server.port}/ledger/"
        with urllib.request.urlopen(url, timeout=120) as answer:
            steps: dict[str, float] = json.load(answer)
        for name, cost in steps.items():
            report.figure(name, f"{count:,} clients", f"{cost:.2f} µs", microseconds=cost)
    report.save(chosen.json)


if __name__ == "__main__":
    main()
