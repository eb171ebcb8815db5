"""Direct writes to the socket where that is safe, on real Twisted transports."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from twisted.internet import error

from realtime.protocol.encoders import Frame, bundle, http_chunk
from realtime.protocol.events import Cursor
from realtime.protocol.frames import CloseCode
from realtime.writers import daphne
from realtime.writers.asgi import AsgiWriter
from realtime.writers.daphne import count_answer, writer_for
from realtime.writers.flusher import Flusher
from realtime.writers.stream import StreamFraming
from tests.writers.links import PING, SMALL, Link, Request, WebSocket, fill, shown, write_pass_to
from tests.writers.support import ManualLoop, connect, event, payloads, texts, turn

Make = Callable[..., Link]


# Direct writes


def test_a_frame_is_written_to_the_socket_where_nothing_waits(
    loop: ManualLoop, flusher: Flusher, make_link: Make
) -> None:
    one = make_link()
    writer = one.open()
    writer.write(event("a"))
    assert one.read() == b""
    loop.turn()
    assert texts(one.read()) == shown("a")
    writer.write(event("b"))
    writer.write(bundle([event("c"), event("d")]))
    loop.turn()
    assert texts(one.read()) == shown("b", "c", "d")
    assert flusher.writes == {"direct": 2, "buffered": 0, "portable": 0}
    assert one.reactor.writers == set(), "the reactor is not involved"


def test_a_write_pass_writes_to_the_sockets_of_ready_clients(
    loop: ManualLoop, flusher: Flusher, make_link: Make
) -> None:
    made = [make_link() for _ in range(5)]
    writers = [each.open() for each in made]
    made[3].transport.write(PING)
    assert [writer.send_direct is not None for writer in writers] == [True, True, True, False, True]
    write_pass_to(flusher, event("a"), *writers)
    loop.turns()
    assert [texts(each.read()) for each in made[:3]] == [shown("a")] * 3
    assert payloads(made[3].drain()) == [(9, b"ping"), (1, shown("a")[0].encode())]
    assert flusher.writes == {"direct": 4, "buffered": 1, "portable": 0}


def test_a_frame_waits_behind_buffered_bytes_and_the_next_one_is_direct_again(
    loop: ManualLoop, flusher: Flusher, make_link: Make
) -> None:
    one = make_link()
    writer = one.open()
    one.transport.write(PING)
    writer.write(event("a"))
    loop.turn()
    assert one.read() == b""
    assert flusher.writes == {"direct": 0, "buffered": 1, "portable": 0}
    assert payloads(one.drain()) == [(9, b"ping"), (1, shown("a")[0].encode())]
    writer.write(event("b"))
    loop.turn()
    assert texts(one.read()) == shown("b")
    assert flusher.writes == {"direct": 1, "buffered": 1, "portable": 0}


@pytest.mark.parametrize("is_under_way", [False, True])
def test_the_first_frame_waits_behind_the_answer_to_the_handshake(
    loop: ManualLoop, flusher: Flusher, make_link: Make, is_under_way: bool
) -> None:
    one = make_link(SMALL)
    answer = b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: x\r\n" * 30_000
    one.transport.write(answer)
    if is_under_way:
        one.work()
        assert 0 < one.buffered < len(answer)
    writer = one.open()
    assert writer.send_direct is None
    writer.write(event("a"))
    loop.turn()
    assert texts(one.drain().removeprefix(answer)) == shown("a")
    assert flusher.writes == {"direct": 0, "buffered": 1, "portable": 0}


@pytest.mark.parametrize("in_pass", [False, True])
def test_the_rest_of_a_partial_write_is_sent_before_later_frames(
    loop: ManualLoop, flusher: Flusher, make_link: Make, in_pass: bool
) -> None:
    one = make_link(SMALL)
    writer = one.open()
    large = event("x" * 200_000)
    if in_pass:
        write_pass_to(flusher, large, writer)
    else:
        writer.write(large)
    loop.turns()
    assert 0 < writer.unsent < large.size
    assert writer.send_direct is None
    one.transport.write(PING)
    writer.write(event("b"))
    loop.turn()
    frames = [(1, large.text.encode()), (9, b"ping"), (1, shown("b")[0].encode())]
    assert payloads(one.drain()) == frames
    assert writer.unsent == 0
    assert writer.send_direct is not None


@pytest.mark.parametrize("in_pass", [False, True])
def test_a_full_socket_raises_nothing_and_loses_nothing(
    loop: ManualLoop, flusher: Flusher, make_link: Make, in_pass: bool
) -> None:
    one = make_link(SMALL)
    writer = one.open()
    count = fill(one)
    if in_pass:
        write_pass_to(flusher, event("a"), writer)
    else:
        writer.write(event("a"))
    writer.write(event("b"))
    loop.turns()
    assert set(texts(one.drain()[count:])) == set(shown("a", "b"))
    assert not writer.closed


@pytest.mark.parametrize("in_pass", [False, True])
async def test_a_broken_socket_raises_nothing_and_the_transport_finds_it(
    loop: ManualLoop, flusher: Flusher, make_link: Make, in_pass: bool
) -> None:
    broken, other = make_link(), make_link()
    writers = [broken.open(), other.open()]
    broken.peer.close()
    for name in "ab":
        if in_pass:
            write_pass_to(flusher, event(name), *writers)
        else:
            for writer in writers:
                writer.write(event(name))
        loop.turns()
    protocol = broken.transport.protocol
    assert texts(other.drain()) == shown("a", "b")
    assert isinstance(broken.work(), error.ConnectionLost)
    assert protocol.lost is not None
    writers[0].write(event("c"))
    loop.turns()
    await turn()


def test_only_protocols_of_daphne_are_recognised(make_link: Make) -> None:
    one = make_link()
    protocol = WebSocket(one.transport)

    async def send(message: Any) -> None:
        raise AssertionError

    class Other(WebSocket):
        """A protocol of another package."""

    other = Other(one.transport)
    assert type(writer_for(partial(WebSocket.handle_reply, protocol))) is daphne.WebSocketWriter
    for each in (
        send,
        protocol.handle_reply,
        partial(send, 1),
        partial(Other.handle_reply, other),
        partial(WebSocket.handle_reply, protocol, message={}),
    ):
        writer: Any = writer_for(each)
        assert type(writer) is AsgiWriter


# Event streams


def test_a_stream_writes_its_chunks_directly(
    loop: ManualLoop, flusher: Flusher, make_link: Make
) -> None:
    last = ("public.a", Cursor("e", 1, 1))
    frame = Frame('{"type":"event"}', last)
    framings = [
        StreamFraming(None),
        StreamFraming(dict([last]), single_topic=True),
        StreamFraming(dict([last, ("public.b", Cursor("e", 2, 2))])),
    ]
    bodies = []
    for framing in framings:
        one = make_link()
        writer = one.open(Request(one.transport), framing)
        assert (writer.send_direct is None) == (framing.wire_format is None)
        writer.write(frame)
        loop.turn()
        ((message, _),) = framing.messages([frame])
        assert one.read() == http_chunk(message["body"])
        bodies.append(message["body"])
    assert len(set(bodies)) == 3
    assert flusher.writes == {"direct": 3, "buffered": 0, "portable": 0}


async def test_a_stream_is_written_behind_its_head_and_then_directly(
    loop: ManualLoop, flusher: Flusher, make_link: Make
) -> None:
    one = make_link()
    request = Request(one.transport)
    request.chunked = 0
    writer = one.open(request, StreamFraming(None))
    one.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
    request.chunked = 1
    writer.write(event("a"))
    loop.turn()
    chunk = http_chunk(b"data: %b\n\n" % event("a").text.encode())
    assert one.drain() == b"HTTP/1.1 200 OK\r\n\r\n" + chunk
    assert flusher.writes == {"direct": 0, "buffered": 1, "portable": 0}
    writer.write(event("a"))
    loop.turn()
    assert one.read() == chunk


# What is unsent


def test_buffers_below_tls_count_as_unsent(flusher: Flusher, make_link: Make) -> None:
    one = make_link()
    one.transport.write(b"x" * 700)

    class Tls:
        transport = one.transport

        def getPeerCertificate(self) -> None:
            pass

    protocol = WebSocket(Tls())
    writer = writer_for(partial(WebSocket.handle_reply, protocol))
    connect(flusher, writer, 1_000)
    assert (writer.unsent, writer.available) == (700, 300)


def test_what_the_transport_of_a_full_socket_holds_counts_for_the_limit(
    make_link: Make, flusher: Flusher
) -> None:
    one = make_link(SMALL)
    writer = one.open(limit=1_000)
    fill(one)
    connection = connect(flusher, writer, 1_000)
    one.transport.write(b"x" * 990)
    assert not connection.push(event("a"))
    one.drain()
    assert connection.push(event("a"))


def test_a_writer_is_counted_from_the_first_byte_that_the_socket_does_not_take(
    make_link: Make, flusher: Flusher, loop: ManualLoop
) -> None:
    one = make_link(SMALL)
    writer = one.open()
    write_pass_to(flusher, event("a"), writer)
    loop.turns()
    assert not flusher.behind
    fill(one)
    write_pass_to(flusher, event("b"), writer)
    loop.turns()
    assert flusher.behind == {writer}
    writer.abort()
    assert not flusher.behind


def test_an_answer_that_the_socket_does_not_take_is_counted_and_can_be_cut(
    make_link: Make, flusher: Flusher
) -> None:
    one = make_link(SMALL)
    send = partial(Request.handle_reply, Request(one.transport))
    count_answer(send, flusher)
    assert not flusher.behind
    fill(one)
    one.transport.write(b"x" * 700)
    for _ in range(2):  # the next answer on the same connection is in the same buffer
        count_answer(send, flusher)
    (rest,) = flusher.behind
    assert (rest.unsent, rest.drained) == (700, -700)
    rest.request_close(CloseCode.SLOW)
    assert one.transport.disconnecting or one.transport._aborting or one.transport.disconnected


def test_an_answer_that_was_read_is_not_cut(make_link: Make, flusher: Flusher) -> None:
    one = make_link(SMALL)
    fill(one)
    one.transport.write(b"x" * 700)
    count_answer(partial(Request.handle_reply, Request(one.transport)), flusher)
    (rest,) = flusher.behind
    one.drain()
    assert rest.unsent == 0
    rest.request_close(CloseCode.SLOW)
    assert not one.transport._aborting
