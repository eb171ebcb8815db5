"""Where a direct write is not safe, the portable path is taken, and nothing breaks."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import error
from twisted.python.failure import Failure

from realtime.protocol.encoders import websocket_frame
from realtime.protocol.frames import CloseCode
from realtime.writers import daphne
from realtime.writers.flusher import Flusher
from realtime.writers.stream import StreamFraming
from tests.writers.links import (
    PING,
    SMALL,
    Link,
    Protocol,
    Request,
    WebSocket,
    shown,
    write_pass_to,
)
from tests.writers.support import ManualLoop, event, payloads, texts, turn

Make = Callable[..., Link]


# The portable path


def is_closing(protocol: Any) -> None:
    protocol.transport.write(protocol.encode({"type": "websocket.close", "code": 1000}))


def is_closed(protocol: Any) -> None:
    is_closing(protocol)
    protocol.transport.doWrite()


def has_a_send_queue(protocol: Any) -> None:
    protocol.send_queue.append((b"a part of a frame", True))
    protocol.transport.write(b"")
    protocol.transport.startWriting()


def is_compressed(protocol: Any) -> None:
    protocol._perMessageCompress = object()


def lacks_a_queue(protocol: Any) -> None:
    del protocol.send_queue


def is_not_chunked(protocol: Any) -> None:
    protocol.chunked = 0


def is_of_head(protocol: Any) -> None:
    protocol.method = b"HEAD"


def has_no_channel(protocol: Any) -> None:
    protocol.channel = None


def is_finished(protocol: Any) -> None:
    protocol.finished = 1


def speaks_tls(protocol: Any) -> None:
    protocol.transport.TLS = True


def loses_its_connection(protocol: Any) -> None:
    protocol.transport.loseConnection()


def is_aborted(protocol: Any) -> None:
    protocol.transport.abortConnection()


def is_lost(protocol: Any) -> None:
    protocol.transport.connectionLost(Failure(error.ConnectionDone()))


BEFORE = [
    (WebSocket, is_compressed),
    (WebSocket, lacks_a_queue),
    (WebSocket, speaks_tls),
    (Request, is_not_chunked),
    (Request, is_of_head),
    (Request, has_no_channel),
    (Request, is_finished),
    (Request, speaks_tls),
]
LATER = [
    (WebSocket, is_closing),
    (WebSocket, is_closed),
    (WebSocket, has_a_send_queue),
    (WebSocket, loses_its_connection),
    (WebSocket, is_aborted),
    (WebSocket, is_lost),
    (Request, loses_its_connection),
    (Request, is_aborted),
]


@pytest.mark.parametrize(
    ("kind", "change", "later"),
    [(*case, False) for case in BEFORE] + [(*case, True) for case in LATER],
)
async def test_the_portable_path_is_taken(
    loop: ManualLoop,
    flusher: Flusher,
    make_link: Make,
    kind: type[Protocol],
    change: Callable[[Any], None],
    later: bool,
) -> None:
    one = make_link()
    protocol = kind(one.transport)
    if not later:
        change(protocol)
    writer = one.open(protocol, None if kind is WebSocket else StreamFraming(None))
    if later:
        assert writer.send_direct is not None
        change(protocol)
    assert writer.send_direct is None
    for name in "ab":
        write_pass_to(flusher, event(name), writer)
        loop.turns()
        await turn()
    assert flusher.writes == {"direct": 0, "buffered": 0, "portable": 2}
    assert len(protocol.replies) == 2
    one.drain()


class Waiting(WebSocket):
    """A protocol whose server waits before it writes, which Daphne does not do today."""

    gate: asyncio.Event

    async def handle_reply(self, message: Any) -> None:
        await self.gate.wait()
        await super().handle_reply(message)


Waiting.__module__ = "daphne.ws_protocol"


@pytest.mark.parametrize("in_pass", [False, True])
async def test_a_direct_write_does_not_overtake_one_through_the_server(
    loop: ManualLoop, flusher: Flusher, make_link: Make, in_pass: bool
) -> None:
    one = make_link()
    protocol = Waiting(one.transport)
    protocol.gate = asyncio.Event()
    writer = one.open(protocol)
    has_a_send_queue(protocol)
    writer.write(event("a"))
    loop.turn()
    await turn()
    protocol.send_queue.clear()
    one.work()  # only the task keeps it from being ready
    assert writer.send_direct is None
    if in_pass:
        write_pass_to(flusher, event("b"), writer)
    else:
        writer.write(event("b"))
    loop.turns()
    await turn()
    protocol.gate.set()
    await turn()
    one.work()
    writer.write(event("c"))
    loop.turn()
    assert texts(one.drain()) == shown("a", "b", "c")
    assert flusher.writes == {"direct": 1, "buffered": 0, "portable": 1}


async def test_the_close_frame_follows_all_that_was_written(
    loop: ManualLoop, make_link: Make
) -> None:
    one = make_link(SMALL)
    writer = one.open()
    large = event("x" * 100_000)
    writer.write(large)
    writer.write(event("b"))
    await writer.close(CloseCode.RESTART)
    assert writer.closed
    code = int(CloseCode.RESTART).to_bytes(2, "big")
    frames = [(1, large.text.encode()), (1, shown("b")[0].encode()), (8, code)]
    assert payloads(one.drain()) == frames


# A closed socket


def reuse(number: int) -> tuple[socket.socket, socket.socket]:
    """Return a socket pair of which one socket has this file descriptor."""
    kept = []
    while True:
        pair = socket.socketpair()
        if number in (pair[0].fileno(), pair[1].fileno()):
            break
        kept.append(pair)
        assert len(kept) < 100, "the descriptor is in use"
    for one, other in kept:
        one.close()
        other.close()
    for each in pair:
        each.setblocking(False)
    return pair


@pytest.mark.parametrize("is_lost", [True, False])
async def test_a_socket_that_reuses_the_number_of_a_closed_one_receives_nothing(
    loop: ManualLoop, flusher: Flusher, make_link: Make, is_lost: bool
) -> None:
    one, other = make_link(), make_link()
    writer, bystander = one.open(), other.open()
    stale, number = writer.send_direct, one.socket.fileno()
    writer.write(event("queued"))
    if is_lost:
        one.transport.connectionLost(Failure(error.ConnectionDone()))
    else:
        one.socket.close()  # without the transport's knowledge
    pair = reuse(number)
    try:
        loop.turns()
        await turn()
        for name in "ab":
            write_pass_to(flusher, event(name), writer, bystander)
            loop.turns()
            await turn()
        with pytest.raises(OSError, match="Bad file descriptor"):
            stale(websocket_frame("c"))
        one.work()
        for each in pair:
            with pytest.raises(BlockingIOError):
                each.recv(1)
    finally:
        for each in pair:
            each.close()
    assert texts(other.drain()) == shown("a", "b")


# Hooks of the transport


def hooks(link: Link) -> set[str]:
    return {"startWriting", "stopWriting"} & vars(link.transport).keys()


def test_abort_leaves_the_transport_as_it_was(make_link: Make) -> None:
    one = make_link()
    before = dict(vars(one.transport))
    protocol = one.transport.protocol
    writer = one.open()
    assert hooks(one) == {"startWriting", "stopWriting"}
    writer.abort()
    one.transport.protocol = protocol
    assert vars(one.transport) == before
    writer.abort()
    one.transport.write(PING)
    assert one.drain() == PING
    assert (writer.send_direct, writer.unsent) == (None, 0)
    writer.write(event("a"))
    writer.flush()
    assert one.drain() == PING


def test_the_next_stream_of_a_connection_has_its_own_hooks(
    loop: ManualLoop, flusher: Flusher, make_link: Make
) -> None:
    one = make_link()
    first = one.open(Request(one.transport), StreamFraming(None))
    first.write(event("a"))
    loop.turn()
    first.abort()
    one.transport.write(b"0\r\n\r\n")
    one.drain()
    second = one.open(Request(one.transport), StreamFraming(None))
    first.abort()  # again, as at the end of its connection
    assert hooks(one) == {"startWriting", "stopWriting"}
    one.transport.write(PING)
    assert second.send_direct is None
    one.drain()
    assert second.send_direct is not None
    first.write(event("b"))
    second.write(event("c"))
    loop.turn()
    assert event("b").text.encode() not in one.read()
    assert event("c").text.encode() in one.received


def test_a_stream_that_ends_late_leaves_the_hooks_of_the_next_one(make_link: Make) -> None:
    one = make_link()
    first = one.open(Request(one.transport), StreamFraming(None))
    second = one.open(Request(one.transport), StreamFraming(None))
    first.abort()
    one.transport.write(PING)
    assert second.send_direct is None
    one.drain()
    assert second.send_direct is not None


# An unknown version of Twisted


@pytest.fixture
def unknown() -> Iterator[None]:
    """Forget the result of the check of Twisted."""
    daphne._is_supported.cache_clear()
    yield
    daphne._is_supported.cache_clear()


def looks_elsewhere() -> bool:
    return False


def has_no_buffer() -> bool:
    raise AttributeError("no attribute '_tempDataLen'")


@pytest.mark.usefixtures("unknown")
@pytest.mark.parametrize("found", [looks_elsewhere, has_no_buffer])
async def test_an_unsupported_transport_is_reported_once_and_left_alone(
    loop: ManualLoop,
    flusher: Flusher,
    make_link: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    found: Callable[[], bool],
) -> None:
    monkeypatch.setattr(daphne, "_transport_works", found)
    made = [make_link() for _ in range(3)]
    writers = [each.open() for each in made]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "do not support" in record.getMessage()
    assert all(hooks(each) == set() for each in made)
    write_pass_to(flusher, event("a"), *writers)
    loop.turns()
    await turn()
    assert [texts(each.drain()) for each in made] == [shown("a")] * 3
    assert flusher.writes == {"direct": 0, "buffered": 0, "portable": 3}


@pytest.mark.usefixtures("unknown")
def test_this_twisted_is_supported(caplog: pytest.LogCaptureFixture) -> None:
    assert daphne._is_supported()
    assert caplog.records == []
