"""The smallest WebSocket application: it sends back what it receives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from channels.consumer import AsyncConsumer

from realtime.writers.asgi import Send
from realtime.writers.daphne import send_empty

__all__ = ["EchoConsumer"]


class EchoConsumer(AsyncConsumer):
    """Echoes text as text and bytes as bytes.

    It reads no cookie and keeps no state, so it accepts every origin.
    """

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Send) -> None:
        """Run one connection."""
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            text, data = message.get("text"), message.get("bytes") or b""
            if not text and not data and send_empty(send, binary=text is None):
                continue
            if text is not None:
                await send({"type": "websocket.send", "text": text})
            else:
                await send({"type": "websocket.send", "bytes": data})
