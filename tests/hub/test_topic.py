"""A topic: order, gaps, contradictions, resets, and what it keeps in memory."""

import asyncio
import sys
from datetime import timedelta
from typing import Any

import pytest

from realtime.broadcast import Wakeup
from realtime.exceptions import StoreError
from realtime.hub.recent import RING_BYTES, RING_EVENTS
from realtime.hub.topic import EARLY_EVENTS
from realtime.protocol.events import Cursor
from realtime.stores.base import Retention
from tests.hub.support import TOPIC, Client, Scene

LONG_BEFORE_THE_HEAD_CHECK = 0.06


@pytest.fixture
def follower(scene: Scene) -> Client:
    """A live client, after three events and just after a head check."""
    client = scene.join()
    scene.publish(3)
    until_just_checked(scene)
    scene.store.calls.clear()
    return client


def until_just_checked(scene: Scene) -> None:
    before = scene.store.calls.count("heads")
    while scene.store.calls.count("heads") == before:
        scene.advance(0.01)


def test_an_event_arrives_at_once_and_costs_no_read(scene: Scene, follower: Client) -> None:
    scene.publish()
    assert follower.seqs() == [1, 2, 3, 4]
    assert scene.store.calls == []


def test_an_early_event_waits_10_ms_and_is_then_repaired_by_one_read(
    scene: Scene, follower: Client
) -> None:
    scene.publish(5, [], [0.0], [0.0], [0.0], [0.0])
    scene.advance(0.005)
    assert follower.seqs() == [1, 2, 3]
    assert scene.store.calls == []
    scene.advance(0.006)
    assert follower.seqs() == list(range(1, 9))
    assert scene.store.calls == ["read"]


def test_an_early_event_needs_no_read_if_the_ones_before_it_arrive_in_time(
    scene: Scene, follower: Client
) -> None:
    scene.publish(4, [0.009], [0.006], [0.0], [0.0])
    scene.advance(0.02)
    assert follower.seqs() == list(range(1, 8))
    assert scene.store.calls == []


def test_a_duplicate_is_dropped(scene: Scene, follower: Client) -> None:
    scene.publish(2, [0.0, 0.0, 0.05], [0.0, 0.1])
    scene.advance(0.2)
    assert follower.seqs() == [1, 2, 3, 4, 5]
    assert scene.store.calls == []


def test_a_lost_wakeup_is_found_within_5_s(scene: Scene, follower: Client) -> None:
    scene.publish(1, [])
    scene.advance(4.9)
    assert follower.seqs() == [1, 2, 3, 4]


def test_a_lost_wakeup_is_found_within_5_s_behind_a_late_one(
    scene: Scene, follower: Client
) -> None:
    """The check sees two events; the first one's wake-up is late, the second one's is lost."""
    scene.store.after = 0.02
    first = scene.append()
    scene.append()
    before = scene.store.calls.count("heads")
    while scene.store.calls.count("heads") == before:
        scene.advance(0.01)
    scene.run(scene.announce(first, [0.03]))
    scene.advance(0.2)
    assert follower.seqs() == [1, 2, 3, 4, 5]


def test_a_wakeup_on_its_way_at_a_head_check_costs_no_read(scene: Scene, follower: Client) -> None:
    scene.advance(2.9)
    wakeup = scene.append()
    until_just_checked(scene)
    scene.run(scene.announce(wakeup, [0.03]))
    scene.advance(1.0)
    assert follower.seqs() == [1, 2, 3, 4]
    assert "read" not in scene.store.calls


def test_an_early_event_does_not_wait_as_long_as_a_head_check_does(
    scene: Scene, follower: Client
) -> None:
    scene.advance(2.5)
    scene.append()
    before = scene.store.calls.count("heads")
    while scene.store.calls.count("heads") == before:
        scene.advance(0.001)
    scene.publish(2, [], [0.0])
    scene.advance(0.012)
    assert follower.seqs() == list(range(1, 7))


def test_early_events_of_a_burst_are_bounded_and_none_is_lost(
    scene: Scene, follower: Client
) -> None:
    scene.publish(1, [])
    for _ in range(3):
        scene.run(scene.announce(scene.append(EARLY_EVENTS // 2)))
    big = scene.append(40, size=50_000)
    scene.run(scene.announce(big))
    scene.advance(0.001)
    assert len(scene.live._early) == EARLY_EVENTS
    scene.advance(1.0)
    assert follower.seqs() == list(range(1, 4 + 1 + 3 * (EARLY_EVENTS // 2) + 40))
    assert not scene.live._early
    assert scene.live._early_bytes == 0


def test_large_early_events_are_bounded_in_bytes(scene: Scene, follower: Client) -> None:
    scene.publish(1, [])
    scene.run(scene.announce(scene.append(40, size=50_000)))
    scene.advance(0.001)
    assert 0 < scene.live._early_bytes <= 1024 * 1024
    scene.advance(1.0)
    assert follower.seqs()[-1] == 44


def test_an_early_event_of_a_log_that_no_longer_exists_is_dropped(
    scene: Scene, follower: Client
) -> None:
    """Otherwise the repair would wait forever for the events before it."""
    backup = rewindable(scene)
    scene.append()
    lost = scene.append()
    backup()
    scene.run(scene.announce(lost))
    scene.advance(2.0)
    assert scene.store.calls.count("read") == 1
    assert not scene.live._early


def test_an_early_event_that_arrives_while_a_repair_reads_is_repaired_too(
    scene: Scene, follower: Client
) -> None:
    scene.store.after = 0.05
    scene.publish(2, [], [0.0])
    scene.advance(0.02)
    assert scene.store.calls == ["read"]
    scene.publish(2, [], [0.0])
    scene.advance(0.2)
    assert follower.seqs() == list(range(1, 8))
    assert scene.store.calls.count("heads") == 0


def test_an_early_event_that_a_clients_read_delivered_costs_no_repair(
    scene: Scene, follower: Client
) -> None:
    begin = follower.view.seen[1]
    scene.publish(300)
    scene.publish(2, [], [0.0])
    scene.join(begin)
    scene.advance(0.05)
    assert follower.seqs() == list(range(1, 306))
    assert scene.store.calls.count("read") == 1
    assert not scene.live._early


# Contradictions


def test_an_early_event_with_another_predecessor_causes_a_repair(
    scene: Scene, follower: Client
) -> None:
    restore = rewindable(scene)
    four = scene.append()
    restore()
    scene.append()
    scene.run(scene.announce(scene.append()))  # number 5, whose number 4 is another event
    scene.run(scene.announce(four))
    scene.advance(LONG_BEFORE_THE_HEAD_CHECK)
    assert follower.resets() == ["restarted"]
    assert follower.view.position == scene.head


def rewindable(scene: Scene) -> Any:
    """Return a function that restores the log as it is now."""
    import copy

    snapshot = copy.deepcopy(scene.store._logs)

    def restore() -> None:
        scene.store._logs = copy.deepcopy(snapshot)

    return restore


def test_another_predecessor_begins_a_new_epoch_and_resets_once(
    scene: Scene, follower: Client
) -> None:
    restore = rewindable(scene)
    scene.publish(1)
    restore()
    scene.append()
    scene.publish(1)  # number 5 follows a number 4, but not the one that the hub delivered
    scene.advance(LONG_BEFORE_THE_HEAD_CHECK)
    assert follower.resets() == ["restarted"]
    assert scene.store.calls.count("renew") == 1
    assert follower.view.position == scene.head
    scene.advance(20.0)
    assert follower.resets() == ["restarted"]
    assert scene.store.calls.count("renew") == 1


@pytest.mark.parametrize("max_events", [1000, 0])
def test_a_known_number_with_another_tag_begins_a_new_epoch_and_resets_once(
    scene: Scene, follower: Client, max_events: int
) -> None:
    scene.live._ring = type(scene.live._ring)(scene.live.position, max_events)  # type: ignore
    restore = rewindable(scene)
    scene.publish(2 if max_events else 1)
    restore()
    scene.publish(1)
    scene.advance(LONG_BEFORE_THE_HEAD_CHECK)
    assert follower.resets() == ["restarted"]
    assert follower.view.position == scene.head
    scene.publish(2)
    assert follower.view.position == scene.head
    scene.advance(20.0)
    assert follower.resets() == ["restarted"]


def test_a_rewound_log_without_any_wakeup_is_found_by_the_head_check(
    scene: Scene, follower: Client
) -> None:
    restore = rewindable(scene)
    scene.publish(2)
    restore()
    scene.advance(4.9)
    assert follower.resets() == ["restarted"]


def test_a_rewound_log_that_grew_as_long_as_it_was_is_found_by_the_head_check(
    scene: Scene, follower: Client
) -> None:
    restore = rewindable(scene)
    scene.publish(2)
    restore()
    scene.append(2)
    scene.advance(4.9)
    assert follower.resets() == ["restarted"]


def test_a_client_that_resumes_in_the_rewound_log_does_not_move_the_others_into_it(
    scene: Scene, follower: Client
) -> None:
    """A client of another node resumes with a cursor that this hub does not know yet."""
    restore = rewindable(scene)
    scene.publish(1)
    restore()
    four = scene.append().events[-1].cursor
    scene.append(2)
    other = scene.join(four)
    scene.advance(1.0)
    assert follower.resets() == ["restarted"]
    assert follower.view.position == other.view.position == scene.head
    scene.advance(20.0)
    assert follower.resets() == ["restarted"]
    assert len(other.resets()) <= 1


def test_a_client_that_resumes_at_the_head_of_the_rewound_log_causes_a_repair(
    scene: Scene, follower: Client
) -> None:
    restore = rewindable(scene)
    scene.publish(1)
    restore()
    scene.join(scene.append().events[-1].cursor)
    scene.advance(LONG_BEFORE_THE_HEAD_CHECK)
    assert follower.resets() == ["restarted"]


def test_a_deleted_log_resets_once_and_continues(scene: Scene, follower: Client) -> None:
    scene.store.delete(TOPIC)
    scene.publish(2)
    scene.advance(LONG_BEFORE_THE_HEAD_CHECK)
    assert follower.resets() == ["restarted"]
    scene.publish(2)
    scene.advance(20.0)
    assert follower.view.position == scene.head
    assert follower.resets() == ["restarted"]


def test_a_new_epoch_is_never_believed_from_a_wakeup(scene: Scene, follower: Client) -> None:
    forged = scene.append().events[0]
    assert forged.cursor is not None
    cursor = Cursor("another", 4, forged.cursor.tag)
    event = type(forged)(TOPIC, "tick", forged.json, cursor, forged.time)
    scene.run(scene.announce(Wakeup(TOPIC, None, (event,))))
    scene.advance(LONG_BEFORE_THE_HEAD_CHECK)
    assert follower.seqs() == [1, 2, 3, 4]
    assert follower.resets() == []


def test_a_contradiction_found_while_a_repair_reads_is_not_forgotten(
    scene: Scene, follower: Client
) -> None:
    scene.store.after = 0.05
    scene.publish(2, [], [0.0])
    scene.advance(0.02)
    assert scene.store.calls == ["read"]  # of the log before the deletion
    scene.store.delete(TOPIC)
    scene.publish(1)
    scene.advance(0.3)
    assert follower.resets() == ["restarted"]
    assert follower.view.position == scene.head
    assert "heads" not in scene.store.calls


def test_events_of_a_new_epoch_that_arrive_while_the_hub_resets_are_not_late(
    scene: Scene, follower: Client
) -> None:
    scene.store.after = 0.05
    scene.store.delete(TOPIC)
    scene.publish(1)
    scene.advance(0.02)
    scene.publish(2)
    scene.advance(0.3)
    assert follower.view.position == scene.head
    assert follower.seqs() == [1, 2, 3, 2, 3]
    assert "heads" not in scene.store.calls


def test_a_gap_that_was_trimmed_is_one_reset_with_that_reason(
    scene: Scene, follower: Client
) -> None:
    scene.publish(5, *[[]] * 5)
    scene.store.trim(TOPIC, Retention(2, timedelta(days=1).total_seconds()))
    scene.advance(4.9)
    assert follower.resets() == ["trimmed"]
    assert follower.view.position == scene.head
    scene.publish(1)
    assert follower.seqs() == [1, 2, 3, 9]
    scene.advance(20.0)
    assert follower.resets() == ["trimmed"]


def test_a_gap_that_wakeups_fill_while_the_repair_reads_is_no_reset(
    scene: Scene, follower: Client
) -> None:
    scene.store.before = 0.02
    scene.publish(2, [0.02], [0.0])
    scene.store.trim(TOPIC, Retention(1, 1e9))  # the repair is too late for the fourth
    scene.advance(0.2)
    assert follower.seqs() == [1, 2, 3, 4, 5]
    assert follower.resets() == []


def test_a_head_that_a_rewind_removed_is_repaired_once(scene: Scene, follower: Client) -> None:
    restore = rewindable(scene)
    scene.append(2)
    before = scene.store.calls.count("heads")
    while scene.store.calls.count("heads") == before:
        scene.advance(0.001)
    restore()
    scene.advance(2.0)
    assert scene.store.calls.count("read") == 1


def test_a_client_that_leaves_does_not_cancel_the_repair_that_it_waits_for(
    scene: Scene, follower: Client
) -> None:
    position = scene.live.position
    scene.store.delete(TOPIC)
    scene.store.after = 0.05
    forged = Cursor(position.epoch, 2, position.tag)
    task = scene.loop.create_task(scene.connect().subscribe(forged))
    scene.advance(0.07)
    task.cancel()
    scene.advance(0.1)
    assert follower.resets() == ["restarted"]
    assert "heads" not in scene.store.calls


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has no eager tasks before 3.12")
@pytest.mark.parametrize("seconds", [0.0, 0.002])
def test_repairs_run_in_eager_tasks_whether_the_store_waits_or_not(
    scene: Scene, follower: Client, seconds: float
) -> None:
    scene.store.after = seconds
    scene.loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009
    for last in (5, 7):  # the first repair must not keep the second from starting
        scene.publish(2, [], [0.0])
        scene.advance(0.02)
        assert follower.seqs() == list(range(1, last + 1))
        assert scene.live._repair_task is None
    scene.store.delete(TOPIC)
    scene.publish(1)
    scene.advance(0.02)
    scene.loop.set_task_factory(None)
    assert follower.resets() == ["restarted"]
    assert follower.view.position == scene.head
    assert "heads" not in scene.store.calls, "a head check has repaired it"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has no eager tasks before 3.12")
def test_a_contradiction_found_while_an_eager_repair_starts_is_repaired_by_the_same_repair(
    scene: Scene, follower: Client
) -> None:
    restore = rewindable(scene)
    scene.publish(1)
    restore()
    scene.append(2)
    scene.loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009
    scene.loop.call_soon(scene.live.force_repair)
    scene.advance(0.02)
    scene.loop.set_task_factory(None)
    assert follower.resets() == ["restarted"]
    assert scene.store.calls.count("renew") == 1
    assert scene.live._repair_task is None


# The store fails


def test_a_repair_continues_when_the_store_is_back(
    scene: Scene, follower: Client, caplog: pytest.LogCaptureFixture
) -> None:
    scene.store.failing = True
    scene.publish(3, [], [0.0], [0.0])
    scene.advance(60.0)
    assert follower.seqs() == [1, 2, 3]
    assert sum("waits for its store" in message for message in caplog.messages) == 1
    scene.store.failing = False
    scene.advance(5.1)
    assert follower.seqs() == list(range(1, 7))
    assert follower.resets() == []


def test_a_rewound_log_gets_a_new_epoch_when_the_store_is_back(
    scene: Scene, follower: Client
) -> None:
    restore = rewindable(scene)
    scene.publish(1)
    restore()
    renew = scene.store.renew
    scene.store.renew = refuse  # type: ignore
    scene.publish(1)
    scene.advance(1.0)
    scene.store.renew = renew  # type: ignore
    scene.advance(5.1)
    assert follower.resets() == ["restarted"]


def refuse(*args: object) -> Any:
    raise StoreError("fails as the test demands")


def test_an_unexpected_error_of_the_store_is_logged_and_the_read_retried(
    scene: Scene, follower: Client, caplog: pytest.LogCaptureFixture
) -> None:
    read = scene.store.read
    scene.store.read = lambda *args: 1 / 0  # type: ignore
    scene.publish(2, [], [0.0])
    scene.advance(1.0)
    assert any("repair of" in message for message in caplog.messages)
    scene.store.read = read  # type: ignore
    scene.advance(5.1)
    assert follower.seqs() == [1, 2, 3, 4, 5]


# What is kept


def test_the_ring_is_bounded_by_256_events(scene: Scene, follower: Client) -> None:
    scene.publish(RING_EVENTS + 10)
    recent = scene.live.recent(follower.view.seen[13])
    assert recent is not None
    assert len(recent.frames) == RING_EVENTS
    assert scene.live.recent(follower.view.seen[12]) is None


def test_the_ring_is_bounded_by_1_mib(scene: Scene) -> None:
    scene.join(limit=10**8)
    scene.publish(40, size=50_000)
    ring = scene.live._ring
    assert ring is not None
    assert RING_BYTES - 51_000 < sum(frame.size for frame in ring._frames) <= RING_BYTES
    assert ring._bytes == sum(frame.size for frame in ring._frames)


def test_the_ring_is_bounded_by_what_the_topic_keeps(scene: Scene) -> None:
    client = scene.join(topic="tiny.one")
    scene.publish(9, topic="tiny.one")
    live = scene.hub.topics["tiny.one"]
    seen = client.views["tiny.one"].seen
    recent = live.recent(seen[4])
    assert recent is not None
    assert [frame.cursor.seq for frame in recent.frames] == [5, 6, 7, 8, 9]
    assert live.recent(seen[3]) is None


def test_the_ring_has_nothing_after_a_forged_cursor(scene: Scene, follower: Client) -> None:
    position = scene.live.position
    here = scene.live.recent(position)
    assert here is not None
    assert here.frames == []
    assert scene.live.recent(Cursor(position.epoch, position.seq, position.tag ^ 1)) is None
    assert scene.live.recent(Cursor(position.epoch, position.seq + 1, position.tag)) is None


def test_an_event_is_encoded_once_whatever_the_number_of_clients(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    from realtime.hub import recent

    encoded = []
    original = recent.event_frame
    monkeypatch.setattr(recent, "event_frame", lambda e: encoded.append(e) or original(e))
    clients = [scene.join() for _ in range(5)]
    scene.publish(3)
    assert len(encoded) == 3
    assert all(client.seqs() == [1, 2, 3] for client in clients)


def test_a_closed_topic_starts_nothing(scene: Scene, follower: Client) -> None:
    live = scene.live
    scene.leave(follower)
    scene.advance(61.0)
    assert TOPIC not in scene.hub.topics
    before = len(scene.store.calls)
    live.force_repair()
    live._repair_in(0.01)
    assert not live.check(Cursor("other", 9, 9), live.position)

    async def read() -> None:
        with pytest.raises(StoreError):
            await live.read(live.position)

    scene.run(read())
    scene.advance(1.0)
    assert len(scene.store.calls) == before
