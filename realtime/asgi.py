"""Serve realtime in ``asgi.py``: ``application = with_realtime(get_asgi_application())``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["is_mounted", "with_realtime"]

Scope: TypeAlias = MutableMapping[str, Any]
Application: TypeAlias = Callable[[Scope, Any, Any], Awaitable[None]]

NO_ASYNCIO = (
    "realtime needs asyncio, and this server runs the application without it; start the server "
    "with its asyncio worker: hypercorn --worker-class asyncio, not trio"
)


class _WithRealtime:
    """Serves our endpoints and passes everything else to an application."""

    in_use = False  # for the system check

    def __init__(self, application: Application) -> None:
        self.application = application
        _WithRealtime.in_use = True

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if not _is_asyncio():
            if scope["type"] != "lifespan":
                raise RuntimeError(NO_ASYNCIO)
            await receive()  # without it, the server takes a failure for a refusal of the protocol
            await send({"type": "lifespan.startup.failed", "message": NO_ASYNCIO})
            return
        if scope["type"] == "lifespan":
            await _serve_lifespan(self.application, scope, receive, send)
            return
        if scope["type"] not in ("websocket", "http"):
            await self.application(scope, receive, send)
            return
        # Imported at the first call: asgi.py can import this module before django.setup().
        from realtime import routing
        from realtime.auth.addresses import is_trusted_proxy
        from realtime.consumers.not_found import serve_unmatched
        from realtime.writers.daphne import root_paths_of

        started, requested = root_paths_of(send)
        if started != requested and not is_trusted_proxy(scope):
            # From the header Daphne-Root-Path, which any client can send: it would lead the links
            # of this page, and with a relative STATIC_URL of all later ones, somewhere else.
            root_path = scope.get("root_path", "") or ""
            scope["root_path"] = started + root_path.removeprefix(requested)
        path = routing.path_within_site(scope)
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
            routing.warn_elsewhere(scope, path)
            # Django would raise an error for a WebSocket. A close before the accept sends a 403.
            await receive()
            await send({"type": "websocket.close", "code": 4404})

    def _takes_websockets(self) -> bool:
        from django.core.handlers.asgi import ASGIHandler

        return not isinstance(self.application, ASGIHandler)


def _is_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


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

    It checks origins and authenticates clients by token or session.
    The project's own pages below the prefix are served as usual. A request for any other path below
    it gets a JSON error that names realtime's paths.

    Args:
        application: any ASGI application: ``get_asgi_application()``, a ``ProtocolTypeRouter``, …
    """
    return _WithRealtime(application)


def is_mounted(application: object) -> bool:
    """Return False if an application certainly does not serve realtime's paths.

    Middleware can hide the application, so this looks at what the process has imported, too:
    ``with_realtime()`` was called, or ``realtime.routing`` is part of a routing of the project.
    """
    from django.core.handlers.asgi import ASGIHandler

    if isinstance(application, ASGIHandler):
        return False
    return _WithRealtime.in_use or "realtime.routing" in sys.modules
