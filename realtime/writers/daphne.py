"""Everything that depends on the inside of Daphne and Twisted.

Daphne's ``send()`` never waits and its buffer has no bound, so how much of what was written is
still unsent is read from the transport.
Each piece is looked for before it is used; where one is missing, the portable way is taken.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from realtime.writers.asgi import AsgiWriter, Form, Send

__all__ = ["DaphneWriter", "is_secure", "protocol_of", "writer_for"]


def protocol_of(send: Send) -> Any | None:
    """Return Daphne's protocol object behind an ASGI ``send``; None on any other server.

    ``daphne.server.Server.create_application`` makes ``send`` as
    ``partial(self.handle_reply, protocol)``.
    """
    if not isinstance(send, partial) or len(send.args) != 1 or send.keywords:
        return None
    protocol = send.args[0]
    if not type(protocol).__module__.startswith("daphne."):
        return None
    return protocol


def is_secure(send: Send) -> bool | None:
    """Tell whether a Daphne connection speaks TLS; None where that cannot be known.

    Daphne's WebSocket scope has no scheme.
    """
    transport = getattr(protocol_of(send), "transport", None)
    if transport is None:
        return None
    return hasattr(transport, "getPeerCertificate")


def _buffered(transport: Any) -> int:
    """Return the bytes in a Twisted transport's buffers; with TLS, those of the socket below."""
    size = 0
    while transport is not None:
        size += len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
        size += getattr(transport, "_tempDataLen", 0)
        # A TLS transport wraps the socket's one.
        transport = getattr(transport, "transport", None)
    return size


class DaphneWriter(AsgiWriter):
    """The portable writer, which knows what Daphne has not sent yet."""

    def __init__(self, send: Send, protocol: Any, form: Form | None = None) -> None:
        super().__init__(send, form)
        self._protocol = protocol

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the kernel has not taken."""
        return self._queued + _buffered(getattr(self._protocol, "transport", None))


def writer_for(send: Send, form: Form | None = None) -> AsgiWriter:
    """Return the best writer for a connection, by what its server can do."""
    protocol = protocol_of(send)
    return AsgiWriter(send, form) if protocol is None else DaphneWriter(send, protocol, form)
