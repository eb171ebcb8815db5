"""HTTP clients for the tests: event streams, read as a browser reads them, polls and commands."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.support.server import DEADLINE

Topics = str | Sequence[str]


class Refused(Exception):
    """The server answered with an error; ``code`` is the error's code."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.code = body["code"]


def http_client(**options: Any) -> httpx.AsyncClient:
    """Return a client that ignores the proxy settings of this machine."""
    return httpx.AsyncClient(**{"timeout": DEADLINE, "trust_env": False} | options)


def query(topics: Topics, **fields: Any) -> list[tuple[str, str]]:
    """Return the fields of a URL; those that are None are left out."""
    names = [topics] if isinstance(topics, str) else topics
    rest = [(name, str(value)) for name, value in fields.items() if value is not None]
    return [("topic", name) for name in names] + rest


def check(response: httpx.Response) -> httpx.Response:
    """Return a successful response.

    Raises:
        Refused: the response is an error. It must be JSON and have all fields of an error.
    """
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/json", response.text
        body = response.json()
        assert body.keys() - {"topic"} == {"type", "code", "message", "hint", "retry"}, body
        assert body["message"]
        assert body["hint"]
        raise Refused(response.status_code, body)
    return response


class StreamReader:
    """Reads the bytes of an event stream by the rules of HTML, section 9.2.6.

    Attributes:
        last_id: what a browser would send as ``Last-Event-ID``.
        retry: the milliseconds of the ``retry:`` line; None without one.
        entries: the data of each entry, and the id after it.
    """

    def __init__(self) -> None:
        self.last_id = ""
        self.retry: int | None = None
        self.entries: deque[tuple[str, str]] = deque()
        self._rest = b""
        self._data: list[str] = []
        self._id = ""

    def feed(self, chunk: bytes) -> None:
        lines = (self._rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self._take(line.decode())

    def _take(self, line: str) -> None:
        if not line:
            if self._data:
                self.entries.append(("\n".join(self._data), self._id))
            self._data = []
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isdigit():
            self.retry = int(value)
        else:
            assert not name, f"the server never sends such a line: {line!r}"


class Stream:
    """Reads the frames of one event stream, without heartbeats."""

    def __init__(self, chunks: AsyncIterator[bytes], last_id: str = "") -> None:
        self.reader = StreamReader()
        self.last_id = last_id
        self._chunks = chunks

    async def receive(self) -> dict[str, Any]:
        """Return the next frame.

        Raises:
            EOFError: the stream ended.
        """
        while True:
            while not self.reader.entries:
                try:
                    async with asyncio.timeout(DEADLINE):
                        self.reader.feed(await anext(self._chunks))
                except (StopAsyncIteration, httpx.TransportError) as error:
                    raise EOFError from error
            text, id_ = self.reader.entries.popleft()
            self.last_id = id_ or self.last_id
            frame: dict[str, Any] = json.loads(text)
            if frame["type"] != "heartbeat":
                return frame

    async def events(self, count: int) -> list[dict[str, Any]]:
        """Return the next frames, which must all be events."""
        frames = [await self.receive() for _ in range(count)]
        assert {frame["type"] for frame in frames} <= {"event"}, frames
        return frames


@asynccontextmanager
async def open_stream(
    url: str, topics: Topics, headers: Mapping[str, str] = {}, **fields: Any
) -> AsyncIterator[Stream]:
    """Open an event stream and receive its welcome.

    Raises:
        Refused: the server answered with an error.
    """
    async with http_client() as client:
        request = client.build_request(
            "GET", f"{url}/realtime/sse", params=query(topics, **fields), headers=headers
        )
        response = await client.send(request, stream=True)
        try:
            if response.status_code >= 400:
                await response.aread()
            check(response)
            assert response.headers["content-type"].startswith("text/event-stream")
            stream = Stream(response.aiter_bytes(), headers.get("Last-Event-ID", ""))
            welcome = await stream.receive()
            assert welcome["type"] == "welcome", welcome
            yield stream
        finally:
            with contextlib.suppress(httpx.TransportError):
                await response.aclose()


async def get_poll(
    client: httpx.AsyncClient,
    url: str,
    topics: Topics,
    headers: Mapping[str, str] = {},
    **fields: Any,
) -> dict[str, Any]:
    """Return the JSON of one poll.

    Raises:
        Refused: the server answered with an error.
    """
    params = query(topics, **fields)
    response = await client.get(f"{url}/realtime/poll", params=params, headers=headers)
    answer: dict[str, Any] = check(response).json()
    assert answer.keys() == {"events", "frames", "cursor", "reset", "more"}
    return answer


async def post_command(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str] = {}, **command: Any
) -> dict[str, Any]:
    """Send one command, with the origin of a page of the site, and return its answer.

    Raises:
        Refused: the server answered with an error.
    """
    own = {"Origin": url, **headers}
    response = await client.post(f"{url}/realtime/send", json=command, headers=own)
    answer: dict[str, Any] = check(response).json()
    return answer
