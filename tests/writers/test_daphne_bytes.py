"""Random writes past Daphne and by it: each frame is whole, and every byte is counted."""

import array
import asyncio
import fcntl
import termios
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.protocol.cursors import CompositeCursor
from realtime.protocol.encoders import Frame, bundle, http_chunk, websocket_frame
from realtime.protocol.events import Cursor
from realtime.writers.stream import StreamForm
from tests.support.http import StreamReader
from tests.writers.lines import Line, Request, fill
from tests.writers.support import HandLoop, connect, event, payloads

LIMIT = 300_000
SEND_BUFFERS = [4_096, 16_384, 0]
SIZES = st.one_of(st.integers(0, 300), st.integers(0, 200_000))
STEPS = st.one_of(
    st.tuples(st.sampled_from(["write", "spread"]), SIZES),
    st.tuples(st.just("read"), st.integers(1, 400_000)),
    st.tuples(st.sampled_from(["turn", "work", "ping", "two", "look"]), st.just(0)),
)


def waiting(line: Line) -> int:
    """Return the bytes that the kernel has and the peer has not read."""
    count = array.array("i", [0])
    fcntl.ioctl(line.peer, termios.FIONREAD, count)
    return count[0]


class Exchange:
    """A client on a line, all that was written to it, and what of it is where."""

    def __init__(self, send_buffer: int) -> None:
        self.loop = HandLoop()
        self.flusher = self.loop.flusher()
        self.line = Line(self.flusher, send_buffer)
        self.writer = self.line.open(limit=LIMIT)
        self.ours: list[Frame] = []
        self.pings = 0

    def play(self, act: str, number: int) -> None:
        match act:
            case "write":
                self.write(self.make("x" * number))
            case "two":
                self.write(bundle([self.make("one"), self.make("two")]))
            case "spread":
                self.spread(self.make("x" * number))
            case "ping":
                self.pings += 1
                self.line.transport.write(b"\x89\x04%04d" % self.pings)
            case "turn":
                self.loop.turn()
            case "work":
                self.line.work()
            case "read":
                self.line.read(number)
            case "look":
                self.writer.look()

    def make(self, text: str) -> Frame:
        self.ours.append(event(f"{len(self.ours)}-{text}"))
        return self.ours[-1]

    def write(self, piece: Any) -> None:
        self.writer.write(piece)

    def spread(self, frame: Frame) -> None:
        """Spread a frame, as an event that comes while nothing else is to be done, if so."""
        self.loop.turns()
        live = {self: self.writer}
        self.flusher.call_before(lambda: self.flusher.spread(frame, live, self.left))
        self.loop.turn()

    def push(self, frame: Frame) -> bool:
        self.write(frame)  # as answers do, which have room of their own
        return True

    def left(self, receiver: Any, taken: int) -> None:
        raise AssertionError("it takes all")

    def check(self) -> None:
        """Compare what the writer says is unsent, and how much room there is, with what is."""
        queued = [frame for piece in self.writer.queue for frame in piece.frames]
        gone = self.ours[: len(self.ours) - len(queued)]
        written = sum(len(websocket_frame(frame.text)) for frame in gone) + 6 * self.pings
        unsent = written - len(self.line.received) - waiting(self.line)
        unsent += sum(frame.size for frame in queued)
        assert self.writer.unsent == unsent
        assert self.writer.room <= LIMIT - unsent
        is_ready = not queued and not self.line.buffered
        assert (self.writer.ready is not None) <= is_ready
        for size in (0, 100, LIMIT - unsent, LIMIT - unsent + 1):
            for limit in (LIMIT, LIMIT // 4, 2 * LIMIT):
                assert self.writer.fits(size, limit) == (unsent + size <= limit)

    def end(self) -> None:
        """Let everything arrive; nothing may be missing, or in another's place."""
        while self.loop.callbacks or self.line.buffered:
            self.loop.turns()
            self.line.drain()
        frames = payloads(self.line.drain())
        arrived = [payload.decode() for opcode, payload in frames if opcode == 1]
        assert arrived == [frame.text for frame in self.ours]
        pings = [payload for opcode, payload in frames if opcode == 9]
        assert pings == [b"%04d" % number for number in range(1, self.pings + 1)]
        assert len(frames) == len(arrived) + len(pings)
        assert self.writer.unsent == 0
        assert self.writer.ready is not None
        assert self.flusher.portable == 0


@settings(max_examples=200, deadline=None)
@given(send_buffer=st.sampled_from(SEND_BUFFERS), steps=st.lists(STEPS, max_size=25))
def test_every_frame_arrives_whole_and_in_order_and_every_byte_is_counted(
    send_buffer: int, steps: list[tuple[str, int]]
) -> None:
    exchange = Exchange(send_buffer)
    try:
        for step in steps:
            exchange.play(*step)
            exchange.check()
        exchange.end()
    finally:
        exchange.line.close()


@settings(max_examples=100, deadline=None)
@given(
    send_buffer=st.sampled_from(SEND_BUFFERS),
    topics=st.integers(1, 100),
    steps=st.lists(STEPS, max_size=25),
)
def test_stream_with_ids_of_its_own_arrives_whole_and_its_ids_are_counted(
    send_buffer: int, topics: int, steps: list[tuple[str, int]]
) -> None:
    loop = HandLoop()
    line = Line(loop.flusher(), send_buffer)
    places = {f"public.{number}": Cursor("e", 0, number) for number in range(topics)}
    writer = line.open(Request(line.transport), StreamForm(places), limit=LIMIT)
    frames: list[Frame] = []
    try:
        for act, number in steps:
            match act:
                case "write" | "spread" | "two" | "ping":
                    place = "public.0", Cursor("e", len(frames) + 1, 0)
                    frames.append(Frame(f'{{"type":"event","x":"{"x" * number}"}}', place))
                    writer.write(frames[-1])
                case "turn":
                    loop.turn()
                case "work":
                    line.work()
                case "read":
                    line.read(number)
                case "look":
                    writer.look()
            queued = sum(piece.size for piece in writer.queue)
            # What is queued may be counted with its ids, or without.
            assert writer.unsent - line.buffered >= queued
            assert writer.unsent == line.buffered or writer.queue
            assert writer.room <= LIMIT - writer.unsent
            assert not writer.fits(100, LIMIT) or writer.unsent + 100 <= LIMIT
        loop.turns()
        body = unchunked(line.drain())
    finally:
        line.close()
    reader = StreamReader()
    reader.feed(body)
    assert [text for text, _ in reader.entries] == [frame.text for frame in frames]
    for number, (_, last_id) in enumerate(reader.entries, 1):
        assert CompositeCursor(last_id).get("public.0") == Cursor("e", number, 0)


def unchunked(data: bytes) -> bytes:
    """Return the body that came in chunks, each of which has to be whole."""
    body, at = b"", 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        chunk = data[end + 2 : end + 2 + size]
        assert http_chunk(chunk) == data[at : end + 4 + size]
        body, at = body + chunk, end + 4 + size
    return body


@pytest.mark.parametrize("is_tls", [False, True])
async def test_client_of_many_topics_that_reads_nothing_is_full_at_its_limit(is_tls: bool) -> None:
    loop = HandLoop()
    line = Line(loop.flusher(), SEND_BUFFERS[0])
    line.transport.TLS = is_tls
    places = {f"public.{number}": Cursor("e", 0, number) for number in range(100)}
    writer = line.open(Request(line.transport), StreamForm(places), limit=LIMIT)
    connection = connect(loop.flusher(), writer, LIMIT)
    try:
        fill(line)
        for number in range(1_000):
            place = "public.0", Cursor("e", number, 0)
            if not connection.push(Frame('{"type":"event"}', place)):
                break
            loop.turn()
            await asyncio.sleep(0)  # the task of the portable way
        assert LIMIT - 5_000 < writer.unsent <= LIMIT + 5_000, "an entry has 2 KB of ids"
    finally:
        line.close()
