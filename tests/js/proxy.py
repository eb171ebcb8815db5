"""A proxy between a browser and a server that blocks some requests."""

import asyncio
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from tests.support.server import free_port

Verdict = Literal["pass", "refuse", "hold", "cut", "away"]
Rule = Callable[[str, str], Verdict]

CUT_SECONDS = 0.5
# What the nginx block of docs/wire-protocol.md answers while the server is away.
AWAY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nretry: 100\n\n"
)
REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Forwards HTTP, one request per connection, unless its rule says otherwise.

    `refuse` answers 400 without contacting the server; `hold` buffers the response until the server
    has ended it; `away` answers an event stream that ends at once; `cut` closes the connection if the response takes longer than half a second.

    Args:
        upstream: the server's port.
        rule: returns what to do with a method and a path; upgrades have the method `UPGRADE`.

    Attributes:
        requests: the method and path of each request so far.
    """

    def __init__(self, upstream: int, rule: Rule) -> None:
        self.upstream = upstream
        self.rule = rule
        self.port = free_port()
        self.requests: list[tuple[str, str]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._is_listening = threading.Event()

    def __enter__(self) -> "Proxy":
        self._thread.start()
        assert self._is_listening.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.run(self._listen())

    async def _listen(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._is_listening.set()
        await self._stopped.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            upgrades = re.search(rb"\r\nupgrade:", head, re.IGNORECASE)
            verdict = self.rule("UPGRADE" if upgrades else method, path)
            self.requests.append((method, path))
            if verdict in ("refuse", "away"):
                writer.write(REFUSED if verdict == "refuse" else AWAY)
            else:
                if not upgrades:
                    head = re.sub(rb"\r\nConnection: [^\r]*", b"", head, flags=re.IGNORECASE)
                    head = head[:-2] + b"Connection: close\r\n\r\n"
                await self._pass(head, reader, writer, verdict)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the browser or the server closed its connection
        finally:
            writer.close()

    async def _pass(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        verdict: Verdict,
    ) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.upstream)
        to_server.write(head)
        upload = asyncio.create_task(_copy(reader, to_server))
        download = asyncio.create_task(_copy(from_server, writer, hold=verdict == "hold"))
        timeout = CUT_SECONDS if verdict == "cut" else None
        try:
            await asyncio.wait([upload, download], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            upload.cancel()
            download.cancel()
            to_server.close()


async def _copy(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, hold: bool = False
) -> None:
    held = b""
    while data := await source.read(65_536):
        held += data
        if not hold:
            target.write(held)
            held = b""
    target.write(held)
