"""HTTP requests to the ASGI applications of the transports, without a server."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from realtime.consumers.poll import poll
from realtime.consumers.sse import event_stream
from tests.hub.support import Scene
from tests.support.http import StreamReader

APPLICATIONS = {"poll": poll, "sse": event_stream}
HOST = {"Host": "testserver"}


def scope_of(
    url: str, method: str = "GET", headers: Mapping[str, str] = {}, client: str = "10.0.0.1"
) -> dict[str, Any]:
    """Return the ASGI scope of a request."""
    path, _, query = url.partition("?")
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": query.encode(),
        "client": (client, 1234),
        "headers": [
            (name.lower().encode(), value.encode("latin-1"))
            for name, value in {**HOST, **headers}.items()
        ],
    }


class Exchange:
    """A request that runs in its own task, and its answer.

    Attributes:
        sent: the ASGI messages of the answer so far.
        gate: while it is cleared, ``send`` waits, as for a client that does not read.
        failing: whether ``send`` raises, as on a broken connection.
        inbox: the ASGI messages that ``receive`` returns.
        task: runs the application.
    """

    def __init__(self, application: Any, scope: dict[str, Any], *parts: bytes) -> None:
        self.sent: list[dict[str, Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing = False
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for index, part in enumerate(parts or (b"",)):
            more = index + 1 < len(parts)
            self.inbox.put_nowait({"type": "http.request", "body": part, "more_body": more})
        self.task = asyncio.get_running_loop().create_task(
            application(scope, self.inbox.get, self.send)
        )

    async def send(self, message: Any) -> None:
        if self.failing:
            raise OSError("the connection is gone")
        await self.gate.wait()
        self.sent.append(message)

    def leave(self) -> None:
        """Disconnect, as a client does."""
        self.inbox.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def ended(self) -> bool:
        return len(self.sent) > 1 and not self.sent[-1].get("more_body", False)

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reader(self) -> StreamReader:
        reader = StreamReader()
        reader.feed(self.body)
        return reader

    def frames(self) -> list[dict[str, Any]]:
        """Return the frames of an event stream."""
        return [json.loads(text) for text, _ in self.reader.entries]

    def seqs(self) -> list[int]:
        return [frame["seq"] for frame in self.frames() if "seq" in frame]


class Web:
    """Requests on a scene's hub."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.exchanges: list[Exchange] = []

    def open(self, url: str, method: str = "GET", headers: Mapping[str, str] = {}) -> Exchange:
        """Start a request and run it as far as it goes without waiting."""

        async def begin() -> Exchange:
            application = APPLICATIONS[url.partition("?")[0]]
            return Exchange(application, scope_of(url, method, headers))

        exchange = self.scene.run(begin())
        self.exchanges.append(exchange)
        self.scene.advance(0.01)
        return exchange

    def get(self, url: str, headers: Mapping[str, str] = {}, method: str = "GET") -> Exchange:
        """Make a request and wait until it is answered."""
        exchange = self.open(url, method, headers)
        self.scene.run(asyncio.wait_for(exchange.task, 60))
        assert exchange.ended
        return exchange

    def leave(self, exchange: Exchange) -> None:
        async def leave() -> None:
            exchange.leave()

        self.scene.run(leave())
        self.scene.advance(0.01)

    def close(self) -> None:
        try:
            for exchange in self.exchanges:
                self.leave(exchange)
            self.scene.advance(0.1)
            assert not [e for e in self.exchanges if not e.task.done()], "a request still runs"
            assert not self.scene.hub.connections
            followers = {name: live.followers for name, live in self.scene.hub.topics.items()}
            assert not any(followers.values()), followers
        finally:
            self.scene.close()
