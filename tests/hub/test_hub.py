"""The hub: groups, heads, lingering, and a layer or a store that fails."""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from realtime.broadcast import Wakeup, group_name
from realtime.exceptions import StoreError
from realtime.hub import get_hub
from realtime.hub.hub import RECEIVE_BATCH
from realtime.protocol.events import Event
from realtime.topics import resolve
from tests.hub.support import TOPIC, Scene
from tests.support.virtual_time import VirtualTimeLoop

GROUP = group_name(TOPIC)


def in_group(scene: Scene, topic: str = TOPIC) -> bool:
    return scene.layer.groups[group_name(topic)] == {scene.hub._channel}


async def follow(scene: Scene, topic: str = TOPIC) -> Any:
    return await scene.hub.follow(resolve(topic))


# Joining


def test_the_group_is_joined_once_for_many_followers(scene: Scene) -> None:
    scene.layer.channel_delay = 0.01
    clients = [scene.connect() for _ in range(20)]
    for client in clients:
        scene.loop.create_task(client.subscribe())
    scene.advance(1.0)
    scene.publish()
    assert all(client.seqs() == [1] for client in clients)
    assert scene.layer.called("group_add") == 1
    assert scene.live.followers == 20


def test_heads_of_topics_that_join_together_are_read_in_one_call(scene: Scene) -> None:
    clients = [scene.connect() for _ in range(50)]
    for number, client in enumerate(clients):
        scene.loop.create_task(client.subscribe(topic=f"public.t{number}"))
    scene.advance(0.01)
    assert scene.store.calls == ["heads"]
    scene.advance(0.5)
    assert scene.store.calls.count("heads") == 2  # and again 250 ms later


def test_there_is_one_channel_even_if_the_layer_is_slow_to_make_it() -> None:
    scene = Scene(channel_delay=0.05)
    client = scene.join()
    assert scene.layer.called("new_channel") == 1
    scene.publish()
    assert client.seqs() == [1]
    scene.close()


def test_events_that_arrive_while_the_topic_joins_follow_its_head(scene: Scene) -> None:
    scene.append(2)
    begin = scene.head
    scene.store.after = 0.1
    client = scene.connect()
    scene.loop.create_task(client.subscribe(begin))
    scene.advance(0.05)  # the head is read but has not arrived
    scene.publish(2)
    scene.advance(0.06)
    assert client.seqs() == [3, 4]
    assert scene.store.calls == ["heads"]


def test_events_missed_by_a_late_group_add_are_found_after_250_ms(scene: Scene) -> None:
    scene.layer.join_delay = 0.2
    client = scene.join()
    scene.publish()
    scene.advance(0.2)
    assert client.seqs() == []
    scene.advance(0.4)
    assert client.seqs() == [1]


def test_a_join_whose_head_cannot_be_read_fails_and_can_be_retried(
    scene: Scene,
) -> None:
    scene.store.failing = True
    clients = [scene.connect() for _ in range(3)]
    tasks = [scene.loop.create_task(client.subscribe()) for client in clients]
    scene.advance(0.1)
    assert all(isinstance(task.exception(), StoreError) for task in tasks)
    assert scene.hub.topics == {}
    assert not scene.layer.groups[GROUP]
    scene.store.failing = False
    again = scene.join()
    scene.publish()
    assert again.seqs() == [1]


def test_an_unexpected_error_of_the_store_fails_the_join(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.store.heads = lambda topics: {}  # type: ignore
    with pytest.raises(StoreError):
        scene.join()
    assert "heads could not be read" in caplog.text
    assert scene.hub.topics == {}


def test_a_join_does_not_wait_forever_for_a_store_that_hangs(scene: Scene) -> None:
    scene.store.before = 100.0
    with pytest.raises(StoreError, match="no answer"):
        scene.join()
    assert scene.loop.time() < 20
    scene.advance(200.0)  # dropped while its head was still being read
    assert scene.hub.topics == {}
    assert not scene.layer.groups[GROUP]
    scene.store.before = 0.0
    client = scene.join()
    scene.publish()
    assert client.seqs() == [1]


def test_a_follower_that_leaves_while_the_topic_joins_leaves_nothing_behind(scene: Scene) -> None:
    scene.store.before = 0.1
    task = scene.loop.create_task(follow(scene))
    scene.advance(0.05)
    task.cancel()
    scene.advance(0.1)
    assert scene.live.followers == 0
    scene.advance(61.0)
    assert scene.hub.topics == {}
    assert not scene.layer.groups[GROUP]


# Staying in the group


def test_the_group_is_added_again_when_a_check_finds_an_unannounced_event(scene: Scene) -> None:
    client = scene.join()
    scene.advance(1.0)
    scene.layer.groups.clear()  # the layer was restarted and has lost its groups
    scene.publish()
    scene.advance(4.9)
    assert client.seqs() == [1]
    assert in_group(scene)
    scene.publish()
    assert client.seqs() == [1, 2]


def test_the_group_is_added_again_before_it_expires(scene: Scene) -> None:
    scene.layer.group_expiry = 100  # type: ignore
    scene.join()
    scene.advance(45.0)
    assert scene.layer.called("group_add") == 1
    scene.advance(11.0)
    assert scene.layer.called("group_add") == 2
    scene.advance(55.0)
    assert scene.layer.called("group_add") == 3


def test_all_groups_are_joined_again_after_the_layer_lost_its_connection(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    topics = [f"public.t{number}" for number in range(5)]
    clients = [scene.join(topic=topic) for topic in topics]
    scene.advance(1.0)
    scene.layer.break_receive()
    for topic in topics:
        scene.publish(topic=topic)
    scene.advance(0.5)
    for topic, client in zip(topics, clients, strict=True):
        assert in_group(scene, topic)
        assert client.seqs(topic) == [1]
        scene.publish(topic=topic)
        assert client.seqs(topic) == [1, 2]
    assert sum("the channel layer fails" in m for m in caplog.messages) == 1
    assert sum("the channel layer is back" in m for m in caplog.messages) == 1


def test_a_lost_channel_is_replaced(scene: Scene) -> None:
    client = scene.join()
    scene.advance(1.0)
    scene.layer.break_receive()
    scene.layer.queues.clear()
    scene.layer.queues["filler"] = asyncio.Queue()  # so that the next channel has another name
    scene.advance(3.0)
    assert in_group(scene)
    scene.publish()
    assert client.seqs() == [1]


def test_a_layer_that_failed_for_long_is_used_again(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    client = scene.join()
    scene.layer.failing = {"receive", "group_add", "new_channel"}
    scene.layer.break_receive()
    scene.advance(600.0)
    scene.publish(3, [], [], [])
    scene.advance(5.0)
    assert client.seqs() == [1, 2, 3]
    assert sum("the channel layer fails" in m for m in caplog.messages) == 2  # receive, groups
    scene.layer.failing = set()
    scene.advance(10.0)
    scene.publish()
    assert client.seqs() == [1, 2, 3, 4]


def test_head_checks_continue_while_the_layer_hangs(scene: Scene) -> None:
    topics = [f"public.t{number}" for number in range(30)]
    clients = [scene.join(topic=topic) for topic in topics]
    scene.advance(1.0)
    scene.layer.hanging = {"group_add", "group_discard"}
    scene.layer.groups.clear()
    for published in range(1, 6):
        for topic in topics:
            scene.publish(topic=topic)
        scene.advance(4.9)
        counts = [len(client.seqs(t)) for t, client in zip(topics, clients, strict=True)]
        assert counts == [published] * 30


def test_a_layer_that_hangs_delays_a_join_but_does_not_fail_it(scene: Scene) -> None:
    scene.layer.hanging = {"group_add"}
    client = scene.join()
    assert scene.loop.time() < 6
    scene.publish()
    scene.advance(4.9)
    assert client.seqs() == [1]


def test_head_checks_continue_when_the_store_is_back(scene: Scene) -> None:
    client = scene.join()
    scene.store.failing = True
    scene.publish(1, [])
    scene.advance(60.0)
    scene.store.failing = False
    scene.advance(4.9)
    assert client.seqs() == [1]


# Lingering


def test_a_topic_lingers_60_s_after_its_last_follower(scene: Scene) -> None:
    clients = [scene.join(), scene.join()]
    scene.leave(clients[0])
    scene.advance(100.0)
    live = scene.live
    scene.leave(clients[1])
    scene.publish(3)
    scene.advance(59.0)
    assert scene.hub.topics == {TOPIC: live}
    assert in_group(scene)
    scene.advance(2.0)
    assert scene.hub.topics == {}
    assert not in_group(scene)
    scene.publish(1)
    assert not scene.tasks()


def test_a_topic_that_is_followed_again_while_it_lingers_stays(scene: Scene) -> None:
    scene.leave(scene.join())
    live = scene.live
    begin = live.position
    scene.publish(2)
    scene.advance(59.0)
    client = scene.join(begin)
    assert client.seqs() == [1, 2]
    scene.advance(120.0)
    assert scene.live is live
    assert scene.layer.called("group_add") == 1
    scene.leave(client)
    scene.advance(61.0)
    assert scene.hub.topics == {}


def names_of(*numbers: int) -> list[str]:
    return [f"public.t{number}" for number in numbers]


def follow_and_leave(scene: Scene, names: list[str]) -> None:
    """Follow topics and leave them again, as a client that subscribes and unsubscribes."""
    for name in names:
        scene.leave(scene.join(topic=name))


def test_as_many_topics_linger_as_the_limit_says_and_then_the_oldest_is_left(scene: Scene) -> None:
    scene.hub.limits = replace(scene.hub.limits, lingering_topics=3)
    follow_and_leave(scene, names_of(1, 2, 3))
    assert list(scene.hub.topics) == names_of(1, 2, 3)
    assert scene.layer.called("group_discard") == 0
    follow_and_leave(scene, names_of(1))  # it was followed again, so it is now the newest
    follow_and_leave(scene, names_of(4))
    assert sorted(scene.hub.topics) == names_of(1, 3, 4)
    assert not in_group(scene, "public.t2")
    assert in_group(scene, "public.t3")
    scene.advance(61.0)
    assert scene.hub.topics == {}


def test_a_followed_topic_does_not_count_as_lingering(scene: Scene) -> None:
    scene.hub.limits = replace(scene.hub.limits, lingering_topics=1)
    clients = [scene.join(topic=name) for name in names_of(1, 2, 3)]
    follow_and_leave(scene, names_of(4, 5))
    assert sorted(scene.hub.topics) == names_of(1, 2, 3, 5)
    for client, name in zip(clients, names_of(1, 2, 3), strict=True):
        scene.publish(topic=name)
        assert client.seqs(name) == [1]


@pytest.mark.parametrize("hangs", ["nothing", "the layer", "its channel", "the store"])
def test_a_client_that_follows_ever_new_names_does_not_grow_the_hub(
    scene: Scene, hangs: str
) -> None:
    scene.hub.limits = replace(scene.hub.limits, lingering_topics=5)
    client = scene.join()
    if hangs == "the layer":
        scene.layer.add_delay = scene.layer.discard_delay = 60.0
    elif hangs == "its channel":
        scene.hub._channel = ""
        scene.layer.channel_delay = 60.0
    elif hangs == "the store":
        scene.store.after = 60.0

    async def follow_for_a_moment(name: str) -> None:
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(0.1):
                scene.hub.release(await follow(scene, name))

    most: Counter[str] = Counter()
    for number in range(400):  # ten a second
        scene.run(follow_for_a_moment(f"public.t{number}"))
        scene.advance(0.1)
        for held in ("topics", "_lingering", "_joining", "_rejoining", "_adding", "_leaving"):
            most[held] = max(most[held], len(getattr(scene.hub, held)))
    assert most["topics"] <= 7  # the limit, the client's, and one that is followed for a moment
    assert max(most.values()) <= 120, most  # no more than begin while a call of the layer times out
    scene.layer.add_delay = scene.layer.discard_delay = scene.layer.channel_delay = 0.0
    scene.store.after = 0.0
    scene.advance(61.0)
    scene.publish()
    assert client.seqs() == [1]


def test_a_topic_followed_again_while_its_group_is_being_left_is_in_the_group(
    scene: Scene,
) -> None:
    scene.layer.discard_delay = 2.0
    scene.leave(scene.join())
    scene.advance(61.0)
    assert scene.hub.topics == {}
    assert in_group(scene)  # the group_discard is in progress
    client = scene.join()
    assert in_group(scene)
    scene.publish()
    scene.advance(0.01)
    assert client.seqs() == [1]
    scene.advance(3.0)
    assert scene.layer.called("group_add") == 2
    assert in_group(scene), "the group_discard undid the group_add"


def test_a_head_check_that_ends_after_its_topic_does_not_rejoin_the_group(scene: Scene) -> None:
    scene.leave(scene.join())
    scene.advance(58.0)
    scene.layer.groups.clear()
    scene.store.after = 10.0
    scene.append()
    scene.advance(80.0)
    assert scene.hub.topics == {}
    assert not scene.layer.groups[GROUP]
    assert not scene.tasks()


def test_a_group_add_that_ends_after_its_topic_is_undone(scene: Scene) -> None:
    scene.leave(scene.join())
    scene.advance(55.0)
    scene.layer.add_delay = 4.9
    scene.layer.groups.clear()
    scene.append()
    before = scene.layer.called("group_add")
    while scene.layer.called("group_add") == before:
        scene.advance(0.1)
    scene.advance(20.0)
    assert scene.hub.topics == {}
    assert not scene.layer.groups[GROUP]


def test_a_read_in_progress_is_cancelled_with_its_topic(scene: Scene) -> None:
    client = scene.join()
    begin = scene.live.position
    scene.publish(300)
    scene.leave(client)
    scene.advance(59.0)
    scene.store.before = 30.0
    task = scene.loop.create_task(scene.live.read(begin))
    scene.advance(2.0)
    assert scene.hub.topics == {}
    assert task.cancelled()


# Receiving


def test_malformed_messages_on_the_layer_do_not_stop_the_hub(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    client = scene.join()
    good = Wakeup(TOPIC, None, (Event(TOPIC, "typing", "1"),)).to_message()
    for message in (
        {},
        {"type": "other"},
        {"type": good["type"]},
        {**good, "events": [["typing", "1", "no cursor", 1.0, None]]},
        {**good, "topic": ["unhashable"]},
        {**good, "topic": "public.other"},
    ):
        scene.run(scene.layer.group_send(GROUP, message))
    scene.advance(0.01)
    scene.publish()
    assert client.seqs() == [1]
    assert sum("cannot be read" in message for message in caplog.messages) == 3


def test_a_long_burst_yields_to_other_tasks(scene: Scene) -> None:
    client = scene.join()
    turns: list[int] = []

    async def burst() -> None:
        for _ in range(4 * RECEIVE_BATCH):
            await scene.announce(scene.append())
        while len(client.seqs()) < 4 * RECEIVE_BATCH:
            turns.append(scene.live.position.seq)
            await asyncio.sleep(0)

    scene.run(burst())
    steps = [b - a for a, b in pairwise(turns)]
    assert max(steps) <= RECEIVE_BATCH


# The end


def test_close_ends_everything_including_what_is_in_progress() -> None:
    scene = Scene()
    behind, joining = scene.join(limit=500), scene.connect()
    behind.gate.clear()
    scene.publish(50)
    scene.store.before = 5.0
    scene.publish(2, [], [0.0])
    task = scene.loop.create_task(joining.subscribe(topic="public.other"))
    scene.advance(0.02)
    live = scene.live
    scene.run(scene.hub.close())
    scene.advance(0.01)
    assert task.done()
    assert isinstance(task.exception(), StoreError)
    assert not scene.layer.groups[GROUP]
    assert live.live == {}
    assert behind.connection.subscriptions == {}
    with pytest.raises(StoreError):
        scene.run(follow(scene))
    scene.run(scene.hub.close())
    scene.close()


def test_close_is_bounded_when_the_layer_hangs() -> None:
    scene = Scene()
    for number in range(20):
        scene.join(topic=f"public.t{number}")
    scene.layer.hanging = {"group_discard"}
    before = scene.loop.time()
    scene.close()
    assert scene.loop.time() - before < 6.0


def test_a_loop_has_one_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.hub.hub.get_layer", lambda: scene.layer)
    scene = Scene()

    async def hubs() -> tuple[Any, Any]:
        first, second = get_hub(), get_hub()
        await first.close()
        return first, second

    first, second = scene.run(hubs())
    assert first is second
    other = VirtualTimeLoop()
    third, _ = other.run_until_complete(hubs())
    other.close()
    assert third is not first
    scene.close()


def test_clients_do_not_wait_for_a_layer_that_is_slow_to_join(scene: Scene) -> None:
    scene.layer.add_delay = 4.0
    client = scene.join()
    assert scene.loop.time() < 1.0
    scene.publish()
    scene.advance(3.9)
    assert client.seqs() == [1], "found by a head check, before the group was joined"
    scene.advance(2.0)
    assert in_group(scene)
    assert scene.layer.called("group_add") == 1
    scene.publish()
    scene.advance(0.01)
    assert client.seqs() == [1, 2]


# What must not stop the hub


def fail(*_: Any) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("message", [None, "text", 7, [], {"type": 7}, {}])
def test_a_message_of_the_layer_that_is_no_wake_up_is_ignored(scene: Scene, message: Any) -> None:
    client = scene.join()
    scene.layer.queues[scene.hub._channel].put_nowait(message)
    scene.publish()
    assert client.seqs() == [1]


def test_a_task_of_the_hub_that_fails_is_logged_and_begins_again(
    scene: Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = scene.join()

    with monkeypatch.context() as patch:
        patch.setattr(scene.hub, "_take", fail)
        scene.publish()
        assert client.seqs() == []
    scene.advance(2.0)
    scene.publish(2)
    assert client.seqs() == [1, 2, 3]
    assert "receiving from the channel layer failed; it begins again" in caplog.text


def test_the_timer_begins_again_after_a_failure(
    scene: Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = scene.join()

    with monkeypatch.context() as patch:
        patch.setattr("realtime.hub.jobs.Job.start_if_due", fail)
        scene.advance(0.5)
    scene.publish(1, [])  # its wake-up is lost: a head check has to find it
    scene.advance(10.0)
    assert client.seqs() == [1]
    assert "the hub's timer failed; it begins again" in caplog.text
