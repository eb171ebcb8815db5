"""A loop that turns by hand, clients on paper, and clients on real sockets of Twisted's."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet import error, tcp
from twisted.python.failure import Failure

from realtime.encoders import Frame, Wire, http_chunk, websocket_frame
from realtime.hub.connection import Connection
from realtime.writers.asgi import AsgiWriter, Form
from realtime.writers.daphne import DaphneWriter, writer_for
from realtime.writers.flusher import Flusher

LIMIT = 1024 * 1024


class HandLoop:
    """An event loop that turns when it is told to, on a clock that others move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.callbacks: deque[Callable[[], object]] = deque()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.callbacks.append(callback)

    def turn(self) -> float:
        """Call what was called for until now; return how long that took."""
        begin = self.now
        for _ in range(len(self.callbacks)):
            self.callbacks.popleft()()
        return self.now - begin

    def turns(self, most: int = 1_000) -> int:
        """Turn until nothing is left to do; return how often that was."""
        for count in range(most):
            if not self.callbacks:
                return count
            self.turn()
        raise AssertionError(f"it never ends: {len(self.callbacks)} callbacks after {most} turns")

    def flusher(self) -> Flusher:
        return Flusher(cast(asyncio.AbstractEventLoop, self))


def payloads(data: bytes) -> list[tuple[int, bytes]]:
    """Parse the whole frames of a server, strictly; return the opcode and payload of each."""
    frames, at = [], 0
    while at < len(data):
        first, length = data[at], data[at + 1]
        assert first & 0xF0 == 0x80, f"no beginning of a frame: {data[at : at + 20]!r}"
        assert first & 0x0F in (1, 2, 8, 9, 10), f"no opcode: {first & 15}"
        assert length < 128, "a server's frames are not masked"
        at += 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        assert at + length <= len(data), "the last frame is cut"
        frames.append((first & 0x0F, data[at : at + length]))
        at += length
    return frames


def texts(data: bytes) -> list[str]:
    """Return the texts of what must be text frames only."""
    frames = payloads(data)
    assert all(opcode == 1 for opcode, _ in frames)
    return [payload.decode() for _, payload in frames]


class PaperWriter(AsgiWriter):
    """A way to a client whose socket, buffer and costs are in the hands of the test.

    Attributes:
        writes: what was written, each by one call.
        kernel: bytes that its socket takes before it is full.
        buffer: what waits in the transport.
        received: what the socket has taken.
        broken: the next write raises.
        cost: seconds on the loop's clock that a write takes.
    """

    def __init__(self, loop: HandLoop, *, kernel: int = 1 << 40, cost: float = 0.0) -> None:
        super().__init__(_nowhere)
        self.loop = loop
        self.writes: list[bytes] = []
        self.kernel = kernel
        self.buffer = b""
        self.received = b""
        self.broken = False
        self.cost = cost

    def settled(self) -> "PaperWriter":
        """Be ready, as after a write that the socket took whole."""
        self.ready = self.send
        return self

    @property
    def data(self) -> bytes:
        """All that was written, sent or not."""
        return self.received + self.buffer

    def send(self, data: bytes) -> int:
        self.loop.now += self.cost
        self.writes.append(data)
        if self.kernel == 0:
            raise BlockingIOError
        sent = min(len(data), self.kernel)
        self.kernel -= sent
        self.received += data[:sent]
        return sent

    def flush(self) -> None:
        if not self.queue:
            return
        if self.broken:
            raise RuntimeError("broken as it was told")
        pieces = [piece.wire(Wire.WEBSOCKET) for piece in self.queue]
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.queue.clear()
        if self.buffer:
            self.loop.now += self.cost
            self.writes.append(data)
            self.buffer += data
            self.look()
            return
        try:
            sent = self.send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            self.keep(data[sent:])
        else:
            self.ready = self.send

    def keep(self, rest: bytes) -> None:
        if self.broken:
            raise RuntimeError("broken as it was told")
        self.ready = None
        self.buffer += rest
        self.look()

    def read(self, count: int) -> None:
        """Let the client read so many bytes, and the transport go on."""
        sent, self.buffer = self.buffer[:count], self.buffer[count:]
        self.received += sent
        self.kernel += count - len(sent)
        if not self.buffer and not self.queue and not self.closed:
            self.ready = self.send

    def _buffered(self) -> int:
        return len(self.buffer)


async def _nowhere(message: Any) -> None:
    raise AssertionError("a client on paper has no server")


def connect(flusher: Flusher, writer: AsgiWriter, limit: int = LIMIT) -> Connection:
    """Return a connection of a hub that has nothing but connections."""
    hub: Any = SimpleNamespace(flusher=flusher, connections=set())
    return Connection(hub, None, writer, limit, lambda code: None)


class Reactor:
    """Remembers who wants to read and write, and calls later when it is told to."""

    def __init__(self) -> None:
        self.writers: set[Any] = set()
        self.readers: set[Any] = set()
        self.later: list[Callable[[], object]] = []
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard
        self.addReader, self.removeReader = self.readers.add, self.readers.discard

    def callLater(self, _: float, call: Callable[..., object], *args: Any) -> None:
        self.later.append(partial(call, *args))


class Protocol:
    """What is common to the stand-ins for Daphne's protocols; ``handle_reply`` is its server's."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.replies: list[dict[str, Any]] = []
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        pass

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason

    async def handle_reply(self, message: Any) -> None:
        self.replies.append(message)
        self.transport.write(self.encode(message))

    def encode(self, message: Any) -> bytes:
        raise NotImplementedError


class WebSocket(Protocol):
    """Stands in for ``daphne.ws_protocol.WebSocketProtocol`` after the accept."""

    STATE_CLOSING, STATE_OPEN = 2, 3

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self.state = self.STATE_OPEN
        self.send_queue: deque[Any] = deque()
        self._perMessageCompress: Any = None

    def encode(self, message: Any) -> bytes:
        if message["type"] == "websocket.close":
            self.state = self.STATE_CLOSING
            return b"\x88\x02" + message["code"].to_bytes(2, "big")
        return websocket_frame(message["text"])


class Request(Protocol):
    """Stands in for ``daphne.http_protocol.WebRequest`` whose head is written."""

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


class Line:
    """A transport of Twisted's on one end of a pair of sockets; the peer has the other.

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

    def open(self, protocol: Any = None, form: Form | None = None, limit: int = LIMIT) -> Any:
        """Return a writer for a protocol on this line, ready to write; a WebSocket if None."""
        protocol = protocol or WebSocket(self.transport)
        self.transport.protocol = protocol
        writer = writer_for(partial(type(protocol).handle_reply, protocol), form)
        # Daphne's `send` has the protocol as its one argument, and nothing else.
        assert isinstance(writer, DaphneWriter)
        writer.attach(self.flusher, limit)
        return writer

    def read(self, most: int = 1 << 30) -> bytes:
        """Let the peer read what is there."""
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
        """Do what the reactor does when the socket can be written to; return what went wrong."""
        if self.transport not in self.reactor.writers:
            return None
        why = self.transport.doWrite()
        if why:
            self.transport.connectionLost(Failure(why))
        return why

    def drain(self) -> bytes:
        """Let everything go to the peer; return all that it has read."""
        while self.work() is None and (self.read() or self.transport in self.reactor.writers):
            pass
        self.read()
        return self.received

    def close(self) -> None:
        if hasattr(self.transport, "socket"):
            self.transport.connectionLost(Failure(error.ConnectionDone()))
        self.socket.close()
        self.peer.close()


def event(text: str) -> Frame:
    """Return a frame that is like that of an event, and short."""
    return Frame(f'{{"type":"event","data":"{text}"}}')


def fill(line: Line) -> int:
    """Let the line's socket be full; return how many bytes it took."""
    count = 0
    while True:
        try:
            count += line.socket.send(b"." * 1_000)
        except BlockingIOError:
            return count
