"""Clients whose bytes are not shared, and clients that cannot be written to."""

import pytest

from realtime.hub.connection import Connection
from realtime.protocol.events import Cursor
from realtime.protocol.frames import CloseCode
from realtime.writers.asgi import AsgiWriter
from realtime.writers.daphne import UNSHARED_FRAMES
from realtime.writers.flusher import BULK_CLIENTS, Flusher
from realtime.writers.stream import StreamFraming
from tests.writers.links import Link, Request
from tests.writers.support import (
    FakeWriter,
    ManualLoop,
    connect,
    event,
    queue,
    ready_clients,
    write_pass,
)

CURSORS = {"public.a": Cursor("e", 1, 1), "public.b": Cursor("e", 1, 1)}


async def discard(message: object) -> None:
    pass


@pytest.mark.parametrize("is_shared", [True, False])
def test_many_clients_that_are_never_ready_wait_in_the_bulk_queue(
    loop: ManualLoop, flusher: Flusher, is_shared: bool
) -> None:
    framing = None if is_shared else StreamFraming(CURSORS)
    writers = [AsgiWriter(discard, framing) for _ in range(BULK_CLIENTS)]
    live = {connect(flusher, writer): writer for writer in writers}
    flusher._may_begin_pass = True
    flusher.write_all(event("many"), live, lambda *_: None)
    assert (len(flusher._interactive), len(flusher._bulk)) == (0, BULK_CLIENTS)
    for writer in writers:
        writer.abort()


def test_a_client_with_its_own_bytes_receives_some_frames_a_flush_and_all_in_the_end(
    loop: ManualLoop, flusher: Flusher
) -> None:
    link = Link(flusher)
    writer = link.open(Request(link.transport), StreamFraming(CURSORS))
    connection = connect(flusher, writer)
    for number in range(3 * UNSHARED_FRAMES):
        connection.answer(event(f"number {number}"))
    writer.flush()
    link.drain()
    assert link.received.count(b"data: ") == UNSHARED_FRAMES
    loop.turns()
    link.drain()
    numbers = [
        f"number {number}".encode() in link.received for number in range(3 * UNSHARED_FRAMES)
    ]
    assert all(numbers)
    assert link.received.count(b"data: ") == 3 * UNSHARED_FRAMES
    link.close()


async def test_close_writes_all_that_is_queued_before(loop: ManualLoop, flusher: Flusher) -> None:
    link = Link(flusher)
    writer = link.open(Request(link.transport), StreamFraming(CURSORS))
    connection = connect(flusher, writer)
    for number in range(3 * UNSHARED_FRAMES):
        connection.answer(event(f"number {number}"))
    await writer.close(4512)
    link.drain()
    assert link.received.count(b"data: ") == 3 * UNSHARED_FRAMES
    assert link.received.endswith(b"0\r\n\r\n")
    link.close()


def failing(flusher: Flusher, loop: ManualLoop) -> tuple[Connection, FakeWriter, list[int]]:
    """Return a client that cannot be written to, and the codes with which it is closed."""
    writer, codes = FakeWriter(loop), list[int]()
    connection = connect(flusher, writer)
    connection._close = codes.append
    writer.become_ready()
    writer.broken = True
    return connection, writer, codes


def test_a_client_that_cannot_be_written_to_is_closed_once(
    loop: ManualLoop, flusher: Flusher, caplog: pytest.LogCaptureFixture
) -> None:
    connection, writer, codes = failing(flusher, loop)
    others = ready_clients(loop, flusher, 3)
    queue(flusher, event("one"), {connection: writer, **others})
    loop.turns()
    assert codes == [CloseCode.FAILED]
    assert not writer.closed, "its close frame is still sent"
    queue(flusher, event("two"), {connection: writer, **others})
    loop.turns()
    assert codes == [CloseCode.FAILED]
    assert writer.closed
    assert all(len(other.writes) == 2 for other in others.values())
    assert "writing to a client failed" in caplog.text


def test_a_client_whose_rest_cannot_be_buffered_is_closed_too(
    loop: ManualLoop, flusher: Flusher
) -> None:
    connection, writer, codes = failing(flusher, loop)
    writer.kernel = 3
    others = ready_clients(loop, flusher, 20)
    write_pass(flusher, event("one"), {connection: writer, **others})
    loop.turns()
    assert codes == [CloseCode.FAILED]
    assert all(len(other.writes) == 1 for other in others.values())
