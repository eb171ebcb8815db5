"""The portable path: a server's ``send``, with a task only while it has to wait."""

import asyncio
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.protocol.encoders import Frame, bundle
from realtime.protocol.frames import CloseCode
from realtime.writers import asgi
from realtime.writers.asgi import AsgiWriter, SlowReader
from realtime.writers.flusher import Flusher
from tests.support.virtual_time import VirtualTimeLoop
from tests.writers.support import connect, event, turn

LIMIT = 1_000
EAGER = sys.version_info >= (3, 12)


class Server:
    """A server whose ``send`` can wait and fail.

    Attributes:
        gate: ``send`` waits while it is closed.
        failing: ``send`` raises once it has waited.
        interrupted: the exceptions that interrupted a ``send``.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing = False
        self.sent: list[Any] = []
        self.interrupted: list[str] = []

    async def send(self, message: Any) -> None:
        try:
            await self.gate.wait()
        except BaseException as error:
            self.interrupted.append(type(error).__name__)
            raise
        if self.failing:
            raise OSError("the client is gone")
        self.sent.append(message.get("text", message.get("code")))


class Uvicorn(Server):
    """The same, recognised as a protocol of uvicorn."""


Uvicorn.__module__ = "uvicorn.protocols.websockets.websockets_sansio_impl"


def writer_on(server: Server, limit: int = LIMIT) -> AsgiWriter:
    writer = AsgiWriter(server.send)
    connect(Flusher(asyncio.get_running_loop()), writer, limit)
    return writer


def tasks() -> int:
    return len(asyncio.all_tasks())


# Starting a send


async def test_a_send_that_does_not_wait_needs_no_task() -> None:
    server = Uvicorn()
    writer = writer_on(server)
    before = tasks()
    writer.write(event("a"))
    writer.write(bundle([event("b"), event("c")]))
    assert server.sent == []
    writer.flush()
    assert server.sent == [event(text).text for text in "abc"]
    assert (tasks(), writer.unsent) == (before, 0)


async def test_a_send_that_waits_continues_in_a_task_and_keeps_the_order() -> None:
    server = Uvicorn()
    server.gate.clear()
    writer = writer_on(server)
    before = tasks()
    writer.write(event("a"))
    writer.flush()
    assert tasks() == before + 1
    for text in "bcd":
        writer.write(event(text))
        writer.flush()
        await turn()
    assert tasks() == before + 1, "only one task at a time"
    assert server.sent == []
    server.gate.set()
    await turn()
    assert server.sent == [event(text).text for text in "abcd"]
    assert (tasks(), writer.unsent) == (before, 0)
    writer.write(event("e"))
    writer.flush()
    assert server.sent[-1] == event("e").text


async def test_other_servers_get_a_task_where_no_task_starts_eagerly() -> None:
    server = Server()
    writer = writer_on(server)
    writer.write(event("a"))
    writer.flush()
    assert server.sent == ([event("a").text] if EAGER else [])
    await turn()
    assert server.sent == [event("a").text]


async def test_a_send_that_asks_for_its_task_has_one_on_any_server() -> None:
    sent = []

    async def send(message: Any) -> None:
        async with asyncio.timeout(60):  # which needs the current task
            await asyncio.sleep(0)
            sent.append(message["text"])

    writer = AsgiWriter(send)
    connect(Flusher(asyncio.get_running_loop()), writer, LIMIT)
    writer.write(event("a"))
    await turn()
    assert sent == [event("a").text]
    assert not writer.closed


async def test_writes_of_a_turn_count_as_one_portable_write() -> None:
    server = Uvicorn()
    writer = writer_on(server)
    flusher = writer._flusher
    assert flusher is not None
    for text in "abc":
        writer.write(event(text))
    await turn()
    assert flusher.writes == {"direct": 0, "buffered": 0, "portable": 1}
    assert len(server.sent) == 3


# Abort and close


@pytest.mark.parametrize("server", [Server, Uvicorn])
async def test_abort_drops_the_queue_and_cancels_a_send_that_waits(server: type[Server]) -> None:
    running = server()
    running.gate.clear()
    writer = writer_on(running)
    before = tasks()
    writer.write(event("a"))
    writer.flush()
    await turn()
    writer.write(event("b"))
    writer.abort()
    assert (writer.unsent, writer.available) == (0, 0)
    await turn()
    assert (running.sent, running.interrupted) == ([], ["CancelledError"])
    assert tasks() == before
    running.gate.set()
    writer.write(event("c"))
    writer.flush()
    await turn()
    assert running.sent == []
    assert writer.fits(10**9, LIMIT), "no caller waits for a closed writer"


async def test_abort_in_the_turn_of_the_send_cancels_it_too() -> None:
    server = Uvicorn()
    server.gate.clear()
    writer = writer_on(server)
    before = tasks()
    writer.write(event("a"))
    writer.flush()
    writer.abort()  # in the turn in which the send started
    await turn()
    assert (server.sent, tasks()) == ([], before)
    server.gate.set()
    await turn()
    assert server.sent == []


@pytest.mark.parametrize("waits", [False, True])
async def test_a_send_that_raises_aborts_the_writer(waits: bool) -> None:
    server = Uvicorn()
    server.failing = True
    if waits:
        server.gate.clear()
    writer = writer_on(server)
    before = tasks()
    writer.write(event("a"))
    writer.flush()
    writer.write(event("b"))
    server.gate.set()
    await turn()
    assert writer.closed
    assert (server.sent, writer.unsent, tasks()) == ([], 0, before)
    await writer.close(CloseCode.RESTART)
    assert server.sent == [], "the client is gone"


@pytest.mark.parametrize("server", [Server, Uvicorn])
@pytest.mark.parametrize("waits", [False, True])
async def test_close_sends_the_queue_first(server: type[Server], waits: bool) -> None:
    running = server()
    if waits:
        running.gate.clear()
    writer = writer_on(running)
    # The close starts before the flush of its turn.
    closing = asyncio.create_task(writer.close(CloseCode.RESTART))
    for text in "ab":
        writer.write(event(text))
    await turn()
    running.gate.set()
    await closing
    assert running.sent == [event("a").text, event("b").text, CloseCode.RESTART]
    writer.write(event("c"))
    await turn()
    assert len(running.sent) == 3


@pytest.mark.parametrize("server", [Server, Uvicorn])
def test_close_waits_for_a_bounded_time(server: type[Server]) -> None:
    loop = VirtualTimeLoop()

    async def close() -> tuple[float, list[Any]]:
        running = server()
        running.gate.clear()
        writer = writer_on(running)
        writer.write(event("a"))
        await turn()
        await writer.close(CloseCode.SLOW)
        return loop.time(), running.interrupted

    try:
        time, interrupted = loop.run_until_complete(close())
    finally:
        loop.close()
    assert time <= 2 * asgi.CLOSE_SECONDS
    assert interrupted == ["CancelledError", "CancelledError"], "of the frame, and of the close"


# What is unsent


def test_a_client_that_reads_nothing_is_slow_and_one_that_reads_a_little_is_not() -> None:
    loop = VirtualTimeLoop()
    count = 5

    async def wait() -> None:
        server = Uvicorn()
        server.gate.clear()
        writer = writer_on(server)
        for _ in range(count):
            writer.write(event("a"))
        writer.flush()
        drained = loop.create_task(writer.drain(0))
        for _ in range(count):  # each read is late, but in time
            await asyncio.wait([drained], timeout=asgi.STALL_SECONDS - 1)
            assert not drained.done()
            server.gate.set()
            server.gate.clear()
        await turn()
        await asyncio.wait([drained], timeout=1)
        assert drained.done()
        drained.result()
        writer.write(event("b"))
        writer.flush()
        with pytest.raises(SlowReader):
            await writer.drain(0)
        writer.abort()
        await turn()

    try:
        loop.run_until_complete(wait())
    finally:
        loop.close()


SIZES = st.integers(0, 400)
STEPS = st.one_of(
    st.tuples(st.just("write"), SIZES),
    st.tuples(st.just("bundle"), SIZES),
    st.tuples(st.sampled_from(["flush", "turn", "stop", "go", "look", "abandon"]), st.just(0)),
)


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(STEPS, max_size=30))
def test_unsent_counts_what_is_queued_and_in_flight_and_available_is_never_too_much(
    steps: list[tuple[str, int]],
) -> None:
    asyncio.run(account(steps))


async def account(steps: list[tuple[str, int]]) -> None:
    server = Uvicorn()
    writer = writer_on(server)
    written: list[Frame] = []
    for act, size in steps:
        match act:
            case "write" | "bundle":
                frames = [event("x" * size), event("y")][: 1 + (act == "bundle")]
                writer.write(bundle(frames))
                written += [] if writer.closed else frames
            case "flush":
                writer.flush()
            case "turn":
                await turn()
            case "stop":
                server.gate.clear()
            case "go":
                server.gate.set()
            case "look":
                writer.refresh_available()
            case "abandon":
                writer.abort()
                written = []
                server.sent = []
        unsent = sum(frame.size for frame in written[len(server.sent) :])
        assert writer.unsent == unsent
        if not writer.closed:
            assert writer.available <= LIMIT - unsent
            for wanted in (0, 50, LIMIT - unsent, LIMIT - unsent + 1):
                for limit in (LIMIT, LIMIT // 2, 2 * LIMIT):
                    assert writer.fits(wanted, limit) == (unsent + wanted <= limit)
    server.gate.set()
    await turn()
    assert server.sent == [frame.text for frame in written]
