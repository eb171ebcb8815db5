"""A site below the path /app, in each layout of docs/subpaths.md."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.nginx import GET_NGINX, nginx, nginx_path
from tests.support.server import Server
from tests.support.services import require

KEEPS = "http://site"
STRIPS = "http://site/"
FORCED = {"FORCE_SCRIPT_NAME": "/app"}
ROOT_PATH = ("--root-path", "/app")

# The server, its options, the project's settings, and what nginx passes on; None is no nginx.
LAYOUTS: dict[str, tuple[str, tuple[str, ...], dict[str, str], str | None]] = {
    "forced name, the proxy keeps the path": ("daphne", (), FORCED, KEEPS),
    "forced name, the proxy removes the path": ("daphne", (), FORCED, STRIPS),
    "daphne root path, the proxy keeps the path": ("daphne", ROOT_PATH, {}, KEEPS),
    "daphne root path, the proxy removes the path": ("daphne", ROOT_PATH, {}, STRIPS),
    "uvicorn root path, the proxy removes the path": ("uvicorn", ROOT_PATH, {}, STRIPS),
    "uvicorn and a forced name, the proxy keeps the path": ("uvicorn", (), FORCED, KEEPS),
    "runserver and a forced name, without a proxy": ("runserver", (), FORCED, None),
}

PROXY = """
location /app/ {
    proxy_pass %s;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $ws_connection;
    proxy_buffering off;
}"""
CONNECTION = 'if ($http_upgrade) { set $ws_connection "upgrade"; }'


@dataclass
class Site:
    """A running site below /app.

    Attributes:
        server: its server.
        port: the port that clients use: that of nginx, or of the server.
    """

    server: Server
    port: int

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/app"


@contextlib.contextmanager
def site_below_path(layout: str, folder: Path) -> Iterator[Site]:
    """Run a site in one of the layouts."""
    name, options, settings, target = LAYOUTS[layout]
    path = require(nginx_path(), GET_NGINX) if target else None
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(folder, name=name, options=options, settings=settings))
        port = server.port
        if path is not None and target is not None:
            locations = f'set $ws_connection ""; {CONNECTION} {PROXY % target}'
            port = stack.enter_context(nginx(path, folder, [server.port], locations))
        yield Site(server, port)
