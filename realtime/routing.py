"""The paths of the transports.

``realtime.asgi.with_realtime`` uses them; a project that builds its own Channels routing puts
``websocket_urlpatterns`` and ``http_urlpatterns`` into its ``URLRouter``.
"""

from __future__ import annotations

import re
from typing import Any

from django.urls import re_path

from realtime import conf
from realtime.consumers.poll import poll
from realtime.consumers.send import send_command
from realtime.consumers.sse import event_stream
from realtime.consumers.websocket import WebSocketConsumer

__all__ = ["find_application", "http_urlpatterns", "is_below_prefix", "websocket_urlpatterns"]

APPLICATIONS: dict[str, dict[str, Any]] = {
    "websocket": {"ws": WebSocketConsumer.as_asgi()},
    "http": {"sse": event_stream, "poll": poll, "send": send_command},
}


def find_application(kind: str, path: str) -> Any | None:
    """Return the application that serves a path; None if there is none.

    Args:
        kind: the type of the ASGI scope.
        path: without the leading slash.
    """
    prefix = conf.get().prefix
    if not path.startswith(prefix):
        return None
    return APPLICATIONS[kind].get(path.removeprefix(prefix).removesuffix("/"))


def is_below_prefix(path: str) -> bool:
    """Tell whether a path, without the leading slash, is below the prefix."""
    return f"{path}/".startswith(conf.get().prefix)


def _urlpatterns(kind: str) -> list[Any]:
    prefix = re.escape(conf.get().prefix)
    return [
        re_path(rf"^{prefix}{name}/?$", application)
        for name, application in APPLICATIONS[kind].items()
    ]


websocket_urlpatterns: list[Any] = _urlpatterns("websocket")
http_urlpatterns: list[Any] = _urlpatterns("http")
