"""Queued frames leave at the end of the turn, in one write a client, and in slices."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from realtime.hub.subscribers import Subscribers
from realtime.protocol.encoders import bundle
from realtime.writers.flusher import BULK_CLIENTS, CLOCK_EVERY, SLICE_SECONDS, Flusher
from tests.writers.support import (
    COST,
    Live,
    ManualLoop,
    event,
    event_frames,
    queue,
    ready_clients,
    texts,
    write_pass,
)

HOLD = SLICE_SECONDS + CLOCK_EVERY * COST  # that a flush may hold the loop


# In one write


def test_all_that_is_queued_for_a_client_leaves_in_one_write(
    loop: ManualLoop, flusher: Flusher
) -> None:
    live = ready_clients(loop, flusher, 3)
    first = next(iter(live))
    one, other = ({**live} for _ in range(2))
    first.answer(event("answer 1"))
    write_pass(flusher, event("of one topic"), one)
    write_pass(flusher, bundle([event("of another"), event("and more")]), other)
    first.answer(event("answer 2"))
    loop.turns()
    together = ["of one topic", "of another", "and more"]
    for connection, writer in live.items():
        (data,) = writer.writes
        expected = ["answer 1", "answer 2", *together] if connection is first else together
        assert [event(text).text for text in expected] == texts(data)


def test_the_bytes_of_a_batch_are_joined_once_for_all_clients(
    loop: ManualLoop, flusher: Flusher
) -> None:
    topic = Subscribers(flusher)
    live = ready_clients(loop, flusher, 20)
    topic.live.update(live)
    frames = event_frames(3)
    for frame in frames:
        topic.push(frame, frames[0].cursor)
    loop.turns()
    written = [data for writer in live.values() for data in writer.writes]
    assert len(written) == 20
    assert {id(data) for data in written} == {id(written[0])}, "the bytes are not the same object"
    assert texts(written[0]) == [frame.text for frame in frames]


def test_the_bytes_of_a_queued_batch_are_joined_once_too(
    loop: ManualLoop, flusher: Flusher
) -> None:
    live = ready_clients(loop, flusher, 20)
    queue(flusher, bundle([event("a"), event("b")]), live)
    assert len({id(writer.queue[0]) for writer in live.values()}) == 1
    loop.turns()
    assert len({id(data) for writer in live.values() for data in writer.writes}) == 1


def test_an_event_that_arrives_while_a_client_waits_leaves_in_the_same_write(
    loop: ManualLoop, flusher: Flusher
) -> None:
    live = ready_clients(loop, flusher, 200, cost=COST)
    writers = list(live.values())
    queue(flusher, event("first"), live)
    loop.turn()
    served = sum(1 for writer in writers if writer.writes)
    assert 0 < served < 200
    write_pass(flusher, event("second"), live)
    loop.turns()
    assert {len(writer.writes) for writer in writers[:served]} == {2}
    assert {len(writer.writes) for writer in writers[served:]} == {1}
    assert all(len(texts(writer.data)) == 2 for writer in writers)


def test_an_event_that_arrives_during_a_write_pass_leaves_in_one_write_with_its_rest(
    loop: ManualLoop, flusher: Flusher
) -> None:
    live = ready_clients(loop, flusher, 200, cost=COST)
    writers = list(live.values())
    write_pass(flusher, event("first"), live)
    loop.turn()
    reached = sum(1 for writer in writers if writer.writes)
    assert 0 < reached < 200
    write_pass(flusher, event("second"), live)
    loop.turns()
    assert {len(writer.writes) for writer in writers[reached:]} == {1}
    both = [event("first").text, event("second").text]
    assert all(texts(writer.data) == both for writer in writers)


def test_nothing_is_written_before_the_end_of_the_turn(loop: ManualLoop, flusher: Flusher) -> None:
    ((connection, writer),) = ready_clients(loop, flusher, 1).items()
    assert connection.push(event("a"))
    assert (writer.writes, writer.send_direct) == ([], None)
    loop.turn()
    assert (len(writer.writes), writer.send_direct) == (1, writer.send)
    assert not loop.callbacks, "an idle flusher does nothing"


# In slices


def in_queues(flusher: Flusher, live: Live) -> None:
    queue(flusher, event("queued"), live)


def one_by_one(flusher: Flusher, live: Live) -> None:
    for connection in live:
        connection.answer(event("few"))


def in_a_pass(flusher: Flusher, live: Live) -> None:
    write_pass(flusher, event("pass"), live)


@pytest.mark.parametrize("write", [in_queues, one_by_one, in_a_pass])
def test_no_flush_holds_the_loop_longer_than_a_slice(
    loop: ManualLoop, flusher: Flusher, write: Callable[[Flusher, Live], None]
) -> None:
    live = ready_clients(loop, flusher, 1_000, cost=COST)
    turns: list[float] = []

    def tick() -> None:  # another task of the loop
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


def test_interactive_and_bulk_writes_together_keep_to_the_slice(
    loop: ManualLoop, flusher: Flusher
) -> None:
    many = ready_clients(loop, flusher, 500, cost=COST)
    few = ready_clients(loop, flusher, 500, cost=COST)
    queue(flusher, event("many"), many)
    one_by_one(flusher, few)
    while loop.callbacks:
        assert loop.turn() <= HOLD


def test_a_piece_for_few_clients_does_not_wait_for_one_for_thousands(
    loop: ManualLoop, flusher: Flusher
) -> None:
    many = ready_clients(loop, flusher, 3_000, cost=COST)
    few = ready_clients(loop, flusher, BULK_CLIENTS - 1, cost=COST / 10)
    queue(flusher, event("many"), many)
    loop.turn()
    queue(flusher, event("few"), few)
    loop.turn()
    assert all(writer.writes for writer in few.values())
    assert not list(many.values())[-1].writes


def test_an_answer_does_not_wait_for_a_write_pass(loop: ManualLoop, flusher: Flusher) -> None:
    live = ready_clients(loop, flusher, 3_000, cost=COST)
    write_pass(flusher, event("many"), live)
    loop.turn()
    last = list(live)[-1]
    last.answer(event("pong"))
    loop.turn()
    assert [texts(data) for data in live[last].writes] == [[event("pong").text]]
    loop.turns()
    assert texts(live[last].data) == [event("pong").text, event("many").text]


@pytest.mark.parametrize("write", [in_queues, in_a_pass])
def test_bulk_writes_continue_while_interactive_writes_never_end(
    loop: ManualLoop, flusher: Flusher, write: Callable[[Flusher, Live], None]
) -> None:
    many = ready_clients(loop, flusher, 500, cost=COST)
    few = ready_clients(loop, flusher, 200, cost=COST)
    write(flusher, many)
    if write is in_a_pass:
        loop.turn()  # it starts while nothing else is to be done
    turns = 0
    while not all(writer.writes for writer in many.values()):
        for connection, writer in few.items():
            if not writer.queue:
                connection.answer(event("more"))
        served = sum(len(writer.writes) for writer in many.values())
        loop.turn()
        turns += 1
        assert sum(len(writer.writes) for writer in many.values()) - served >= min(
            CLOCK_EVERY, 500 - served
        )
    assert turns > 1
