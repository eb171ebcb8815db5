"""Everything that depends on the inside of Daphne, Twisted and autobahn.

Daphne's ``send()`` takes 40 microseconds a client, never waits, and its buffer has no bound.
So bytes that are the same for all clients are written to the socket itself where nothing waits
before them, which takes 7 (``docs/performance.md``); how much is unsent is read from the transport.
Each piece of the inside is looked for before it is used; where one is missing, and for each write
whose preconditions do not hold, the portable way is taken.

A frame is one piece of bytes, written whole or with its rest in the transport's buffer, and nothing
is written past a buffer that is not empty: so no frame of ours, and none of Daphne's (pings,
closes), comes to lie inside another.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from realtime.writers.asgi import AsgiWriter, Form, Send

__all__ = ["DaphneWriter", "is_secure", "protocol_of", "send_empty", "writer_for"]

logger = logging.getLogger("realtime")


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


def send_empty(send: Send, *, binary: bool) -> bool:
    """Send an empty WebSocket message, which Daphne drops; False on other servers, which send it.

    ``daphne.ws_protocol.WebSocketProtocol.handle_reply`` takes an empty text for no text.
    """
    protocol = protocol_of(send)
    if protocol is None or not hasattr(protocol, "sendMessage"):
        return False
    if protocol.state == protocol.STATE_OPEN:
        protocol.sendMessage(b"", binary)
    return True


def writer_for(send: Send, form: Form | None = None) -> AsgiWriter:
    """Return the best writer for a connection, by what its server can do.

    For a WebSocket after it was accepted.
    """
    protocol = protocol_of(send)
    if protocol is None:
        return AsgiWriter(send, form)
    kind = StreamWriter if hasattr(protocol, "channel") else WebSocketWriter
    return kind(send, protocol, form)


class DaphneWriter(AsgiWriter):
    """A writer that goes past Daphne where that is safe, and knows what is unsent where it is not.

    What it writes itself is not in Daphne's own statistics (the size in its access log).
    """

    __slots__ = ("_protocol", "_send_now", "_transport")

    def __init__(self, send: Send, protocol: Any, form: Form | None = None) -> None:
        super().__init__(send, form)
        self._protocol = protocol
        self._transport: Any = None
        # The socket object and never its number, which another client's socket may get.
        self._send_now: Callable[[bytes], int] | None = None
        transport: Any = getattr(protocol, "transport", None)
        if _is_understood() and _is_plain(transport) and self._has_what_is_asked():
            self._transport = transport
            self._send_now = transport.socket.send

    def _has_what_is_asked(self) -> bool:
        """Tell whether ``_is_ready()`` can be asked."""
        raise NotImplementedError("of a subclass")

    def _is_ready(self) -> bool:
        """Tell whether a frame may come next, as far as the protocol is concerned."""
        raise NotImplementedError("of a subclass")

    def _buffered(self) -> int:
        """Return the bytes in the transport's buffers; with TLS, those of the socket below too."""
        size = 0
        transport = getattr(self._protocol, "transport", None)
        while transport is not None:
            size += len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
            size += getattr(transport, "_tempDataLen", 0)
            # A TLS transport wraps the socket's one.
            transport = getattr(transport, "transport", None)
        return size

    def flush(self) -> bool:
        """Let what is queued leave; tell whether it went past the server."""
        send_now, queue = self._send_now, self.queue
        if send_now is None or self._task is not None or not queue or not self._is_ready():
            return super().flush()
        shared = self._form.shared
        if shared is None:
            data = self._form.own([frame for piece in queue for frame in piece.frames])
        elif len(queue) == 1:
            data = queue[0].made.get(shared) or queue[0].wire(shared)
        else:
            data = b"".join([piece.wire(shared) for piece in queue])
        queue.clear()
        size = len(data)
        flusher, transport = self._flusher, self._transport
        assert flusher is not None
        self._handed += size
        self.last_flush = flusher.now
        if transport.dataBuffer or transport._tempDataBuffer:
            # Behind what waits there, in order: bytes are taken from it by the transport alone.
            flusher.buffered += 1
            transport.write(data)
            return False
        try:
            sent = send_now(data)
        except OSError:
            sent = 0  # it is full, which the transport waits for, or broken, which it finds as well
        if sent < size:
            transport.write(data[sent:])
        return True


class WebSocketWriter(DaphneWriter):
    """Writes frames of a WebSocket."""

    __slots__ = ()

    def _has_what_is_asked(self) -> bool:
        protocol = self._protocol
        return (
            isinstance(getattr(protocol, "state", None), int)
            and getattr(protocol, "STATE_OPEN", None) == protocol.state
            and hasattr(protocol, "send_queue")
            # With a compressor each client's bytes are its own.
            and getattr(protocol, "_perMessageCompress", protocol) is None
        )

    def _is_ready(self) -> bool:
        protocol = self._protocol
        return (
            protocol.state == protocol.STATE_OPEN
            and not protocol.send_queue
            and not self._transport.disconnecting
        )


class StreamWriter(DaphneWriter):
    """Writes chunks of an event stream."""

    __slots__ = ()

    def _has_what_is_asked(self) -> bool:
        names = ("channel", "chunked", "startedWriting", "finished", "method")
        return all(hasattr(self._protocol, name) for name in names)

    def _is_ready(self) -> bool:
        """Whether chunks may come next: the head is written, and names their coding."""
        request = self._protocol
        return (
            request.chunked == 1  # set with the head, by HTTP/1.1 only
            and request.channel is not None
            and not request.finished
            and request.method != b"HEAD"
            and not self._transport.disconnecting
        )


def _is_plain(transport: Any) -> bool:
    """Tell whether a transport is a socket, of TCP or Unix, without TLS."""
    from twisted.internet import tcp

    return isinstance(transport, tcp.Connection) and not getattr(transport, "TLS", False)


@cache
def _is_understood() -> bool:
    """Tell whether Twisted's transports keep their bytes where this module looks for them.

    A transport is tried on a pair of sockets, once a process: what is written has to be seen in its
    buffers until it is sent, and in none of them afterwards.
    """
    try:
        if _try_transport():
            return True
        reason = "its buffers are not where they were"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    logger.warning(
        "this version of Twisted is not understood, so that events go to clients through Daphne, "
        "which takes about six times as long: %s",
        reason,
    )
    return False


class _NoReactor:
    """Takes what a transport asks of its reactor, and does nothing."""

    def addWriter(self, transport: Any) -> None:
        pass

    removeWriter = addReader = removeReader = addWriter


def _try_transport() -> bool:
    from twisted.internet import tcp

    ours, theirs = socket.socketpair()
    try:
        connection: Any = tcp.Connection
        transport = connection(ours, None, _NoReactor())
        transport.connected = 1
        is_empty = not transport.dataBuffer and not transport._tempDataBuffer
        transport.write(b"ab")
        is_kept = bool(transport._tempDataBuffer) and transport._tempDataLen == 2
        transport.doWrite()
        is_sent = theirs.recv(3) == b"ab" and not transport.dataBuffer
        is_empty_again = not transport._tempDataBuffer and not transport._tempDataLen
        # What the kernel does not take has to stay in the buffer.
        transport.write(large := b"x" * 8 * 1024 * 1024)
        transport.doWrite()
        is_rest_kept = 0 < len(transport.dataBuffer) - transport.offset < len(large)
        is_whole = transport.disconnecting == 0 and transport.socket is ours
        return all((is_empty, is_kept, is_sent, is_empty_again, is_rest_kept, is_whole))
    finally:
        ours.close()
        theirs.close()
