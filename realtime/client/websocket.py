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
    LinkClosed,
    OnFrame,
    Silence,
    closed_by_status,
    decode,
)

__all__ = ["WebSocketLink"]

MAX_BYTES = 2**24  # maximum size of a frame; the server limits an event to 64 KB by default
CLOSE_SECONDS = 1.0  # timeout for the server's part of the closing handshake


class _Connect(websockets.asyncio.client.connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """Do not follow redirects: they would send our headers to another address."""
        return exc


class WebSocketLink:
    """A link over a WebSocket; each frame is one text message."""

    name = "websocket"

    def __init__(self, address: Address) -> None:
        self._address = address
        self._silence = Silence()
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()
        self._socket: ClientConnection | None = None

    async def open(self, on_frame: OnFrame) -> None:
        """Connect and wait for the welcome frame; see ``Link``."""
        self._on_frame = on_frame
        url = self._address.of("ws")
        authorization = await self._address.authorization()
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                tls: dict[str, Any] = {}
                if url.startswith("https"):
                    tls["ssl"] = self._address.ssl
                self._socket = await _Connect(
                    url.replace("http", "ws", 1),
                    additional_headers={**self._address.headers, **authorization},
                    open_timeout=None,
                    ping_interval=None,  # heartbeats also prove that frames arrive
                    close_timeout=CLOSE_SECONDS,
                    max_size=MAX_BYTES,
                    **tls,
                )
                await self._welcome(self._socket)
        except InvalidStatus as error:
            raise closed_by_status(
                error.response.status_code, url, error.response.headers
            ) from error
        except TimeoutError as error:
            raise LinkClosed(1006, f"{url} did not answer", blocked=True) from error
        except ConnectionClosed as error:
            raise LinkClosed(_code(error), str(error), blocked=True) from error
        except (WebSocketException, EOFError) as error:
            raise LinkClosed(1006, f"{url}: {error}", blocked=True) from error
        except OSError as error:
            raise LinkClosed(1006, f"{url}: {error}") from error

    async def _welcome(self, socket: ClientConnection) -> None:
        """Receive frames up to the welcome, which proves that our server answers, not a proxy."""
        while True:
            frame = decode(await socket.recv())
            if frame is None:
                continue
            self._silence.update(frame)
            self._on_frame(frame)
            if frame["type"] == "welcome":
                return

    async def run(self) -> None:
        """Receive frames until the link is closed; see ``Link``."""
        assert self._socket is not None
        writing = asyncio.create_task(self._write(self._socket))
        try:
            while True:
                async with asyncio.timeout(self._silence.seconds):
                    text = await self._socket.recv()
                frame = decode(text)
                if frame is not None:
                    self._silence.update(frame)
                    self._on_frame(frame)
        except TimeoutError as error:
            raise LinkClosed(1006, f"no frame arrived for {self._silence.seconds:g} s") from error
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
            pass  # run() raises

    def send(self, frame: Frame) -> None:
        """Queue a frame to be sent; see ``Link``."""
        self._outgoing.put_nowait(json.dumps(frame))

    async def close(self) -> None:
        """Close the WebSocket; see ``Link``."""
        if self._socket is not None:
            await self._socket.close()


def _code(error: ConnectionClosed) -> int:
    return 1006 if error.rcvd is None else error.rcvd.code
