"""The server's side of a client without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from realtime.auth.users import Identity
from realtime.consumers.websocket import WebSocketConsumer

if TYPE_CHECKING:
    from realtime.hub import Hub
    from realtime.writers.asgi import Send

__all__ = ["KnownUserConsumer"]


class KnownUserConsumer(WebSocketConsumer):
    """The WebSocket consumer, for a user who is known already."""

    def __init__(self, user: Any, hub: Hub) -> None:
        super().__init__()
        self._user = user
        self._hub = hub

    def is_allowed(self, send: Send) -> bool:
        """Let it in: there is no page, and no host that it asked for."""
        return True

    async def identify(self, token: str | None = None) -> Identity:
        """Return who it is."""
        return Identity(self._user) if token is None else await super().identify(token)

    def get_hub(self) -> Hub:
        """Return the hub of the environment."""
        return self._hub
