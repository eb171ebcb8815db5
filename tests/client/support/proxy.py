"""A proxy in the process of the test: records requests, blocks WebSockets, cuts connections."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

REFUSAL = b"HTTP/1.1 %d No\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<html>No</html>"
READ_BYTES = 4_096


class Proxy:
    """Forwards connections to a server on this machine.

    Attributes:
        port: the port of the proxy.
        heads: the request lines and headers of all requests.
        strips: the lower-case name of a header that the proxy removes; empty for none.
        blocks_websockets: whether WebSocket requests are answered with ``status``.
        status: an HTTP status.
        mean_bytes: each connection is cut after a random number of bytes from the server, of which
            this is the mean; None for never.
        cuts: how many connections were cut.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.heads: list[str] = []
        self.strips = b""
        self.blocks_websockets = False
        self.status = 400
        self.mean_bytes: int | None = None
        self.cuts = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode("latin-1"))
            if self.blocks_websockets and b"upgrade: websocket" in head.lower():
                writer.write(REFUSAL % self.status)
                await writer.drain()
            else:
                await self._pass_on(head, reader, writer)
        self._writers.discard(writer)
        writer.transport.abort() if self.mean_bytes else writer.close()

    async def _pass_on(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        other_reader, other = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers.add(other)
        other.write(self._stripped(head))
        mean = self.mean_bytes
        budget = None if mean is None else int(random.uniform(0, 2 * mean))
        directions = [
            asyncio.create_task(self._copy(reader, other, None)),
            asyncio.create_task(self._copy(other_reader, writer, budget)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            self._writers.discard(other)
            other.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None
    ) -> None:
        while data := await reader.read(READ_BYTES):
            if budget is not None and (budget := budget - len(data)) < 0:
                writer.write(data[:budget])
                self.cuts += 1
                return
            if data.startswith((b"GET ", b"POST ")):  # another request on the same connection
                self.heads.append(data.decode("latin-1"))
                data = self._stripped(data)
            writer.write(data)
            await writer.drain()

    def _stripped(self, head: bytes) -> bytes:
        if not self.strips:
            return head
        lines = head.split(b"\r\n")
        prefix = self.strips + b":"
        return b"\r\n".join(line for line in lines if not line.lower().startswith(prefix))

    def cut(self) -> None:
        """Abort all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    @property
    def requests(self) -> list[str]:
        """The request lines without the HTTP version."""
        return [head.split(" HTTP/")[0] for head in self.heads]


@asynccontextmanager
async def proxy_to(port: int) -> AsyncIterator[Proxy]:
    """Run a proxy."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if task.get_coro().__qualname__ == "Proxy.serve":  # type: ignore[union-attr]
                task.cancel()
                await asyncio.wait([task])
