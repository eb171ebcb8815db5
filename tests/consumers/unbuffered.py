"""The test project on sockets of which the kernel buffers little, so that the server buffers."""

import socket
from typing import Any

from twisted.internet import tcp

from tests.asgi import application

__all__ = ["application"]

_create: Any = tcp.Port.createInternetSocket


def create_with_small_buffer(port: Any) -> Any:
    """Return a listening socket whose connections inherit a small buffer."""
    made = _create(port)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    return made


setattr(tcp.Port, "createInternetSocket", create_with_small_buffer)  # noqa: B010 (not typed)
