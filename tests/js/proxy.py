"""A proxy between a browser and a server that lets some requests not through."""

import asyncio
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from tests.support.server import free_port

Fate = Literal["pass", "refuse", "hold", "cut"]
Rule = Callable[[str, str], Fate]

CUT_SECONDS = 0.5
REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Passes HTTP on, one request a connection, as its rule says.

    `refuse` answers 400 without asking the server; `hold` passes nothing back before the server
    has ended its answer; `cut` ends the connection if the answer takes longer than half a second.

    Args:
        upstream: the server's port.
        rule: tells the fate of a method and a path; upgrades have the method `UPGRADE`.
    """

    def __init__(self, upstream: int, rule: Rule) -> None:
        self.upstream = upstream
        self.rule = rule
        self.port = free_port()
        self.asked: list[tuple[str, str]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._listens = threading.Event()

    def __enter__(self) -> "Proxy":
        self._thread.start()
        assert self._listens.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.run(self._listen())

    async def _listen(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._listens.set()
        await self._over.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            upgrades = re.search(rb"\r\nupgrade:", head, re.IGNORECASE)
            fate = self.rule("UPGRADE" if upgrades else method, path)
            self.asked.append((method, path))
            if fate == "refuse":
                writer.write(REFUSED)
            else:
                if not upgrades:
                    head = re.sub(rb"\r\nConnection: [^\r]*", b"", head, flags=re.IGNORECASE)
                    head = head[:-2] + b"Connection: close\r\n\r\n"
                await self._pass(head, reader, writer, fate)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two left
        finally:
            writer.close()

    async def _pass(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        fate: Fate,
    ) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.upstream)
        to_server.write(head)
        there = asyncio.create_task(_copy(reader, to_server))
        back = asyncio.create_task(_copy(from_server, writer, hold=fate == "hold"))
        timeout = CUT_SECONDS if fate == "cut" else None
        try:
            await asyncio.wait([there, back], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.cancel()
            back.cancel()
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
