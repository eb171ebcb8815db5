"""Random direct and portable writes: each frame is whole, and every byte is counted."""

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
from realtime.writers.stream import StreamFraming
from tests.support.http import StreamReader
from tests.writers.links import Link, Request, fill
from tests.writers.support import ManualLoop, connect, event, payloads

LIMIT = 300_000
SEND_BUFFERS = [4_096, 16_384, 0]
SIZES = st.one_of(st.integers(0, 300), st.integers(0, 200_000))
STEPS = st.one_of(
    st.tuples(st.sampled_from(["write", "write pass"]), SIZES),
    st.tuples(st.just("read"), st.integers(1, 400_000)),
    st.tuples(st.sampled_from(["turn", "work", "ping", "two", "refresh"]), st.just(0)),
)


def waiting(link: Link) -> int:
    """Return how many bytes the kernel holds that the peer has not read."""
    count = array.array("i", [0])
    fcntl.ioctl(link.peer, termios.FIONREAD, count)
    return count[0]


class Exchange:
    """A client on a link, and all that was written to it."""

    def __init__(self, send_buffer: int) -> None:
        self.loop = ManualLoop()
        self.flusher = self.loop.flusher()
        self.link = Link(self.flusher, send_buffer)
        self.writer = self.link.open(limit=LIMIT)
        self.ours: list[Frame] = []
        self.pings = 0

    def play(self, act: str, number: int) -> None:
        match act:
            case "write":
                self.write(self.make("x" * number))
            case "two":
                self.write(bundle([self.make("one"), self.make("two")]))
            case "write pass":
                self.write_pass(self.make("x" * number))
            case "ping":
                self.pings += 1
                self.link.transport.write(b"\x89\x04%04d" % self.pings)
            case "turn":
                self.loop.turn()
            case "work":
                self.link.work()
            case "read":
                self.link.read(number)
            case "refresh":
                self.writer.refresh_available()

    def make(self, text: str) -> Frame:
        self.ours.append(event(f"{len(self.ours)}-{text}"))
        return self.ours[-1]

    def write(self, piece: Any) -> None:
        self.writer.write(piece)

    def write_pass(self, frame: Frame) -> None:
        """Write a frame as the only thing to do: in a write pass if the client is ready."""
        self.loop.turns()
        live = {self: self.writer}
        self.flusher.call_before_flush(lambda: self.flusher.write_all(frame, live, self.on_full))
        self.loop.turn()

    def push(self, frame: Frame) -> bool:
        self.write(frame)  # whatever the limit, as an answer
        return True

    def on_full(self, recipient: Any, accepted: int) -> None:
        raise AssertionError("it accepts all")

    def check(self) -> None:
        """Compare what the writer counts as unsent and available with what really is."""
        queued = [frame for piece in self.writer.queue for frame in piece.frames]
        gone = self.ours[: len(self.ours) - len(queued)]
        written = sum(len(websocket_frame(frame.text)) for frame in gone) + 6 * self.pings
        unsent = written - len(self.link.received) - waiting(self.link)
        unsent += sum(frame.size for frame in queued)
        assert self.writer.unsent == unsent
        assert self.writer.available <= LIMIT - unsent
        is_ready = not queued and not self.link.buffered
        assert (self.writer.send_direct is not None) <= is_ready
        for size in (0, 100, LIMIT - unsent, LIMIT - unsent + 1):
            for limit in (LIMIT, LIMIT // 4, 2 * LIMIT):
                assert self.writer.fits(size, limit) == (unsent + size <= limit)

    def end(self) -> None:
        """Send the rest, and check that nothing is missing or out of order."""
        while self.loop.callbacks or self.link.buffered:
            self.loop.turns()
            self.link.drain()
        frames = payloads(self.link.drain())
        arrived = [payload.decode() for opcode, payload in frames if opcode == 1]
        assert arrived == [frame.text for frame in self.ours]
        pings = [payload for opcode, payload in frames if opcode == 9]
        assert pings == [b"%04d" % number for number in range(1, self.pings + 1)]
        assert len(frames) == len(arrived) + len(pings)
        assert self.writer.unsent == 0
        assert self.writer.send_direct is not None
        assert self.flusher.writes["portable"] == 0


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
        exchange.link.close()


@settings(max_examples=100, deadline=None)
@given(
    send_buffer=st.sampled_from(SEND_BUFFERS),
    topics=st.integers(1, 100),
    steps=st.lists(STEPS, max_size=25),
)
def test_a_stream_with_its_own_ids_arrives_whole_and_its_ids_are_counted(
    send_buffer: int, topics: int, steps: list[tuple[str, int]]
) -> None:
    loop = ManualLoop()
    link = Link(loop.flusher(), send_buffer)
    cursors = {f"public.{number}": Cursor("e", 0, number) for number in range(topics)}
    writer = link.open(Request(link.transport), StreamFraming(cursors), limit=LIMIT)
    frames: list[Frame] = []
    try:
        for act, number in steps:
            match act:
                case "write" | "write pass" | "two" | "ping":
                    cursor = "public.0", Cursor("e", len(frames) + 1, 0)
                    frames.append(Frame(f'{{"type":"event","x":"{"x" * number}"}}', cursor))
                    writer.write(frames[-1])
                case "turn":
                    loop.turn()
                case "work":
                    link.work()
                case "read":
                    link.read(number)
                case "refresh":
                    writer.refresh_available()
            queued = sum(piece.size for piece in writer.queue)
            # The ids of queued frames may be counted or not.
            assert writer.unsent - link.buffered >= queued
            assert writer.unsent == link.buffered or writer.queue
            assert writer.available <= LIMIT - writer.unsent
            assert not writer.fits(100, LIMIT) or writer.unsent + 100 <= LIMIT
        loop.turns()
        body = unchunked(link.drain())
    finally:
        link.close()
    reader = StreamReader()
    reader.feed(body)
    assert [text for text, _ in reader.entries] == [frame.text for frame in frames]
    for number, (_, last_id) in enumerate(reader.entries, 1):
        assert CompositeCursor(last_id).get("public.0") == Cursor("e", number, 0)


def unchunked(data: bytes) -> bytes:
    """Return the body that the chunks carry, each of which has to be whole."""
    body, at = b"", 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        chunk = data[end + 2 : end + 2 + size]
        assert http_chunk(chunk) == data[at : end + 4 + size]
        body, at = body + chunk, end + 4 + size
    return body


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_client_of_many_topics_that_reads_nothing_is_full_at_its_limit(
    is_tls: bool,
) -> None:
    loop = ManualLoop()
    link = Link(loop.flusher(), SEND_BUFFERS[0])
    link.transport.TLS = is_tls
    cursors = {f"public.{number}": Cursor("e", 0, number) for number in range(100)}
    writer = link.open(Request(link.transport), StreamFraming(cursors), limit=LIMIT)
    connection = connect(loop.flusher(), writer, LIMIT)
    try:
        fill(link)
        for number in range(1_000):
            cursor = "public.0", Cursor("e", number, 0)
            if not connection.push(Frame('{"type":"event"}', cursor)):
                break
            loop.turn()
            await asyncio.sleep(0)  # for the task of the portable path
        assert LIMIT - 5_000 < writer.unsent <= LIMIT + 5_000, "an entry has an id of 2 KB"
    finally:
        link.close()
