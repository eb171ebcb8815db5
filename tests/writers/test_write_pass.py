"""A single piece goes past the queues; its rest is queued once anything else arrives."""

from collections.abc import Callable
from typing import Any

import pytest

from realtime.hub.connection import Connection
from realtime.hub.subscribers import Subscribers
from realtime.protocol.encoders import Frame
from realtime.protocol.events import Cursor
from realtime.writers.flusher import Flusher
from tests.writers.support import (
    COST,
    FakeWriter,
    ManualLoop,
    connect,
    event,
    event_frames,
    never_full,
    queue,
    ready_clients,
    texts,
    write_pass,
)

# A write pass


def test_a_single_piece_goes_past_the_queues_of_ready_clients(
    loop: ManualLoop, flusher: Flusher
) -> None:
    live = ready_clients(loop, flusher, 50)
    busy = list(live.values())[7]
    busy.send_direct = None
    write_pass(flusher, event("a"), live)
    loop.turns()
    assert flusher.writes["direct"] == 49, "of the pass; the busy client was flushed"
    assert all(texts(writer.data) == [event("a").text] for writer in live.values())


def begun(loop: ManualLoop, flusher: Flusher) -> tuple[Subscribers, list[FakeWriter]]:
    """Return subscribers of which a write pass has reached about half."""
    topic = Subscribers(flusher)
    live = ready_clients(loop, flusher, 100, cost=COST)
    topic.live.update(live)
    (frame,) = event_frames(1)
    topic.push(frame, Cursor("e", 0, 0))
    loop.turn()
    writers = list(live.values())
    reached = sum(1 for writer in writers if writer.writes)
    assert 0 < reached < 100
    assert not any(writer.queue for writer in writers)
    return topic, writers


def leave(topic: Subscribers) -> None:
    topic.remove_live(list(topic.live)[-1])


def reset(topic: Subscribers) -> None:
    topic.push_reset(event("reset"), Cursor("e", 1, 1))


def another_piece(topic: Subscribers) -> None:
    (frame,) = event_frames(1, start=2)
    topic.push(frame, Cursor("e", 1, 1))
    topic.push_batch()


@pytest.mark.parametrize("act", [leave, reset, another_piece, Subscribers.queue_pending])
def test_the_rest_of_a_write_pass_is_queued_once_anything_else_arrives(
    loop: ManualLoop, flusher: Flusher, act: Callable[[Subscribers], None]
) -> None:
    topic, writers = begun(loop, flusher)
    act(topic)
    assert all(len(writer.writes) + len(writer.queue) >= 1 for writer in writers)
    loop.turns()
    first = event_frames(1)[0].text
    assert all(texts(writer.data).count(first) == 1 for writer in writers)
    assert all(texts(writer.data)[0] == first for writer in writers)
    assert len({len(texts(writer.data)) for writer in writers}) == 1


def test_a_client_aborted_during_a_write_pass_receives_nothing_more(
    loop: ManualLoop, flusher: Flusher
) -> None:
    _, writers = begun(loop, flusher)
    writers[-1].abort()
    loop.turns()
    assert writers[-1].writes == []
    assert all(len(writer.writes) == 1 for writer in writers[:-1])


class Recorder:
    """A subscription that records where it falls behind."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.writer = connection.writer
        self.fell_behind: list[int] = []

    def push(self, frame: Frame) -> bool:
        return self.connection.push(frame)

    def fall_behind(self, position: Cursor) -> None:
        self.fell_behind.append(position.seq)


@pytest.mark.parametrize("in_pass", [False, True])
@pytest.mark.parametrize("available", [0, 1, 2, 3])
def test_a_client_with_a_full_buffer_falls_behind_after_the_frames_that_it_accepted(
    loop: ManualLoop, flusher: Flusher, in_pass: bool, available: int
) -> None:
    topic = Subscribers(flusher)
    frames = event_frames(3)
    size = frames[0].size
    filling = event("x" * 1_000)
    slow = FakeWriter(loop, kernel=0)
    full = Recorder(connect(flusher, slow, limit=filling.size + 10 + available * size))
    assert full.push(filling)
    loop.turn()  # into the transport's buffer
    others = [Recorder(connection) for connection in ready_clients(loop, flusher, 30)]
    for one in [*others[:15], full, *others[15:]]:
        topic.add_live(one)
    if in_pass:
        loop.turns()
    else:
        others[0].push(event("something else to do"))
    for frame in frames:
        topic.push(frame, Cursor("e", 0, 0))
    loop.turns()
    assert full.fell_behind == ([] if available == 3 else [available])
    assert (full in topic.live) == (available == 3)
    sent = texts(slow.data)
    assert sent[1:] == [frame.text for frame in frames[:available]]
    assert all(one.fell_behind == [] for one in others)


def test_the_part_of_a_burst_that_exceeds_a_buffer_is_left_to_the_log(
    loop: ManualLoop, flusher: Flusher
) -> None:
    topic = Subscribers(flusher)
    frames = event_frames(30)
    limit = sum(frame.size for frame in frames[:10])
    writer = FakeWriter(loop, kernel=0)
    ready = Recorder(connect(flusher, writer, limit))
    writer.become_ready()
    topic.add_live(ready)
    for frame in frames:
        topic.push(frame, Cursor("e", 0, 0))
    loop.turns()
    assert ready.fell_behind == [10]
    assert limit <= writer.unsent <= limit + 100
    assert texts(writer.data) == [frame.text for frame in frames[:10]]


@pytest.mark.parametrize("index", [0, 5, 40, 99])
def test_a_piece_written_by_on_full_comes_behind_the_pass_and_repeats_nothing(
    loop: ManualLoop, flusher: Flusher, index: int
) -> None:
    slow = FakeWriter(loop, kernel=0)
    full = connect(flusher, slow, limit=1)
    full.answer(event("x"))
    loop.turns()
    clients = [*ready_clients(loop, flusher, 100).items()]
    live = dict([*clients[:index], (full, slow), *clients[index:]])
    other = dict(live)
    accepted_frames: list[int] = []

    def write_another(recipient: Any, accepted: int) -> None:
        accepted_frames.append(accepted)
        del other[recipient]
        flusher.write_all(event("second"), other, never_full)

    write_pass(flusher, event("first"), live, write_another)
    loop.turns()
    assert accepted_frames == [0]
    both = [event("first").text, event("second").text]
    assert all(texts(writer.data) == both for writer in other.values())
    assert texts(slow.data) == [event("x").text]


def test_an_ephemeral_event_is_lost_for_a_client_with_a_full_buffer_which_stays_live(
    loop: ManualLoop, flusher: Flusher
) -> None:
    topic = Subscribers(flusher)
    slow = FakeWriter(loop, kernel=0)
    full = Recorder(connect(flusher, slow, limit=100))
    assert full.push(event("x" * 70))
    topic.add_live(full)
    topic.push(event("typing"), Cursor("e", 0, 0))
    loop.turns()
    assert full.fell_behind == []
    assert full in topic.live
    assert len(texts(slow.data)) == 1


# Failures


@pytest.mark.parametrize("in_pass", [False, True])
def test_a_writer_that_raises_is_closed_and_the_others_continue(
    loop: ManualLoop, flusher: Flusher, in_pass: bool, caplog: pytest.LogCaptureFixture
) -> None:
    live = ready_clients(loop, flusher, 40)
    bad = list(live.values())[20]
    bad.broken, bad.kernel = True, 0
    write = write_pass if in_pass else queue
    write(flusher, event("a"), live)
    loop.turns()
    assert bad.closed
    assert "writing to a client failed" in caplog.text
    good = [writer for writer in live.values() if writer is not bad]
    assert all(texts(writer.data) == [event("a").text] for writer in good)
    bad_connection = list(live)[20]
    assert bad_connection.push(event("b")), "a closed writer accepts and drops everything"
    write_pass(flusher, event("c"), live)
    loop.turns()
    assert all(len(texts(writer.data)) == 2 for writer in good)


def test_a_socket_that_fails_in_a_write_pass_does_not_affect_the_others(
    loop: ManualLoop, flusher: Flusher
) -> None:
    live = ready_clients(loop, flusher, 40)
    bad = list(live.values())[20]

    def fail(data: bytes) -> int:
        raise BrokenPipeError

    bad.send_direct = fail
    write_pass(flusher, event("a"), live)
    loop.turns()
    assert texts(bad.buffer) == [event("a").text], "in the server's buffer, which finds the error"
    assert all(texts(writer.data) == [event("a").text] for writer in live.values())


def test_a_batch_that_cannot_be_pushed_is_logged_and_others_are_pushed(
    loop: ManualLoop, flusher: Flusher, caplog: pytest.LogCaptureFixture
) -> None:
    live = ready_clients(loop, flusher, 2)

    def fail() -> None:
        raise RuntimeError("as the test demands")

    flusher.call_before_flush(fail)
    write_pass(flusher, event("a"), live)
    loop.turns()
    assert "could not be pushed" in caplog.text
    assert all(texts(writer.data) == [event("a").text] for writer in live.values())
