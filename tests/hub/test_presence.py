"""Who is on a topic: several hubs over one store and one layer, on virtual time."""

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any, NoReturn

import pytest

from realtime.broadcast import Wakeup
from realtime.exceptions import StoreUnavailable
from realtime.hub.connection import Subscription
from realtime.hub.member_writer import POLL_HOLD_SECONDS, STREAM_HOLD_SECONDS
from realtime.hub.presence import LivePresence
from realtime.nodes import BEAT_SECONDS, EXPIRY_SECONDS
from realtime.protocol.names import presence_log
from realtime.topics import resolve
from tests.hub.cluster import EXPIRED_SECONDS, LOG, ROOM, Cluster, User, Visitor, user
from tests.support.virtual_time import passing


def test_a_visitor_receives_the_member_list_and_the_others_a_join(cluster: Cluster) -> None:
    hub = cluster.open_node()
    first = cluster.enter(hub, 1)
    assert first.ids == user(1)
    second = cluster.enter(hub, 2)
    assert second.frames[0]["type"] == "members"
    assert first.ids == second.ids == cluster.listed == user(1, 2)
    assert first.received("join") == ["user.1", "user.2"]
    member = first.members["user.2"]
    assert member == {"id": "user.2", "user": "2", "info": {"name": "somebody"}}


def test_two_tabs_and_a_phone_on_two_nodes_are_one_member(cluster: Cluster) -> None:
    home, away = cluster.open_node(), cluster.open_node()
    observer = cluster.enter(home, 1)
    tab, other_tab, phone = cluster.enter(home, 7), cluster.enter(home, 7), cluster.enter(away, 7)
    assert observer.received("join") == ["user.1", "user.7"]
    cluster.leave(other_tab)
    cluster.leave(phone)
    cluster.advance(60)
    assert observer.received("leave") == []
    assert observer.ids == user(1, 7)
    cluster.leave(tab)
    cluster.advance(10)
    assert observer.received("leave") == ["user.7"]
    assert cluster.listed == user(1)


def test_a_reload_is_no_leave(cluster: Cluster) -> None:
    hub = cluster.open_node()
    observer, visitor = cluster.enter(hub, 1), cluster.enter(hub, 2)
    frames = len(observer.frames)
    for _ in range(3):
        cluster.leave(visitor)
        cluster.advance(STREAM_HOLD_SECONDS - 1)
        visitor = cluster.enter(hub, 2)
    assert len(observer.frames) == frames


def test_a_poll_keeps_its_member_until_the_next_poll(cluster: Cluster) -> None:
    hub = cluster.open_node()
    observer, poll = cluster.enter(hub, 1), cluster.enter(hub, 2, hold=POLL_HOLD_SECONDS)
    tab = cluster.enter(hub, 2)
    cluster.leave(poll)
    cluster.leave(tab)  # its shorter hold does not shorten that of the poll
    cluster.advance(POLL_HOLD_SECONDS - 1)
    assert observer.ids == user(1, 2)
    cluster.advance(2)
    assert observer.ids == user(1)


def test_each_visitor_without_a_user_is_a_member(cluster: Cluster) -> None:
    hub = cluster.open_node()
    first, second = cluster.enter(hub, None), cluster.enter(hub, None)
    ids = {f"connection.{one.connection.id}" for one in (first, second)}
    assert first.ids == second.ids == ids
    assert [member["user"] for member in first.members.values()] == [None, None]


def test_members_of_a_killed_node_leave_unless_they_come_back(cluster: Cluster) -> None:
    home, away = cluster.open_node(), cluster.open_node()
    observer = cluster.enter(home, 1)
    for pk in (2, 3, 4):
        cluster.enter(away, pk)
    cluster.advance(4 * BEAT_SECONDS)
    cluster.kill(away)
    cluster.enter(home, 3)
    cluster.advance(EXPIRED_SECONDS)
    assert sorted(observer.received("leave")) == ["user.2", "user.4"]
    assert observer.ids == cluster.listed == user(1, 3)
    assert [node.id for node in cluster.stores[0].nodes()] == [home.member_writer.node.id]


def test_two_nodes_expire_a_dead_one_once(cluster: Cluster) -> None:
    survivors, dying = [cluster.open_node(), cluster.open_node()], cluster.open_node()
    observers = [cluster.enter(hub, pk) for pk, hub in enumerate(survivors, 1)]
    cluster.enter(dying, 9)
    cluster.advance(4 * BEAT_SECONDS)
    cluster.kill(dying)
    cluster.advance(EXPIRED_SECONDS)
    assert [one.received("leave") for one in observers] == [["user.9"], ["user.9"]]


def test_an_expired_node_comes_back_with_all_its_members(cluster: Cluster) -> None:
    home, away = cluster.open_node(), cluster.open_node()
    observer = cluster.enter(home, 1)
    remaining = [cluster.enter(away, 2), cluster.enter(away, 3)]
    id_before = away.member_writer.node.id
    cluster.advance(4 * BEAT_SECONDS)
    cluster.stores[1].failing = True
    cluster.advance(EXPIRED_SECONDS)
    assert observer.ids == user(1)
    cluster.leave(remaining.pop())  # the store cannot record it now
    cluster.stores[1].failing = False
    cluster.advance(3 * BEAT_SECONDS)
    assert away.member_writer.node.id != id_before
    assert observer.ids == cluster.listed == user(1, 2)
    cluster.advance(20 * BEAT_SECONDS)  # nothing of its first id remains either
    assert cluster.stores[0].nodes_of_members() == {h.member_writer.node.id for h in cluster.hubs}
    assert observer.ids == remaining[0].ids == user(1, 2)


def test_members_written_after_their_node_expired_do_not_stay_forever(
    cluster: Cluster,
) -> None:
    hub = cluster.open_node()
    observer = cluster.enter(hub, 1)
    cluster.stores[0].change_members(LOG, "a-node-without-a-row", {"user.8": '{"id":"user.8"}'}, [])
    cluster.advance(60)
    cluster.advance(60)
    assert observer.ids == cluster.listed == user(1)


def test_an_outage_of_the_store_empties_no_member_list(cluster: Cluster) -> None:
    hubs = [cluster.open_node(), cluster.open_node(), cluster.open_node()]
    observers = [cluster.enter(hub, pk) for pk, hub in enumerate(hubs, 1)]
    cluster.advance(4 * BEAT_SECONDS)
    for store in cluster.stores:
        store.failing = True
    cluster.advance(3 * EXPIRY_SECONDS)
    late = cluster.stores[2]
    for store in cluster.stores:
        store.failing = store is late
    cluster.advance(BEAT_SECONDS)  # the other nodes recover first
    late.failing = False
    cluster.advance(EXPIRED_SECONDS)
    for observer in observers:
        assert observer.received("leave") == []
        assert observer.ids == user(1, 2, 3)


def test_members_that_came_during_an_outage_of_the_store_are_listed_after_it(
    cluster: Cluster,
) -> None:
    hub = cluster.open_node()
    observer, leaving = cluster.enter(hub, 1), cluster.enter(hub, 2)
    cluster.stores[0].failing = True
    cluster.enter(hub, 3)
    cluster.leave(leaving)
    cluster.advance(30)
    assert observer.ids == user(1, 2)
    cluster.stores[0].failing = False
    cluster.advance(10)
    assert observer.ids == cluster.listed == user(1, 3)


def test_topics_that_visitors_left_are_forgotten_while_the_store_writes_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = cluster.open_node()

    timeout = asyncio.Event()

    async def fail(*args: Any) -> NoReturn:
        await timeout.wait()
        raise StoreUnavailable("SharedStore", "a lock was not released in time")

    monkeypatch.setattr(cluster.stores[0], "achange_members", fail)
    for number in range(50):
        cluster.leave(cluster.enter(hub, 1, room=f"room.r{number}"))
    observer = cluster.enter(hub, 1)
    cluster.advance(30)  # the first write is still in progress
    assert hub.member_writer._dirty == {LOG}
    monkeypatch.undo()
    timeout.set()
    cluster.advance(60)
    assert observer.ids == cluster.listed == user(1)


def test_a_member_that_left_while_its_join_was_written_leaves(cluster: Cluster) -> None:
    hub = cluster.open_node()
    observer = cluster.enter(hub, 1)
    cluster.stores[0].after = STREAM_HOLD_SECONDS + 1  # its join takes longer than it is held
    visitor = cluster.enter(hub, 2, room="room.other")
    cluster.leave(visitor)
    cluster.advance(60)
    assert not hub.member_writer._stored.get(presence_log("room.other"))
    assert not cluster.stores[0].members(presence_log("room.other")).members
    assert observer.ids == user(1)


def test_a_leave_whose_wakeup_was_lost_is_found(cluster: Cluster) -> None:
    home, away = cluster.open_node(), cluster.open_node()
    observer, visitor = cluster.enter(home, 1), cluster.enter(away, 2)
    cluster.layer.loss = 1.0
    cluster.leave(visitor)
    cluster.advance(STREAM_HOLD_SECONDS + 6)
    assert observer.received("leave") == ["user.2"]


def test_a_client_that_fell_behind_receives_the_member_list_again(cluster: Cluster) -> None:
    hub = cluster.open_node()
    slow = cluster.enter(hub, 1, limit=2_000)
    slow.gate.clear()
    everybody = {f"user.{pk}": json.dumps({"id": f"user.{pk}"}) for pk in range(100, 700)}
    store, node = cluster.stores[0], hub.member_writer.node.id
    for appended in (
        store.change_members(LOG, node, everybody, []),
        store.change_members(LOG, node, {}, everybody),
    ):
        cluster.run(hub.announce(Wakeup.of(LOG, appended)))
        cluster.advance(0.1)
    slow.gate.set()
    cluster.advance(5)
    assert seen(slow.frames).count("members") > 1
    assert len(slow.frames) < 600
    assert slow.ids == cluster.listed == user(1)


@pytest.mark.parametrize("change", ["renew", "delete"])
def test_a_new_epoch_of_the_log_brings_the_member_list_again(cluster: Cluster, change: str) -> None:
    hub = cluster.open_node()
    observer = cluster.enter(hub, 1)
    cluster.enter(hub, 2)
    store = cluster.stores[0]
    if change == "renew":
        store.renew(LOG, store.heads([LOG])[LOG].epoch)
    else:
        store.delete(LOG)
    cluster.advance(6)
    assert observer.frames[-1]["type"] == "members"
    cluster.enter(hub, 3)
    assert observer.ids == user(1, 2, 3)


def test_members_that_the_store_lost_or_restored_are_corrected(cluster: Cluster) -> None:
    hub = cluster.open_node()
    observer, store = cluster.enter(hub, 1), cluster.stores[0]
    cluster.enter(hub, 2)
    dump = json.dumps(store._members)
    gone = cluster.enter(hub, 3)
    store._members.clear()
    store._members.update(json.loads(dump))
    store.renew(LOG, store.heads([LOG])[LOG].epoch)
    cluster.advance(10)
    assert observer.ids == cluster.listed == user(1, 2, 3)
    dump = json.dumps(store._members)
    cluster.leave(gone)
    cluster.advance(10)
    assert cluster.listed == user(1, 2)
    store._members.clear()
    store._members.update(json.loads(dump))
    store.renew(LOG, store.heads([LOG])[LOG].epoch)
    cluster.advance(10)
    assert observer.ids == cluster.listed == user(1, 2)


def test_a_long_member_list_is_sent_in_several_frames(cluster: Cluster) -> None:
    hub = cluster.open_node()
    texts = {f"user.{pk}": json.dumps({"id": f"user.{pk}", "info": "x" * 900}) for pk in range(400)}
    cluster.stores[0].change_members(LOG, hub.member_writer.node.id, texts, [])
    visitor = Visitor(hub, None)
    cluster.run(visitor.enter())
    cluster.advance(1)
    parts = [frame for frame in visitor.frames if frame["type"] == "members"]
    assert [part.get("more", False) for part in parts] == [True, True, False]
    assert sum(len(part["members"]) for part in parts) == 400
    assert {part["version"] for part in parts} == {400}
    cluster.visitors = []


def test_the_row_of_a_node_has_its_load(cluster: Cluster) -> None:
    hub = cluster.open_node()
    for pk in (1, 2):
        cluster.enter(hub, pk)
    cluster.advance(2 * BEAT_SECONDS)
    (node,) = cluster.stores[0].nodes()
    assert (node.connections, node.topics, node.followers) == (2, 1, {ROOM: 2})


def test_member_lists_agree_after_a_thousand_visits_over_a_layer_that_loses_a_fifth(
    cluster: Cluster,
) -> None:
    hubs = [cluster.open_node() for _ in range(4)]
    observers = [cluster.enter(hub, pk) for pk in range(1, 9) for hub in hubs]
    cluster.layer.loss = 0.2
    choose = random.Random(11)
    guests = list(range(1_000, 2_000))
    staying: set[int] = set()

    async def visit(pk: int) -> None:
        await passing(choose.random() * 5)
        visitor = Visitor(choose.choice(hubs), User(pk))
        await visitor.enter()
        visitor.connection.writer.abort()  # frames for it are dropped
        if pk % 10 == 0:
            staying.add(pk)
            return
        await passing(choose.random() * 5)
        visitor.connection.end()

    async def all_of_them() -> None:
        await asyncio.gather(*map(visit, guests))

    cluster.run(all_of_them())
    cluster.advance(STREAM_HOLD_SECONDS + 10)
    expected = user(*range(1, 9), *staying)
    assert cluster.listed == expected
    for hub in hubs:
        live = hub.topics[LOG]
        assert isinstance(live, LivePresence)
        assert set(live.members) == expected
    for observer in observers:
        assert observer.ids == expected
        assert sorted(observer.received("leave")) == sorted(
            f"user.{pk}" for pk in guests if pk not in staying
        )


def seen(frames: Sequence[dict[str, Any]]) -> list[str]:
    return [frame["type"] for frame in frames]


def test_a_cursor_in_the_presence_log_brings_only_the_changes_after_it(cluster: Cluster) -> None:
    hub = cluster.open_node()
    first = cluster.enter(hub, 1)
    live = hub.topics[LOG]
    cursor = live.position
    cluster.enter(hub, 2)
    returning = Visitor(hub, User(1))

    async def come_back() -> None:
        topic = resolve(ROOM)
        subscription = Subscription(returning.connection, await hub.follow(topic))
        live_presence = await hub.follow_presence(topic)
        presence = subscription.add_presence(topic, live_presence, 1.0, None)
        await presence.prepare()
        returning.version = cursor.seq
        presence.start(cursor)

    cluster.run(come_back())
    cluster.advance(0.1)
    assert seen(returning.frames) == ["join"]
    assert first.ids == user(1, 2)
