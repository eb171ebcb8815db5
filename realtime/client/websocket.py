"""The link over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import websockets.asyncio.client
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from realtime.client.links import (
    OPEN_SECONDS,
    Address,
    Frame,
    Hear,
    LinkClosed,
    Silence,
    decode,
    refused,
)

__all__ = ["WebSocketLink"]

MAX_BYTES = 2**24  # of a frame; the server's own limit of an event is 64 KB unless it was raised
CLOSE_SECONDS = 1.0  # that the server has for its part of a close


class _Connect(websockets.asyncio.client.connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow none: our headers go to the address that was given."""
        return exc


class WebSocketLink:
    """Each frame in a text frame."""

    name = "websocket"

    def __init__(self, address: Address) -> None:
        self._address = address
        self._silence = Silence()
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()
        self._socket: ClientConnection | None = None

    async def open(self, hear: Hear) -> None:
        """Connect and take the welcome."""
        self._hear = hear
        url = self._address.of("ws")
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                tls: dict[str, Any] = {}
                if url.startswith("https"):
                    tls["ssl"] = self._address.ssl
                self._socket = await _Connect(
                    url.replace("http", "ws", 1),
                    additional_headers=self._address.headers,
                    open_timeout=None,
                    ping_interval=None,  # heartbeats tell more: that frames come through
                    close_timeout=CLOSE_SECONDS,
                    max_size=MAX_BYTES,
                    **tls,
                )
                await self._welcome(self._socket)
        except InvalidStatus as error:
            raise refused(error.response.status_code, url, error.response.headers) from error
        except TimeoutError as error:
            raise LinkClosed(1006, f"{url} did not answer", blocked=True) from error
        except ConnectionClosed as error:
            raise LinkClosed(_code(error), str(error), blocked=True) from error
        except (WebSocketException, EOFError) as error:
            raise LinkClosed(1006, f"{url}: {error}", blocked=True) from error
        except OSError as error:
            raise LinkClosed(1006, f"{url}: {error}") from error

    async def _welcome(self, socket: ClientConnection) -> None:
        """Take frames up to the first that says more than that a proxy is there."""
        said = ""
        while True:
            frame = decode(await socket.recv())
            if frame is None:
                continue
            self._silence.heed(frame)
            self._hear(frame)
            if frame["type"] == "welcome":
                return
            said = str(frame.get("message", said))

    async def run(self) -> None:
        """Carry frames until the end."""
        assert self._socket is not None
        writing = asyncio.create_task(self._write(self._socket))
        try:
            while True:
                async with asyncio.timeout(self._silence.seconds):
                    text = await self._socket.recv()
                frame = decode(text)
                if frame is not None:
                    self._silence.heed(frame)
                    self._hear(frame)
        except TimeoutError as error:
            raise LinkClosed(1006, f"nothing came for {self._silence.seconds:g} s") from error
        except ConnectionClosed as error:
            raise LinkClosed(_code(error), str(error)) from error
        finally:
            writing.cancel()
            await asyncio.wait([writing])

    async def _write(self, socket: ClientConnection) -> None:
        try:
            while True:
                await socket.send(await self._outgoing.get())
        except ConnectionClosed:
            pass  # the reading side tells

    def send(self, frame: Frame) -> None:
        """Send a frame."""
        self._outgoing.put_nowait(json.dumps(frame))

    async def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            await self._socket.close()


def _code(error: ConnectionClosed) -> int:
    return 1006 if error.rcvd is None else error.rcvd.code
