"""Clients on real sockets and Twisted transports, with fakes for Daphne's protocols."""

import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet import abstract, error, tcp
from twisted.python.failure import Failure

from realtime.protocol.encoders import Frame, http_chunk, websocket_frame
from realtime.writers.asgi import AsgiWriter, Framing
from realtime.writers.daphne import DaphneWriter, writer_for
from realtime.writers.flusher import Flusher
from tests.writers.support import LIMIT, connect, event, write_pass

PING = b"\x89\x04ping"
SMALL = 4_096  # of a socket's send buffer


class Reactor:
    """Records which transports want to read and write, and the delayed calls."""

    def __init__(self) -> None:
        self.writers: set[Any] = set()
        self.readers: set[Any] = set()
        self.later: list[Callable[[], object]] = []
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard
        self.addReader, self.removeReader = self.readers.add, self.readers.discard

    def callLater(self, _: float, call: Callable[..., object], *args: Any) -> None:
        self.later.append(partial(call, *args))


class Protocol:
    """The base of the fake protocols; ``handle_reply`` is a method of Daphne's server."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.replies: list[dict[str, Any]] = []
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        pass

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason

    def write(self, data: bytes) -> None:
        """Write as a TLS transport does, without encryption."""
        abstract.FileDescriptor.write(self.transport, data)

    async def handle_reply(self, message: Any) -> None:
        self.replies.append(message)
        self.transport.write(self.encode(message))

    def encode(self, message: Any) -> bytes:
        raise NotImplementedError("of a subclass")


class WebSocket(Protocol):
    """A fake of ``daphne.ws_protocol.WebSocketProtocol`` after the accept."""

    STATE_CLOSING, STATE_OPEN = 2, 3

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self.state = self.STATE_OPEN
        self.send_queue: deque[Any] = deque()
        self._perMessageCompress: Any = None

    def sendMessage(self, payload: bytes, isBinary: bool) -> None:
        raise AssertionError("events are text, and not empty")

    def encode(self, message: Any) -> bytes:
        if message["type"] == "websocket.close":
            self.state = self.STATE_CLOSING
            return b"\x88\x02" + message["code"].to_bytes(2, "big")
        return websocket_frame(message["text"])


class Request(Protocol):
    """A fake of ``daphne.http_protocol.WebRequest`` after the response head."""

    method = b"GET"
    chunked = 1
    finished = 0

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self.channel: Any = self

    def encode(self, message: Any) -> bytes:
        end = b"" if message["more_body"] else b"0\r\n\r\n"
        return http_chunk(message["body"]) + end


WebSocket.__module__ = "daphne.ws_protocol"
Request.__module__ = "daphne.http_protocol"


class Link:
    """A Twisted transport on one end of a socket pair; the peer has the other end.

    Attributes:
        transport: a real ``twisted.internet.tcp.Connection``.
        received: what the peer has read.
    """

    def __init__(self, flusher: Flusher, send_buffer: int = 0) -> None:
        self.flusher = flusher
        self.reactor = Reactor()
        self.socket, self.peer = socket.socketpair()
        if send_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.peer.setblocking(False)
        make: Any = tcp.Connection
        self.transport: Any = make(self.socket, None, self.reactor)
        self.transport.protocol = Protocol(self.transport)
        self.transport.connected = 1
        self.received = b""

    def open(self, protocol: Any = None, framing: Framing | None = None, limit: int = LIMIT) -> Any:
        """Return a connected writer for a protocol on this link; a WebSocket if None."""
        protocol = protocol or WebSocket(self.transport)
        self.transport.protocol = protocol
        writer = writer_for(partial(type(protocol).handle_reply, protocol), framing)
        # As Daphne makes `send`: a partial with the protocol as its only argument.
        assert isinstance(writer, DaphneWriter)
        connect(self.flusher, writer, limit)
        return writer

    def read(self, most: int = 1 << 30) -> bytes:
        """Make the peer read what has arrived."""
        data = b""
        while len(data) < most:
            try:
                part = self.peer.recv(min(most - len(data), 1 << 20))
            except BlockingIOError:
                break
            if not part:
                break
            data += part
        self.received += data
        return data

    def work(self) -> Any:
        """Act as the reactor on a writable socket; return the error, if there is one."""
        if self.transport not in self.reactor.writers:
            return None
        why = self.transport.doWrite()
        if why:
            self.transport.connectionLost(Failure(why))
        return why

    @property
    def buffered(self) -> int:
        """Bytes in the transport's buffers."""
        return len(self.transport.dataBuffer) - self.transport.offset + self.transport._tempDataLen

    def drain(self) -> bytes:
        """Send everything to the peer; return all that it has read."""
        while True:
            before = self.buffered
            self.work()
            if not self.read() and self.buffered == before:
                return self.received

    def close(self) -> None:
        if hasattr(self.transport, "socket"):
            self.transport.connectionLost(Failure(error.ConnectionDone()))
        self.socket.close()
        self.peer.close()


def fill(link: Link) -> int:
    """Fill the socket of a link; return how many bytes it took."""
    count = 0
    while True:
        try:
            count += link.socket.send(b"." * 1_000)
        except BlockingIOError:
            return count


def shown(*names: str) -> list[str]:
    """Return the texts of the events with these names."""
    return [event(name).text for name in names]


def write_pass_to(flusher: Flusher, frame: Frame, *writers: AsgiWriter) -> None:
    """Write a frame to clients in a write pass, if they are ready."""
    write_pass(flusher, frame, {object(): writer for writer in writers})
