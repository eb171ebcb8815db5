"""The test project behind a proxy that terminates TLS; ``/whoami`` shows what it received."""

import json
import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

from django.conf import settings

settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

from realtime.hub import member_writer  # noqa: E402 - these settings are read only once

# Members leave quickly, so that no test waits half a minute after a poll.
member_writer.STREAM_HOLD_SECONDS = 0.5
member_writer.POLL_HOLD_SECONDS = 3.0

from tests.asgi import application as project  # noqa: E402

HEADERS = ("connection", "host", "x-forwarded-for", "x-forwarded-proto")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve the project, and under ``/whoami`` what a request looked like."""
    if scope["type"] != "http" or scope["path"] != "/whoami":
        await project(scope, receive, send)
        return
    headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
    received: dict[str, object] = {name: value for name, value in headers if name in HEADERS}
    received |= {"pid": os.getpid(), "client": scope["client"], "http": scope["http_version"]}
    answer = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": answer})
    await send({"type": "http.response.body", "body": json.dumps(received).encode()})


__all__ = ["application"]
