"""A loop that the test turns, and writers with a simulated socket."""

import asyncio
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from realtime.hub.connection import Connection
from realtime.hub.recent import EventFrame
from realtime.protocol.encoders import Bundle, Frame, Wire
from realtime.protocol.events import Cursor, Event
from realtime.writers.asgi import AsgiWriter
from realtime.writers.flusher import SLICE_SECONDS, Flusher

COST = SLICE_SECONDS / 50  # of a write
LIMIT = 1024 * 1024


class ManualLoop:
    """An event loop that the test turns, on a clock that the writers move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.callbacks: deque[Callable[[], object]] = deque()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.callbacks.append(callback)

    def turn(self) -> float:
        """Run the callbacks scheduled until now; return how long that took."""
        begin = self.now
        for _ in range(len(self.callbacks)):
            self.callbacks.popleft()()
        return self.now - begin

    def turns(self, most: int = 1_000) -> int:
        """Turn until no callback is left; return the number of turns."""
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
        assert first & 0xF0 == 0x80, f"not the start of a frame: {data[at : at + 20]!r}"
        assert first & 0x0F in (1, 2, 8, 9, 10), f"not an opcode of a server: {first & 15}"
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
    """Return the texts of text frames; fail on any other frame."""
    frames = payloads(data)
    assert all(opcode == 1 for opcode, _ in frames)
    return [payload.decode() for _, payload in frames]


class FakeWriter(AsgiWriter):
    """A writer whose socket, transport buffer and costs are simulated.

    Attributes:
        writes: the bytes of each call that wrote.
        kernel: bytes that the socket takes before it is full.
        buffer: the bytes in the transport.
        received: the bytes that the socket has taken.
        broken: the next write raises.
        cost: seconds on the loop's clock that a write takes.
    """

    def __init__(self, loop: ManualLoop, *, kernel: int = 1 << 40, cost: float = 0.0) -> None:
        super().__init__(_nowhere)
        self.loop = loop
        self.writes: list[bytes] = []
        self.kernel = kernel
        self.buffer = b""
        self.received = b""
        self.broken = False
        self.cost = cost

    def become_ready(self) -> "FakeWriter":
        """Become ready for direct writes, as after one that the socket took whole."""
        self.send_direct = self.send
        return self

    @property
    def data(self) -> bytes:
        """All bytes that were written, sent or not."""
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
            raise RuntimeError("broken as the test demands")
        pieces = [piece.wire(Wire.WEBSOCKET) for piece in self.queue]
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.queue.clear()
        if self.buffer:
            self.loop.now += self.cost
            self.writes.append(data)
            self.buffer += data
            self.refresh_available()
            return
        try:
            sent = self.send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            self.buffer_rest(data[sent:])
        else:
            self.send_direct = self.send

    def buffer_rest(self, rest: bytes) -> None:
        if self.broken:
            raise RuntimeError("broken as the test demands")
        self.send_direct = None
        self.buffer += rest
        self.refresh_available()

    def read(self, count: int) -> None:
        """Make the client read so many bytes, and the transport send the next ones."""
        sent, self.buffer = self.buffer[:count], self.buffer[count:]
        self.received += sent
        self.kernel += count - len(sent)
        if not self.buffer and not self.queue and not self.closed:
            self.send_direct = self.send

    def _buffered(self) -> int:
        return len(self.buffer)


async def _nowhere(message: Any) -> None:
    raise AssertionError("a fake writer has no server")


def connect(flusher: Flusher, writer: AsgiWriter, limit: int = LIMIT) -> Connection:
    """Return a connection on a fake hub with a real flusher; its close aborts the writer."""
    hub: Any = SimpleNamespace(flusher=flusher, connections=set(), loop=ManualLoop())
    hub.heartbeats = SimpleNamespace(add=lambda *_: None, discard=lambda *_: None)
    return Connection(hub, None, writer, limit, lambda code: writer.abort())


def event(text: str) -> Frame:
    """Return a short frame that looks like an event."""
    return Frame(f'{{"type":"event","data":"{text}"}}')


Live = dict[Any, Any]


def never_full(recipient: Any, accepted: int) -> None:
    raise AssertionError(f"{recipient} accepted only {accepted} frames")


def ready_clients(loop: ManualLoop, flusher: Flusher, count: int, **options: Any) -> Live:
    """Return connections that are ready for direct writes, with their writers."""
    live = {}
    for _ in range(count):
        writer = FakeWriter(loop, **options)
        live[connect(flusher, writer)] = writer.become_ready()
    return live


def write_pass(
    flusher: Flusher, piece: Frame | Bundle, live: Live, on_full: Any = never_full
) -> None:
    """Write a piece as a hub does that has nothing else to do: in a write pass."""
    flusher.call_before_flush(lambda: flusher.write_all(piece, live, on_full))


def queue(flusher: Flusher, piece: Frame | Bundle, live: Live) -> None:
    """Write a piece into the queues."""
    flusher.write_all(piece, live, never_full)
    flusher.end_pass()


def event_frames(count: int, start: int = 1) -> list[EventFrame]:
    """Return the frames of so many events, from a number on."""
    cursors = [Cursor("e", seq, seq) for seq in range(start, start + count)]
    return [EventFrame(Event("public.a", "tick", "0", cursor), cursor) for cursor in cursors]


async def turn(times: int = 3) -> None:
    """Turn the running loop: for the flush, the task that it starts, and what that wakes."""
    for _ in range(times):
        await asyncio.sleep(0)
