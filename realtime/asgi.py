"""Serve realtime in ``asgi.py``: ``application = with_realtime(get_asgi_application())``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["with_realtime"]

Scope: TypeAlias = MutableMapping[str, Any]
Application: TypeAlias = Callable[[Scope, Any, Any], Awaitable[None]]


class _WithRealtime:
    """Serves our endpoints and passes everything else to an application."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _serve_lifespan(self.application, scope, receive, send)
            return
        if scope["type"] not in ("websocket", "http"):
            await self.application(scope, receive, send)
            return
        # Imported at the first call, so that asgi.py may import this module before django.setup().
        from realtime import routing
        from realtime.consumers.not_found import serve_unmatched

        path = scope["path"].removeprefix(scope.get("root_path", "") or "").lstrip("/")
        endpoint = routing.find_application(scope["type"], path)
        if endpoint is not None:
            serving = endpoint(scope, receive, send)
            del scope  # free the request now; a stream can last for hours
            await serving
        elif scope["type"] == "http" and routing.is_below_prefix(path):
            await serve_unmatched(self.application, scope, receive, send, path)
        elif scope["type"] == "http" or self._takes_websockets():
            await self.application(scope, receive, send)
        else:
            # Django would raise on a WebSocket. Closed before it was accepted, it is a 403.
            await receive()
            await send({"type": "websocket.close", "code": 4404})

    def _takes_websockets(self) -> bool:
        from django.core.handlers.asgi import ASGIHandler

        return not isinstance(self.application, ASGIHandler)


async def _serve_lifespan(application: Application, scope: Scope, receive: Any, send: Any) -> None:
    """Close the hub when the server stops, whether or not the application knows this protocol."""
    received: list[Any] = []

    async def receive_and_close() -> Any:
        event = await receive()
        received.append(event)
        if event["type"] == "lifespan.shutdown":
            from realtime.hub import close_hub

            await close_hub()
        return event

    try:
        await application(scope, receive_and_close, send)
    except Exception:
        if received:
            raise
        # It refuses the protocol before it reads anything, as Django does.
        await receive_and_close()
        await send({"type": "lifespan.startup.complete"})
        await receive_and_close()
        await send({"type": "lifespan.shutdown.complete"})


def with_realtime(application: Application) -> Application:
    """Return an ASGI application that serves realtime's paths and passes on everything else.

    It checks origins and authenticates by session.
    The project's own pages below the prefix are served as usual; a path below it that does not
    exist is answered in JSON, with the paths that do.

    Args:
        application: any ASGI application: ``get_asgi_application()``, a ``ProtocolTypeRouter``, …
    """
    return _WithRealtime(application)
