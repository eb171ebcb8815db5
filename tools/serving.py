"""The command that serves the demo: Daphne, with the options that docs/deploy.md explains."""

from collections.abc import Sequence

OPTIONS = {
    "ping-interval": "180",
    "ping-timeout": "30",
    "websocket_timeout": "-1",
    "websocket_connect_timeout": "20",
}
BACKLOG = 4096


def daphne(host: str, port: str | int, application: str) -> Sequence[str]:
    """Return the arguments for Python."""
    endpoint = f"tcp:port={port}:interface={host}:backlog={BACKLOG}"
    options = [text for name, value in OPTIONS.items() for text in (f"--{name}", value)]
    return ["-m", "daphne", "--endpoint", endpoint, *options, application]
