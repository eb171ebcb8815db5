"""What is mounted where, for projects that build their own Channels routing.

``realtime.asgi.with_realtime`` does the same and more; use this list inside a ``URLRouter`` only if
something of yours must stand around it.
"""

from __future__ import annotations

import re
from typing import Any

from django.urls import re_path

from realtime import conf
from realtime.consumers.websocket import WebSocketConsumer

__all__ = ["websocket_urlpatterns"]

_prefix = re.escape(conf.get().prefix)

websocket_urlpatterns: list[Any] = [
    re_path(rf"^{_prefix}ws/?$", WebSocketConsumer.as_asgi()),
]
