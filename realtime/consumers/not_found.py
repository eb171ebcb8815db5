"""Requests below our prefix that match no endpoint.

The project can have pages of its own there, so it answers first.
If no page of the project matches, a JSON error replaces its 404 page: clients of the endpoints
expect JSON, and the error names the paths that exist.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from django.urls import Resolver404, resolve

from realtime import conf
from realtime.consumers.http import HttpError, Receive, Request, Response, answer
from realtime.writers.asgi import Send
from realtime.writers.daphne import is_secure

__all__ = ["serve_unmatched"]

logger = logging.getLogger("realtime")

NO_WEBSOCKETS = (
    "a client asked for a WebSocket at /%s, and the server passed on a plain HTTP request: it has "
    "no WebSocket support, so clients use event streams instead. For uvicorn, pip install "
    "websockets, and start it without --ws none; for granian, start it without --no-ws"
)
NO_UPGRADE = (
    "a client asked for a WebSocket at /%s, but its header Upgrade: websocket did not arrive, so "
    "clients use event streams instead. Let the proxy in front of this server pass on the headers "
    "Upgrade and Connection, and speak HTTP/1.1 to it"
)
_logged: set[str] = set()  # the messages that this process has logged


async def serve_unmatched(
    application: Callable[[Any, Any, Any], Awaitable[None]],
    scope: Mapping[str, Any],
    receive: Receive,
    send: Send,
    path: str,
) -> None:
    """Pass a request to the project; if it has no such path, send an error that names ours.

    Args:
        application: the project's ASGI application.
        scope: the scope of an HTTP request.
        receive: the server's ``receive``.
        send: the server's ``send``.
        path: the requested path, without the root path, and without the leading slash.
    """
    if _is_websocket_path(path):
        _log_lost_websocket(path, dict(scope["headers"]))
    is_replaced = False

    async def send_or_replace(message: Any) -> None:
        nonlocal is_replaced
        if is_replaced:
            return  # the body of the project's page
        is_replaced = (
            message["type"] == "http.response.start"
            and message["status"] == HTTPStatus.NOT_FOUND
            and not _project_has(path)
        )
        if is_replaced:
            await answer(Request(scope), send, is_secure(send), _refuse(path))
        else:
            await send(message)

    await application(scope, receive, send_or_replace)


def _project_has(path: str) -> bool:
    """Tell whether a view of the project matches the path; a 404 is then the view's own."""
    try:
        resolve(f"/{path}")
    except Resolver404:
        return False
    return True


def _is_websocket_path(path: str) -> bool:
    return path.removeprefix(conf.get().prefix).rstrip("/") == "ws"


def _log_lost_websocket(path: str, headers: Mapping[bytes, bytes]) -> None:
    """Log, once per process, why the handshake of a WebSocket arrived as a plain request."""
    if b"sec-websocket-key" not in headers:
        return  # not a handshake
    upgrade = headers.get(b"upgrade", b"").lower()
    message = NO_WEBSOCKETS if upgrade == b"websocket" else NO_UPGRADE
    if message not in _logged:
        _logged.add(message)
        logger.warning(message, path)


async def _refuse(path: str) -> Response | None:
    prefix = conf.get().prefix
    reason = f"there is nothing at /{path}"
    hint = f"use ws, sse, poll or send below /{prefix}"
    if _is_websocket_path(path):
        reason = f"/{path} is for WebSockets, and this is an ordinary request"
        hint = "connect with a WebSocket, and let proxies pass on Upgrade; or use sse or poll"
    raise HttpError(HTTPStatus.NOT_FOUND, "not_found", reason, hint)
