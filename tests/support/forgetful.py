"""A TCP balancer that forgets its connections: they stay open, and nothing arrives any more."""

import asyncio
import threading

from tests.support.server import free_port


class ForgetfulBalancer:
    """Forwards connections to a port of this machine; as a context manager it starts and stops.

    Attributes:
        port: where it listens.
        accepted: how many connections it has accepted.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = free_port()
        self.accepted = 0
        self._forgotten = 0  # connections up to this one are forgotten
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)
        self._is_listening = threading.Event()

    def __enter__(self) -> "ForgetfulBalancer":
        self._thread.start()
        assert self._is_listening.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def forget(self) -> None:
        """Pass nothing more on over the connections that are open now."""
        self._forgotten = self.accepted

    async def _listen(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._is_listening.set()
        await self._stopped.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        number = self.accepted
        other_reader, other = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            await asyncio.gather(
                self._copy(number, reader, other), self._copy(number, other_reader, writer)
            )
        except OSError:
            pass  # one side has closed the connection
        finally:
            other.transport.abort()
            writer.transport.abort()

    async def _copy(
        self, number: int, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(65_536):
            if number > self._forgotten:
                target.write(data)
        target.close()
