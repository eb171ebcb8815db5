"""The test project with short timeouts and a host of its own."""

import asyncio
import json
import logging
import threading
from typing import Any

from django.conf import settings

settings.MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", *settings.MIDDLEWARE]
settings.ALLOWED_HOSTS = ["127.0.0.1", "shop.example"]
# All clients have one address, and a test opens 500 streams of 100 topics.
given = getattr(settings, "REALTIME", {})
limits = {"anonymous_requests_per_second": 1_000_000, **given.get("LIMITS", {})}
settings.REALTIME = {**given, "LIMITS": limits}

from realtime.hub import member_writer  # noqa: E402 - after the settings
from realtime.writers import asgi  # noqa: E402 - after the settings
from tests.asgi import application as project  # noqa: E402

logging.getLogger("realtime").addHandler(logging.StreamHandler())
logging.getLogger("realtime").setLevel(logging.DEBUG)
asgi.STALL_SECONDS = 1.0
member_writer.STREAM_HOLD_SECONDS = 0.5
member_writer.POLL_HOLD_SECONDS = 3.0
asgi.CLOSE_SECONDS = 1.0


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve the project, and the current state of the hub under ``/state``."""
    if scope.get("path") != "/state":
        await project(scope, receive, send)
        return
    from realtime.hub import get_hub

    hub = get_hub()
    state = {
        "connections": len(hub.connections),
        "unsent": max((one.writer.unsent for one in hub.connections), default=0),
        "followers": sum(live.followers for live in hub.topics.values()),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "writes": hub.flusher.writes,
    }
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(state).encode()})


__all__ = ["application"]
