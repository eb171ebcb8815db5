"""A connection: resume, replay, falling behind, slow clients, and how it ends."""

import time
from typing import Any

import pytest

from realtime.exceptions import StoreError
from realtime.hub.connection import REPLAY_BYTES, Subscription
from realtime.protocol.encoders import Frame
from realtime.protocol.events import Cursor
from realtime.protocol.frames import CloseCode
from realtime.stores.base import Retention
from realtime.topics import resolve
from realtime.writers.asgi import AsgiWriter
from tests.hub.support import BUFFER_BYTES, TOPIC, Client, Scene


@pytest.fixture
def history(scene: Scene) -> list[Cursor]:
    """The cursors of five events that the hub delivered; index 0 is the beginning."""
    client = scene.join()
    cursors = [scene.live.position]
    for _ in range(5):
        scene.publish()
        cursors.append(scene.live.position)
    assert client.seqs() == [1, 2, 3, 4, 5]
    scene.store.calls.clear()
    return cursors


def announced(scene: Scene, *args: Any, **kwargs: Any) -> tuple[Cursor, bool | None, int]:
    """Subscribe; return what was announced."""
    seen: list[tuple[Cursor, bool | None, int]] = []
    client = scene.connect()

    class Recorder(dict[str, Any]):
        def __setitem__(self, topic: str, view: Any) -> None:
            super().__setitem__(topic, view)
            subscribed = view.subscribed
            view.subscribed = lambda *a: seen.append(a) or subscribed(*a)

    client.views = Recorder()
    scene.run(client.subscribe(*args, **kwargs))
    scene.advance(0.01)
    assert len(seen) == 1
    assert seen[0][2] == len(client.seqs(kwargs.get("topic", TOPIC)))
    return seen[0]


# Resuming


def test_a_resume_from_the_ring_makes_no_store_call(scene: Scene, history: list[Cursor]) -> None:
    assert announced(scene, history[2]) == (history[2], True, 3)
    assert announced(scene, history[5]) == (history[5], True, 0)
    assert announced(scene, history[0]) == (history[0], True, 5)
    assert scene.store.calls == []


def test_a_resume_counts_the_events_of_other_nodes_exactly(
    scene: Scene, history: list[Cursor]
) -> None:
    scene.append(3)
    other = scene.join(history[5])
    scene.advance(6.0)
    assert other.seqs() == [6, 7, 8]
    trimmed_ring = scene.head
    scene.append(2)
    assert announced(scene, trimmed_ring) == (trimmed_ring, True, 0)


def test_concurrent_resumes_share_one_read(scene: Scene, history: list[Cursor]) -> None:
    scene.publish(300)
    scene.store.calls.clear()
    scene.store.before = 0.05
    clients = [scene.connect() for _ in range(20)]
    for client in clients:
        scene.loop.create_task(client.subscribe(history[1]))
    scene.advance(0.2)
    assert scene.store.calls == ["read"]
    assert all(client.seqs() == list(range(2, 306)) for client in clients)
    assert all(client.view.replayed == 304 for client in clients)


def test_a_resume_is_not_reset_to_a_head_from_before_it(
    scene: Scene, history: list[Cursor]
) -> None:
    scene.store.delete(TOPIC)
    scene.advance(6.0)
    assert scene.live.position == scene.head
    scene.store.after = 0.05
    early, late = scene.connect(), scene.connect()
    scene.loop.create_task(early.subscribe(history[1]))
    scene.advance(0.01)
    scene.store.delete(TOPIC)  # the read of the early client has an outdated head
    scene.loop.create_task(late.subscribe(history[1]))
    scene.advance(20.0)
    assert late.view.position == scene.head
    assert late.view.resets == 1


def test_a_cursor_ahead_of_the_hub_is_resumed_and_the_hub_catches_up(
    scene: Scene, history: list[Cursor]
) -> None:
    ahead = scene.append(3).events[-1].cursor
    assert announced(scene, ahead) == (ahead, True, 0)
    assert scene.live.position == ahead
    assert scene.clients[0].seqs() == list(range(1, 9))
    scene.publish()
    assert scene.clients[1].seqs() == [9]


def test_a_read_ahead_of_the_hub_leaves_no_gap_for_the_other_clients(
    scene: Scene, history: list[Cursor]
) -> None:
    ahead = scene.append(3).events[-1].cursor
    scene.append(2)
    assert announced(scene, ahead) == (ahead, True, 2)
    scene.advance(5.0)
    assert scene.clients[0].seqs() == list(range(1, 11))


def test_a_resume_counts_events_that_the_hub_has_not_seen(
    scene: Scene, history: list[Cursor]
) -> None:
    scene.publish(300)
    scene.append(7)
    assert announced(scene, history[3]) == (history[3], True, 2 + 300 + 7)


def test_a_resume_in_an_epoch_that_the_hub_does_not_know_counts_exactly(
    scene: Scene, history: list[Cursor]
) -> None:
    begin = scene.store.delete(TOPIC)
    scene.append(2)
    assert announced(scene, begin) == (begin, True, 2)
    scene.advance(20.0)
    assert scene.clients[0].resets() == ["restarted"]
    assert scene.clients[1].resets() == []


@pytest.mark.parametrize("seq", [0, 3, 5, 9])
def test_a_forged_cursor_resets_that_client_alone(
    scene: Scene, history: list[Cursor], seq: int
) -> None:
    forged = Cursor(history[0].epoch, seq, 12345)
    assert announced(scene, forged) == (history[5], False, 0)
    scene.advance(20.0)
    assert scene.clients[0].resets() == scene.clients[1].resets() == []
    assert "renew" not in scene.store.calls


def test_a_trimmed_cursor_is_reset_once(scene: Scene, history: list[Cursor]) -> None:
    scene.publish(300)
    scene.store.trim(TOPIC, Retention(10, 1e9))
    assert announced(scene, history[1]) == (scene.head, False, 0)
    scene.advance(20.0)
    assert scene.clients[1].resets() == []


def test_expired_cursors_on_a_busy_topic_cost_the_hub_no_repair(
    scene: Scene, history: list[Cursor]
) -> None:
    forged = Cursor(history[0].epoch, 2, 12345)
    scene.store.after = 0.05
    scene.loop.create_task(scene.connect().subscribe(forged))
    scene.advance(0.01)
    scene.publish(3)
    scene.advance(0.2)
    assert scene.clients[1].view.position == scene.head
    assert scene.store.calls == ["read"]


def test_a_cursor_of_a_deleted_log_is_reset_once(scene: Scene, history: list[Cursor]) -> None:
    scene.store.delete(TOPIC)
    scene.append(1)
    other = scene.join(history[2])  # from the ring, which the deletion has not reached
    scene.advance(20.0)
    assert other.view.resets == 1
    assert other.view.position == scene.head


def test_a_cursor_that_only_the_store_knows_to_be_expired_is_reset_once(
    scene: Scene, history: list[Cursor]
) -> None:
    """The client goes live only after the hub has seen what the client's read has seen."""
    scene.publish(300)
    scene.store.delete(TOPIC)
    scene.append(1)
    scene.store.after = 0.05
    other = scene.join(history[2])
    scene.advance(20.0)
    assert (other.view.resets, other.resets()) == (1, [])
    assert scene.clients[0].resets() == ["restarted"]


# Beginning without a cursor


def test_last_begins_with_the_newest_events(scene: Scene, history: list[Cursor]) -> None:
    assert announced(scene, last=2) == (history[3], None, 2)
    assert announced(scene, last=0) == (history[5], None, 0)
    assert announced(scene, last=99) == (history[0], None, 5)
    assert announced(scene) == (history[5], None, 0)


def test_last_counts_from_the_head_of_the_log_where_the_hub_is_behind(
    scene: Scene, history: list[Cursor]
) -> None:
    scene.append(2)
    assert announced(scene, last=3) == (history[4], None, 1)  # the other two are new to the hub
    scene.advance(5.0)
    assert scene.clients[1].seqs() == [5, 6, 7]


def test_last_in_an_epoch_that_the_hub_does_not_know_counts_exactly(
    scene: Scene, history: list[Cursor]
) -> None:
    begin = scene.store.delete(TOPIC)
    scene.append(2)
    assert announced(scene, last=9) == (begin, None, 2)


def test_a_time_begins_with_the_events_after_it(scene: Scene, history: list[Cursor]) -> None:
    assert announced(scene, 0.0) == (history[0], True, 5)
    assert announced(scene, time.time() + 60) == (history[5], True, 0)


def test_without_history_only_a_cursor_reaches_back_beyond_five_minutes(
    scene: Scene, history: list[Cursor], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time() + 280
    monkeypatch.setattr(scene.store, "clock", lambda: later)
    scene.publish(2)
    later += 100  # the first five are six minutes old, the last two less than two
    assert announced(scene, last=6, history=False) == (history[5], None, 2)
    assert announced(scene, 0.0, history=False) == (scene.head, False, 0)
    assert announced(scene, last=1, history=False)[2] == 1
    assert announced(scene, later - 50, history=False)[2] == 0
    assert announced(scene, history[1], history=False) == (history[1], True, 6)
    assert announced(scene, last=6) == (history[1], None, 6)


def test_events_trimmed_between_locating_and_reading_are_left_out(
    scene: Scene, history: list[Cursor]
) -> None:
    scene.publish(300)
    locate = scene.store.locate

    def and_trim(*args: Any, **kwargs: Any) -> Cursor:
        cursor = locate(*args, **kwargs)
        scene.store.trim(TOPIC, Retention(3, 1e9))
        return cursor

    scene.store.locate = and_trim  # type: ignore
    assert announced(scene, last=302) == (scene.head, None, 0)


# The store fails


def test_a_subscribe_that_the_store_refuses_raises_and_leaves_nothing_behind(
    scene: Scene, history: list[Cursor]
) -> None:
    scene.publish(300)
    scene.store.failing = True
    client = scene.connect()
    with pytest.raises(StoreError):
        scene.run(client.subscribe(history[1]))
    with pytest.raises(StoreError):
        scene.run(client.subscribe(last=3))
    assert client.connection.subscriptions == {}
    assert scene.live.followers == 1


def test_a_subscribe_does_not_wait_forever_for_a_store_that_hangs(
    scene: Scene, history: list[Cursor]
) -> None:
    scene.publish(300)
    scene.store.before = 600.0
    client = scene.connect()
    with pytest.raises(StoreError, match="no answer"):
        scene.run(client.subscribe(history[1]))
    assert scene.live.followers == 1
    assert scene.loop.time() < 30


def test_a_replay_continues_when_the_store_is_back(scene: Scene, history: list[Cursor]) -> None:
    scene.publish(300)
    slow = scene.join(limit=2_000)
    slow.gate.clear()
    scene.publish(400)
    scene.store.failing = True
    slow.gate.set()
    scene.advance(30.0)
    assert slow.seqs()[-1] < 705
    scene.store.failing = False
    scene.advance(6.0)
    assert slow.seqs() == list(range(306, 706))
    assert slow.closed == []


# Falling behind


def test_a_client_with_a_full_buffer_falls_behind_and_catches_up_without_loss(
    scene: Scene, history: list[Cursor]
) -> None:
    slow = scene.join(limit=2_000)
    slow.gate.clear()
    scene.publish(100)
    assert slow.connection.writer.unsent <= 2_000
    assert slow.connection.subscriptions[TOPIC] not in scene.live.live
    slow.gate.set()
    scene.advance(1.0)
    assert slow.seqs() == list(range(6, 106))
    assert slow.connection.subscriptions[TOPIC] in scene.live.live
    assert "read" not in scene.store.calls  # the ring had the events
    assert slow.most_unsent <= 2_000


def test_a_replay_never_has_more_than_256_kib_unsent(scene: Scene) -> None:
    scene.join(limit=10**8)
    begin = scene.live.position
    scene.publish(60, size=60_000)
    client = scene.connect(limit=BUFFER_BYTES)
    client.gate.clear()
    scene.run(client.subscribe(begin))
    scene.advance(1.0)
    assert REPLAY_BYTES - 61_000 < client.connection.writer.unsent <= REPLAY_BYTES
    client.gate.set()
    scene.advance(2.0)
    assert client.seqs() == list(range(1, 61))
    assert client.most_unsent <= REPLAY_BYTES


def test_an_empty_buffer_accepts_a_frame_larger_than_its_limit(
    scene: Scene, history: list[Cursor]
) -> None:
    live, behind = scene.join(limit=500), scene.join(history[1], limit=500)
    for _ in range(3):
        scene.publish(1, size=2_000)
    scene.advance(1.0)
    assert live.seqs() == [6, 7, 8]
    assert live.connection.subscriptions[TOPIC]._task is None, "it fell behind"
    assert behind.seqs() == list(range(2, 9))


def test_a_large_frame_of_a_replay_waits_until_it_fits(scene: Scene) -> None:
    waited_for: list[int] = []

    class Writer(AsgiWriter):
        unsent = 900

        async def drain(self, below: int) -> None:
            waited_for.append(below)
            self.unsent = below

    async def swallow(message: object) -> None:
        pass

    client = scene.connect(limit=2_000)
    client.connection.writer = Writer(swallow)
    client.connection.writer.attach(scene.hub.flusher, 2_000, lambda code: None)
    scene.run(client.connection.push_paced(Frame("s" * 1_100)))
    scene.run(client.connection.push_paced(Frame("l" * 1_500)))
    scene.run(client.connection.push_paced(Frame("h" * 5_000)))
    client.connection.writer.unsent = 1_999
    client.connection.writer.refresh_available()
    scene.run(client.connection.push_paced(Frame("s" * 100)))
    assert waited_for == [500, 0, 1_000]


def test_a_client_that_reads_nothing_for_10_s_is_closed(
    scene: Scene, history: list[Cursor]
) -> None:
    slow = scene.join(limit=2_000)
    slow.gate.clear()
    scene.publish(100)
    scene.advance(9.5)
    assert slow.closed == []
    scene.advance(1.0)
    assert slow.closed == [CloseCode.SLOW]
    assert scene.live.followers == 1


def test_a_client_that_reads_slowly_is_not_closed(scene: Scene, history: list[Cursor]) -> None:
    slow = scene.join(limit=2_000)
    slow.gate.clear()
    scene.publish(100)
    for _ in range(8):
        scene.advance(8.0)
        slow.gate.set()
        scene.run(once())
        slow.gate.clear()
    assert slow.closed == []
    slow.gate.set()
    scene.advance(1.0)
    assert slow.seqs() == list(range(6, 106))


async def once() -> None:
    """Run one turn of the loop."""
    import asyncio

    await asyncio.sleep(0)


def test_a_gap_found_while_catching_up_is_one_reset(scene: Scene, history: list[Cursor]) -> None:
    slow = scene.join(limit=2_000)
    slow.gate.clear()
    scene.publish(400)
    scene.store.trim(TOPIC, Retention(3, 1e9))
    slow.gate.set()
    scene.advance(1.0)
    assert slow.resets() == ["trimmed"]
    assert slow.view.position == scene.head
    scene.publish(2)
    scene.advance(20.0)
    assert slow.seqs()[-2:] == [406, 407]
    assert slow.resets() == ["trimmed"]


def test_a_new_epoch_found_by_a_replay_before_the_hub_is_one_reset(
    scene: Scene, history: list[Cursor]
) -> None:
    slow = scene.join(limit=2_000)
    slow.gate.clear()
    scene.publish(400)
    scene.store.delete(TOPIC)
    slow.gate.set()
    scene.advance(20.0)
    assert slow.resets() == scene.clients[0].resets() == ["restarted"]


def test_a_reset_that_does_not_fit_into_the_buffer_is_sent_once(
    scene: Scene, history: list[Cursor]
) -> None:
    slow = scene.join(limit=2_000)
    slow.gate.clear()
    scene.publish(13)
    assert slow.connection.subscriptions[TOPIC] in scene.live.live
    assert slow.connection.writer.unsent > 1_800
    scene.store.delete(TOPIC)
    scene.publish(1)
    scene.advance(0.1)
    slow.gate.set()
    scene.advance(20.0)
    assert slow.resets() == ["restarted"]
    assert slow.view.position == scene.head


def test_an_ephemeral_event_reaches_live_subscribers_only(
    scene: Scene, history: list[Cursor]
) -> None:
    live, behind = scene.clients[0], scene.join(limit=2_000)
    behind.gate.clear()
    scene.publish(100)
    scene.ephemeral()
    behind.gate.set()
    scene.advance(1.0)
    scene.ephemeral()
    assert [len([f for f in c.frames if f.get("event") == "typing"]) for c in (live, behind)] == [
        2,
        1,
    ]


# Answers and heartbeats


def test_an_answer_fits_behind_a_buffer_full_of_events(scene: Scene, history: list[Cursor]) -> None:
    slow = scene.join(limit=2_000)
    slow.gate.clear()
    scene.publish(100)
    slow.connection.answer(Frame('{"type":"pong"}'.ljust(500)))
    assert slow.closed == []
    slow.gate.set()
    scene.advance(1.0)
    assert {"type": "pong"} in slow.frames


def test_a_client_that_sends_commands_and_never_reads_is_closed(
    scene: Scene, history: list[Cursor]
) -> None:
    slow = scene.join(limit=2_000)
    slow.gate.clear()

    async def ask() -> None:
        for _ in range(1_000):
            if not slow.closed:
                slow.connection.answer(Frame('{"type":"pong"}'))

    scene.run(ask())
    assert slow.closed == [CloseCode.SLOW]


def test_a_heartbeat_is_sent_before_25_s_of_silence(scene: Scene) -> None:
    client = scene.join()
    beats = []
    for _ in range(1_200):
        scene.advance(0.1)
        if client.frames:
            assert client.frames == [{"type": "heartbeat"}]
            client.frames.clear()
            beats.append(scene.loop.time())
    assert len(beats) >= 4
    pauses = [after - before for before, after in zip([0.0, *beats], beats, strict=False)]
    assert all(17.5 < pause < 25.0 for pause in pauses)


def test_no_heartbeat_is_sent_while_events_arrive(scene: Scene) -> None:
    client, quiet = scene.join(), scene.join(topic="public.other")
    for _ in range(10):
        scene.publish()
        scene.advance(8.0)
    assert all(frame["type"] == "event" for frame in client.frames)
    assert quiet.frames


def test_a_replay_and_an_answer_end_the_silence_too(scene: Scene, history: list[Cursor]) -> None:
    scene.advance(20.0)
    replaying = scene.join(history[1])
    answered = scene.join()
    for _ in range(3):
        scene.loop.call_soon(answered.connection.answer, Frame('{"type":"pong"}'))
        scene.advance(15.0)
    assert answered.frames == [{"type": "pong"}] * 3
    assert replaying.connection.writer.last_flush > 15.0


# Several topics, and the end of a connection


def test_two_subscriptions_of_one_connection_share_its_buffer(scene: Scene) -> None:
    client = scene.connect(limit=2_000)
    for topic in (TOPIC, "public.other"):
        scene.run(client.subscribe(topic=topic))
    client.gate.clear()
    for _ in range(50):
        scene.publish(1)
        scene.publish(1, topic="public.other")
    assert client.connection.writer.unsent <= 2_000
    client.gate.set()
    scene.advance(1.0)
    assert client.seqs() == client.seqs("public.other") == list(range(1, 51))
    assert client.most_unsent <= 2_000


def test_ending_a_subscription_twice_releases_the_topic_once(scene: Scene) -> None:
    other, client = scene.join(), scene.join()
    live = scene.live
    subscription = client.connection.subscriptions[TOPIC]

    async def end() -> None:
        subscription.end()
        subscription.end()
        client.connection.end()
        client.connection.end()

    scene.run(end())
    assert live.followers == 1
    assert list(live.live) == [other.connection.subscriptions[TOPIC]]
    scene.publish()
    scene.advance(61.0)
    assert scene.hub.topics == {TOPIC: live}
    assert other.seqs() == [1]
    assert client.frames == []


def test_an_unsubscribed_topic_can_be_subscribed_again(scene: Scene, history: list[Cursor]) -> None:
    client = scene.clients[0]
    scene.run(end(client.connection.subscriptions[TOPIC]))
    scene.publish()
    client.frames.clear()
    scene.run(client.subscribe(history[5]))
    scene.advance(0.1)
    assert client.seqs() == [6]


async def end(subscription: Subscription) -> None:
    subscription.end()


def test_a_replay_ends_with_its_subscription(scene: Scene, history: list[Cursor]) -> None:
    slow = scene.join(history[0], limit=300)
    slow.gate.clear()
    scene.publish(100)
    before = len(slow.frames)
    scene.run(end(slow.connection.subscriptions[TOPIC]))
    slow.gate.set()
    scene.advance(1.0)
    assert len(slow.frames) <= before + 3  # which were written already
    assert scene.live.followers == 1


def test_a_subscription_that_ends_while_it_starts_stays_ended(
    scene: Scene, history: list[Cursor]
) -> None:
    scene.publish(300)
    scene.store.before = 0.1
    client = scene.connect()
    start = scene.loop.create_task(client.subscribe(history[1]))
    scene.advance(0.05)
    scene.run(end(client.connection.subscriptions[TOPIC]))
    scene.advance(1.0)
    assert start.done()
    assert client.view.position is None, "it was announced"
    assert list(scene.live.live) == list(scene.clients[0].connection.subscriptions.values())
    assert scene.live.followers == 1


def test_a_subscription_that_ends_in_its_announcement_stays_ended(
    scene: Scene, history: list[Cursor]
) -> None:
    client = scene.connect()

    async def subscribe() -> None:
        live = await scene.hub.follow(resolve(TOPIC))
        subscription = Subscription(client.connection, live)
        await subscription.start(None, None, True, lambda *args: client.connection.end())

    scene.run(subscribe())
    assert list(scene.live.live) == list(scene.clients[0].connection.subscriptions.values())


def test_a_cancelled_subscribe_leaves_nothing_behind(scene: Scene, history: list[Cursor]) -> None:
    scene.publish(300)
    scene.store.before = 0.1
    for moment in (0.0, 0.01, 0.0999, 0.1):
        client = scene.connect()
        start = scene.loop.create_task(client.subscribe(history[1]))
        scene.advance(moment)
        start.cancel()
        scene.advance(1.0)
        assert client.connection.subscriptions == {}
        assert scene.live.followers == 1


def test_the_log_is_not_read_on_for_a_client_whose_socket_broke(
    scene: Scene, history: list[Cursor]
) -> None:
    scene.publish(2_000)  # four reads
    scene.store.calls.clear()
    client = scene.connect()

    async def send(message: Any) -> None:
        raise ConnectionError("gone")

    client.connection.writer._send = send
    scene.run(client.subscribe(history[0]))
    scene.advance(1.0)
    assert scene.store.calls.count("read") <= 2  # no client waits for the rest


def test_a_send_that_never_returns_is_cancelled_with_its_connection(scene: Scene) -> None:
    client: Client = scene.join()
    client.gate.clear()
    scene.publish(3)
    assert len(scene.tasks()) == 1
    scene.leave(client)
    scene.advance(0.01)
    assert not scene.tasks()
