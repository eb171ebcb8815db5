"""What is mounted where.

``realtime.asgi.with_realtime`` uses it; a project that builds its own Channels routing puts
``websocket_urlpatterns`` into its ``URLRouter``.
"""

from __future__ import annotations

import re
from typing import Any

from django.urls import re_path

from realtime import conf
from realtime.consumers.websocket import WebSocketConsumer

__all__ = ["is_ours", "websocket_application", "websocket_urlpatterns"]

websocket_application: Any = WebSocketConsumer.as_asgi()


def _path() -> str:
    return f"{conf.get().prefix}ws"


def is_ours(path: str) -> bool:
    """Tell whether a WebSocket's path, without the slash in front, is one of this app's."""
    return path.removesuffix("/") == _path()


websocket_urlpatterns: list[Any] = [re_path(rf"^{re.escape(_path())}/?$", websocket_application)]
