"""What is below our prefix and none of our paths.

The project may have pages of its own there, so it is asked first.
Where it has none, its answer would be a page of HTML which no client of ours understands, and
which does not say that only the path is wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from django.urls import Resolver404, resolve

from realtime import conf
from realtime.consumers.http import HttpError, Receive, Request, Response, answer
from realtime.writers.asgi import Send
from realtime.writers.daphne import is_secure

__all__ = ["pass_on"]


async def pass_on(
    application: Callable[[Any, Any, Any], Awaitable[None]],
    scope: Mapping[str, Any],
    receive: Receive,
    send: Send,
    path: str,
) -> None:
    """Let the project answer; if it knows nothing of the path, say which paths there are.

    Args:
        application: the project's.
        scope: of an HTTP request.
        receive: the server's.
        send: the server's.
        path: without the root path, and without the slash in front.
    """
    is_replaced = False

    async def answer_of_project(message: Any) -> None:
        nonlocal is_replaced
        if is_replaced:
            return  # the body of its page
        is_replaced = (
            message["type"] == "http.response.start"
            and message["status"] == HTTPStatus.NOT_FOUND
            and not _is_the_projects(path)
        )
        if is_replaced:
            await answer(Request(scope), send, is_secure(send), _refuse(path))
        else:
            await send(message)

    await application(scope, receive, answer_of_project)


def _is_the_projects(path: str) -> bool:
    """Tell whether one of the project's views has the path, and itself answered that it is not."""
    try:
        resolve(f"/{path}")
    except Resolver404:
        return False
    return True


async def _refuse(path: str) -> Response | None:
    prefix = conf.get().prefix
    reason = f"there is nothing at /{path}"
    hint = f"use ws, sse, poll or send below /{prefix}"
    if path.removeprefix(prefix).rstrip("/") == "ws":
        reason = f"/{path} is for WebSockets, and this request is none"
        hint = "connect with a WebSocket, and let proxies pass on Upgrade; or use sse or poll"
    raise HttpError(HTTPStatus.NOT_FOUND, "not_found", reason, hint)
