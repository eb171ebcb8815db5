"""The paths of the transports.

``realtime.asgi.with_realtime`` uses them; a project that builds its own Channels routing puts
``websocket_urlpatterns`` and ``http_urlpatterns`` into its ``URLRouter``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cache
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


def warn_elsewhere(path: str) -> None:
    """Log, once per process, if a client looks for our WebSocket below another path than ours."""
    parent, found, rest = path.rstrip("/").rpartition(f"/{conf.get().prefix}ws")
    if found and not rest:
        _warn_elsewhere(parent)


@cache
def _warn_elsewhere(parent: str) -> None:
    endpoint = f"/{conf.get().prefix}ws"
    logger.warning(
        "a client asked for a WebSocket at /%s%s, but this site has it at %s: if the site is below "
        "/%s, set FORCE_SCRIPT_NAME, or the server's root path (docs/subpaths.md)",
        parent,
        endpoint,
        endpoint,
        parent,
    )


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
