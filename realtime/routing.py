"""The paths of the transports.

``realtime.asgi.with_realtime`` uses them; a project that builds its own Channels routing puts
``websocket_urlpatterns`` and ``http_urlpatterns`` into its ``URLRouter``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from django.urls import re_path

from realtime import conf
from realtime.consumers.poll import poll
from realtime.consumers.send import send_command
from realtime.consumers.sse import event_stream
from realtime.consumers.websocket import WebSocketConsumer

__all__ = [
    "find_application",
    "http_urlpatterns",
    "is_below_prefix",
    "path_within_site",
    "warn_elsewhere",
    "websocket_urlpatterns",
]

logger = logging.getLogger("realtime")

MAX_LOGGED = 10  # paths
_logged: set[str] = set()

APPLICATIONS: dict[str, dict[str, Any]] = {
    "websocket": {"ws": WebSocketConsumer.as_asgi()},
    "http": {"sse": event_stream, "poll": poll, "send": send_command},
}


def path_within_site(scope: Mapping[str, Any]) -> str:
    """Return a request's path within the site, without the leading slash.

    Some servers and proxies pass on the path with that of the site in front of it, some without.
    """
    path: str = scope["path"]
    site = conf.script_name(scope.get("root_path") or "").rstrip("/")
    if f"{path}/".startswith(f"{site}/"):
        path = path[len(site) :]
    return path.lstrip("/")


def warn_elsewhere(scope: Mapping[str, Any], path: str) -> None:
    """Log if a client looks for our WebSocket below another path than ours.

    Each path is logged once, and ``MAX_LOGGED`` paths at most, because clients choose them.

    Args:
        scope: the scope of a WebSocket that nothing serves.
        path: its path within the site.
    """
    endpoint = f"/{conf.get().prefix}ws"
    parent, found, rest = f"/{path.rstrip('/')}".rpartition(endpoint)
    if not found or rest or not parent or parent in _logged or len(_logged) == MAX_LOGGED:
        return
    _logged.add(parent)
    remedy = "if the site is below %r, set FORCE_SCRIPT_NAME, or the server's root path"
    if (scope.get("root_path") or "").rstrip("/") == parent:
        remedy = (
            "the proxy and the server both put %r in front: let the proxy remove it, or set "
            "FORCE_SCRIPT_NAME instead of the server's root path"
        )
    message = f"a client asked for a WebSocket at %r, but this site has it at %r: {remedy}"
    logger.warning(f"{message} (docs/subpaths.md)", f"{parent}{endpoint}", endpoint, parent)


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
