"""What waits leaves at the end of a turn, in one write a client, and nobody waits for long."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from realtime.encoders import Bundle, Frame, bundle
from realtime.events import Cursor, Event
from realtime.hub.audience import Audience
from realtime.hub.connection import Connection
from realtime.hub.ring import EventFrame
from realtime.writers.flusher import LOOK_EVERY, MANY, SLICE_SECONDS, Flusher
from tests.writers.support import HandLoop, PaperWriter, connect, event, texts

COST = SLICE_SECONDS / 50  # of a write
HOLD = SLICE_SECONDS + LOOK_EVERY * COST  # that a flush may hold the loop, by the clock's looks


@pytest.fixture
def loop() -> HandLoop:
    return HandLoop()


@pytest.fixture
def flusher(loop: HandLoop) -> Flusher:
    return loop.flusher()


Live = dict[Any, Any]


def nobody(receiver: Any, taken: int) -> None:
    raise AssertionError(f"{receiver} is left with {taken} frames")


def audience(loop: HandLoop, flusher: Flusher, count: int, **options: Any) -> Live:
    """Return the connections of clients that are ready, with their writers."""
    live = {}
    for _ in range(count):
        writer = PaperWriter(loop, **options)
        live[connect(flusher, writer)] = writer.settled()
    return live


def spread(flusher: Flusher, piece: Frame | Bundle, live: Live, left: Any = nobody) -> None:
    """Spread a piece as a hub does that has nothing else to do."""
    flusher.call_before(lambda: flusher.spread(piece, live, left))


def queue(flusher: Flusher, piece: Frame | Bundle, live: Live) -> None:
    """Spread a piece into the queues."""
    flusher.spread(piece, live, nobody)
    flusher.settle()


# In one write


def test_all_that_waits_for_a_client_leaves_in_one_write(loop: HandLoop, flusher: Flusher) -> None:
    live = audience(loop, flusher, 3)
    first = next(iter(live))
    one, other = ({**live} for _ in range(2))
    first.answer(event("answer 1"))
    spread(flusher, event("of one topic"), one)
    spread(flusher, bundle([event("of another"), event("and more")]), other)
    first.answer(event("answer 2"))
    loop.turns()
    together = ["of one topic", "of another", "and more"]
    for connection, writer in live.items():
        (data,) = writer.writes
        expected = ["answer 1", "answer 2", *together] if connection is first else together
        assert [event(text).text for text in expected] == texts(data)


def test_burst_of_one_turn_is_joined_once_for_everybody(loop: HandLoop, flusher: Flusher) -> None:
    topic = Audience(flusher)
    for connection, writer in audience(loop, flusher, 20).items():
        topic.live[connection] = writer
    frames = stored(3)
    for frame in frames:
        topic.gather(frame, frames[0].cursor)
    loop.turns()
    written = [data for writer in topic.live.values() for data in writer.writes]
    assert len(written) == 20
    assert {id(data) for data in written} == {id(written[0])}, "the bytes are the same object"
    assert texts(written[0]) == [frame.text for frame in frames]


def test_burst_in_the_queues_is_joined_once_too(loop: HandLoop, flusher: Flusher) -> None:
    live = audience(loop, flusher, 20)
    queue(flusher, bundle([event("a"), event("b")]), live)
    assert len({id(writer.queue[0]) for writer in live.values()}) == 1
    loop.turns()
    assert len({id(data) for writer in live.values() for data in writer.writes}) == 1


def test_what_comes_while_a_client_stands_in_line_leaves_with_the_rest(
    loop: HandLoop, flusher: Flusher
) -> None:
    live = audience(loop, flusher, 200, cost=COST)
    writers = list(live.values())
    queue(flusher, event("first"), live)
    loop.turn()
    served = sum(1 for writer in writers if writer.writes)
    assert 0 < served < 200
    spread(flusher, event("second"), live)
    loop.turns()
    assert {len(writer.writes) for writer in writers[:served]} == {2}
    assert {len(writer.writes) for writer in writers[served:]} == {1}
    assert all(len(texts(writer.data)) == 2 for writer in writers)


def test_what_comes_during_a_sweep_leaves_in_one_write_with_its_rest(
    loop: HandLoop, flusher: Flusher
) -> None:
    live = audience(loop, flusher, 200, cost=COST)
    writers = list(live.values())
    spread(flusher, event("first"), live)
    loop.turn()
    swept = sum(1 for writer in writers if writer.writes)
    assert 0 < swept < 200
    spread(flusher, event("second"), live)
    loop.turns()
    assert {len(writer.writes) for writer in writers[swept:]} == {1}
    both = [event("first").text, event("second").text]
    assert all(texts(writer.data) == both for writer in writers)


def test_nothing_is_written_before_the_end_of_the_turn(loop: HandLoop, flusher: Flusher) -> None:
    ((connection, writer),) = audience(loop, flusher, 1).items()
    assert connection.push(event("a"))
    assert (writer.writes, writer.ready) == ([], None)
    loop.turn()
    assert (len(writer.writes), writer.ready) == (1, writer.send)
    assert not loop.callbacks, "an idle flusher does nothing"


# Nobody waits for long


def in_line(flusher: Flusher, live: Live) -> None:
    queue(flusher, event("line"), live)


def one_by_one(flusher: Flusher, live: Live) -> None:
    for connection in live:
        connection.answer(event("few"))


def in_a_sweep(flusher: Flusher, live: Live) -> None:
    spread(flusher, event("sweep"), live)


@pytest.mark.parametrize("write", [in_line, one_by_one, in_a_sweep])
def test_no_flush_holds_the_loop_longer_than_a_slice(
    loop: HandLoop, flusher: Flusher, write: Callable[[Flusher, Live], None]
) -> None:
    live = audience(loop, flusher, 1_000, cost=COST)
    turns: list[float] = []

    def tick() -> None:  # something else that the loop has to do
        turns.append(loop.now)
        if len(turns) < 1_000 and not all(writer.writes for writer in live.values()):
            loop.call_soon(tick)

    tick()
    write(flusher, live)
    while not all(writer.writes for writer in live.values()):
        assert loop.turn() <= HOLD
    waits = [after - before for before, after in pairwise(turns)]
    assert len(waits) > 10
    assert max(waits) <= HOLD


def test_lines_and_sweep_together_keep_to_the_slice(loop: HandLoop, flusher: Flusher) -> None:
    many = audience(loop, flusher, 500, cost=COST)
    few = audience(loop, flusher, 500, cost=COST)
    queue(flusher, event("many"), many)
    one_by_one(flusher, few)
    while loop.callbacks:
        assert loop.turn() <= HOLD


def test_what_concerns_few_is_not_behind_what_concerns_thousands(
    loop: HandLoop, flusher: Flusher
) -> None:
    many = audience(loop, flusher, 3_000, cost=COST)
    few = audience(loop, flusher, MANY - 1, cost=COST / 10)
    queue(flusher, event("many"), many)
    loop.turn()
    queue(flusher, event("few"), few)
    loop.turn()
    assert all(writer.writes for writer in few.values())
    assert not list(many.values())[-1].writes


def test_answer_is_not_behind_a_sweep(loop: HandLoop, flusher: Flusher) -> None:
    live = audience(loop, flusher, 3_000, cost=COST)
    spread(flusher, event("many"), live)
    loop.turn()
    last = list(live)[-1]
    last.answer(event("pong"))
    loop.turn()
    assert [texts(data) for data in live[last].writes] == [[event("pong").text]]
    loop.turns()
    assert texts(live[last].data) == [event("pong").text, event("many").text]


@pytest.mark.parametrize("write", [in_line, in_a_sweep])
def test_the_many_go_on_while_the_few_never_end(
    loop: HandLoop, flusher: Flusher, write: Callable[[Flusher, Live], None]
) -> None:
    many = audience(loop, flusher, 500, cost=COST)
    few = audience(loop, flusher, 200, cost=COST)
    write(flusher, many)
    if write is in_a_sweep:
        loop.turn()  # it begins while there is nothing else
    turns = 0
    while not all(writer.writes for writer in many.values()):
        for connection, writer in few.items():
            if not writer.queue:
                connection.answer(event("more"))
        served = sum(len(writer.writes) for writer in many.values())
        loop.turn()
        turns += 1
        assert sum(len(writer.writes) for writer in many.values()) - served >= min(
            LOOK_EVERY, 500 - served
        )
    assert turns > 1


# A sweep


def stored(count: int, start: int = 1) -> list[EventFrame]:
    """Return the frames of events from a number on."""
    cursors = [Cursor("e", seq, seq) for seq in range(start, start + count)]
    return [EventFrame(Event("public.a", "tick", "0", cursor), cursor) for cursor in cursors]


def test_single_piece_goes_past_the_queues_of_those_who_are_ready(
    loop: HandLoop, flusher: Flusher
) -> None:
    live = audience(loop, flusher, 50)
    busy = list(live.values())[7]
    busy.ready = None
    spread(flusher, event("a"), live)
    loop.turns()
    assert flusher.direct == 49, "the sweep's own; a writer counts what it flushes"
    assert all(texts(writer.data) == [event("a").text] for writer in live.values())


def begun(loop: HandLoop, flusher: Flusher) -> tuple[Audience, list[PaperWriter]]:
    """Return an audience on which a sweep has come half way."""
    topic = Audience(flusher)
    live = audience(loop, flusher, 100, cost=COST)
    topic.live.update(live)
    (frame,) = stored(1)
    topic.gather(frame, Cursor("e", 0, 0))
    loop.turn()
    writers = list(live.values())
    swept = sum(1 for writer in writers if writer.writes)
    assert 0 < swept < 100
    assert not any(writer.queue for writer in writers)
    return topic, writers


def leave(topic: Audience) -> None:
    topic.dismiss(list(topic.live)[-1])


def reset(topic: Audience) -> None:
    topic.spread_over(event("reset"), Cursor("e", 1, 1))


def another_piece(topic: Audience) -> None:
    (frame,) = stored(1, start=2)
    topic.gather(frame, Cursor("e", 1, 1))
    topic.spread()


@pytest.mark.parametrize("act", [leave, reset, another_piece, Audience.hand_out])
def test_rest_of_a_sweep_is_in_the_queues_once_anything_else_comes(
    loop: HandLoop, flusher: Flusher, act: Callable[[Audience], None]
) -> None:
    topic, writers = begun(loop, flusher)
    act(topic)
    assert all(len(writer.writes) + len(writer.queue) >= 1 for writer in writers)
    loop.turns()
    first = stored(1)[0].text
    assert all(texts(writer.data).count(first) == 1 for writer in writers)
    assert all(texts(writer.data)[0] == first for writer in writers)
    assert len({len(texts(writer.data)) for writer in writers}) == 1


def test_client_that_is_abandoned_during_a_sweep_gets_nothing_more(
    loop: HandLoop, flusher: Flusher
) -> None:
    _, writers = begun(loop, flusher)
    writers[-1].abandon()
    loop.turns()
    assert writers[-1].writes == []
    assert all(len(writer.writes) == 1 for writer in writers[:-1])


class Recorder:
    """Takes frames as a subscription does, and remembers where it was left."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.writer = connection.writer
        self.left: list[int] = []

    def push(self, frame: Frame) -> bool:
        return self.connection.push(frame)

    def fall_behind(self, position: Cursor) -> None:
        self.left.append(position.seq)


@pytest.mark.parametrize("is_sweep", [False, True])
@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_client_that_is_full_is_left_with_what_it_took(
    loop: HandLoop, flusher: Flusher, is_sweep: bool, room: int
) -> None:
    topic = Audience(flusher)
    frames = stored(3)
    size = frames[0].size
    filling = event("x" * 1_000)
    slow = PaperWriter(loop, kernel=0)
    full = Recorder(connect(flusher, slow, limit=filling.size + 10 + room * size))
    assert full.push(filling)
    loop.turn()  # into its buffer
    others = [Recorder(connection) for connection in audience(loop, flusher, 30)]
    for one in [*others[:15], full, *others[15:]]:
        topic.admit(one)
    if is_sweep:
        loop.turns()
    else:
        others[0].push(event("something else to do"))
    for frame in frames:
        topic.gather(frame, Cursor("e", 0, 0))
    loop.turns()
    assert full.left == ([] if room == 3 else [room])
    assert (full in topic.live) == (room == 3)
    sent = texts(slow.data)
    assert sent[1:] == [frame.text for frame in frames[:room]]
    assert all(one.left == [] for one in others)


def test_ephemeral_event_is_missed_by_who_is_full_and_he_stays(
    loop: HandLoop, flusher: Flusher
) -> None:
    topic = Audience(flusher)
    slow = PaperWriter(loop, kernel=0)
    full = Recorder(connect(flusher, slow, limit=100))
    assert full.push(event("x" * 70))
    topic.admit(full)
    topic.gather(event("typing"), Cursor("e", 0, 0))
    loop.turns()
    assert full.left == []
    assert full in topic.live
    assert len(texts(slow.data)) == 1


# Failures


@pytest.mark.parametrize("is_sweep", [False, True])
def test_writer_that_raises_is_given_up_and_the_others_go_on(
    loop: HandLoop, flusher: Flusher, is_sweep: bool, caplog: pytest.LogCaptureFixture
) -> None:
    live = audience(loop, flusher, 40)
    bad = list(live.values())[20]
    bad.broken, bad.kernel = True, 0
    write = spread if is_sweep else queue
    write(flusher, event("a"), live)
    loop.turns()
    assert bad.closed
    assert "writing to a client failed" in caplog.text
    good = [writer for writer in live.values() if writer is not bad]
    assert all(texts(writer.data) == [event("a").text] for writer in good)
    bad_connection = list(live)[20]
    assert bad_connection.push(event("b")), "what is written to it is nobody's trouble"
    spread(flusher, event("c"), live)
    loop.turns()
    assert all(len(texts(writer.data)) == 2 for writer in good)


def test_socket_that_fails_in_a_sweep_costs_the_others_nothing(
    loop: HandLoop, flusher: Flusher
) -> None:
    live = audience(loop, flusher, 40)
    bad = list(live.values())[20]

    def fail(data: bytes) -> int:
        raise BrokenPipeError

    bad.ready = fail
    spread(flusher, event("a"), live)
    loop.turns()
    assert texts(bad.buffer) == [event("a").text], "the server finds out"
    assert all(texts(writer.data) == [event("a").text] for writer in live.values())


def test_event_that_cannot_be_spread_is_told_and_others_are_spread(
    loop: HandLoop, flusher: Flusher, caplog: pytest.LogCaptureFixture
) -> None:
    live = audience(loop, flusher, 2)

    def fail() -> None:
        raise RuntimeError("as it was told")

    flusher.call_before(fail)
    spread(flusher, event("a"), live)
    loop.turns()
    assert "could not be spread" in caplog.text
    assert all(texts(writer.data) == [event("a").text] for writer in live.values())
