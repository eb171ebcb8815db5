"""Who is on a topic: several hubs over one store and one layer, on virtual time."""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from realtime.broadcast import Wakeup
from realtime.exceptions import StoreUnavailable
from realtime.hub.connection import Connection, Subscription
from realtime.hub.member_writer import POLL_HOLD_SECONDS, STREAM_HOLD_SECONDS
from realtime.hub.presence import LivePresence
from realtime.nodes import BEAT_SECONDS, EXPIRY_SECONDS
from realtime.protocol.events import Cursor
from realtime.protocol.names import presence_log
from realtime.stores.base import MemberList
from realtime.topics import resolve
from realtime.writers.stream import CollectingWriter
from tests.hub.cluster import EXPIRED_SECONDS, LOG, ROOM, Cluster, User, Visitor, user
from tests.hub.support import QuietHub
from tests.support.virtual_time import passing


def limit_members(cluster: Cluster, members: int, nodes: int = 1) -> list[QuietHub]:
    """Open nodes that list so many members."""
    hubs = [cluster.open_node() for _ in range(nodes)]
    for hub in hubs:
        hub.limits = replace(hub.limits, members=members)
    return hubs


def crowd(cluster: Cluster, hub: QuietHub, *pks: int) -> list[Visitor]:
    return [cluster.enter(hub, pk) for pk in pks]


def leave(cluster: Cluster, visitors: Sequence[Visitor]) -> None:
    """Let visitors go, and wait until the others know."""
    for visitor in visitors:
        cluster.leave(visitor)
    cluster.advance(STREAM_HOLD_SECONDS + 3)


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


@pytest.mark.parametrize("listed", [2_000, 500])
def test_member_lists_agree_after_a_thousand_visits_over_a_layer_that_loses_a_fifth(
    cluster: Cluster, listed: int
) -> None:
    hubs = limit_members(cluster, listed, nodes=4)
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
        if listed < len(guests):
            assert max(observer.counts) > listed
        else:
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


# More members than are listed


def test_as_many_members_as_the_limit_are_a_list_and_one_more_makes_it_a_number(
    cluster: Cluster,
) -> None:
    (hub,) = limit_members(cluster, 10)
    observer, *_ = crowd(cluster, hub, *range(1, 11))
    assert observer.ids == user(*range(1, 11))
    assert observer.count is None
    crowd(cluster, hub, 11)
    assert (observer.count, observer.ids) == (11, set())
    assert observer.received("join")[-1] == "user.11"
    late = cluster.enter(hub, 3)
    assert (late.count, late.ids, late.counts) == (11, set(), [11])


def test_a_number_of_members_is_sent_once_a_second_however_many_come_and_go(
    cluster: Cluster,
) -> None:
    hubs = limit_members(cluster, 10, nodes=2)
    observer, *_ = crowd(cluster, hubs[0], *range(1, 12))
    cluster.advance(5)
    before = len(observer.frames)
    crowd(cluster, hubs[1], *range(20, 70))  # takes ten seconds
    cluster.advance(2)
    frames = observer.frames[before:]
    assert {frame["type"] for frame in frames} == {"members"}
    assert 5 <= len(frames) <= 12
    assert observer.count == 61
    assert observer.version == cluster.stores[0].members(LOG).cursor.seq
    cluster.advance(30)
    assert len(observer.frames[before:]) == len(frames), "a number was sent without a change"


def test_the_list_is_back_at_nine_tenths_of_the_limit_and_not_before(cluster: Cluster) -> None:
    (hub,) = limit_members(cluster, 10)
    observer, *others = crowd(cluster, hub, *range(1, 13))
    leave(cluster, others[9:])
    assert (observer.count, observer.ids) == (10, set())  # no list yet, else it would flap
    leave(cluster, others[8:9])
    assert observer.count is None
    assert observer.ids == cluster.listed == user(*range(1, 10))
    crowd(cluster, hub, 30)
    assert observer.received("join")[-1] == "user.30"
    assert observer.ids == cluster.listed


def test_a_client_that_did_not_read_has_the_number_or_the_list_when_it_reads_again(
    cluster: Cluster,
) -> None:
    (hub,) = limit_members(cluster, 10)
    everybody = crowd(cluster, hub, *range(1, 11))
    observer = cluster.enter(hub, 1, limit=300)
    observer.gate.clear()
    everybody += crowd(cluster, hub, 11, 12)
    cluster.advance(3)
    observer.gate.set()
    cluster.advance(1)
    assert (observer.count, observer.ids) == (12, set())
    observer.gate.clear()
    everybody += crowd(cluster, hub, 13, 14, 15)
    leave(cluster, everybody[5:])
    observer.gate.set()
    cluster.advance(1)
    assert observer.count is None
    assert observer.ids == cluster.listed == user(*range(1, 6))


def test_a_list_that_belongs_to_the_position_of_the_number_before_it_reaches_everybody(
    cluster: Cluster,
) -> None:
    (hub,) = limit_members(cluster, 10)
    everybody = crowd(cluster, hub, *range(1, 13))
    live: Any = hub.topics[LOG]
    observer = cluster.enter(hub, 1, limit=60)  # less than a frame: one is accepted if it is empty
    observer.gate.clear()
    for pk in (13, 14):
        crowd(cluster, hub, pk)
        cluster.advance(2)
    presence = observer.connection.subscriptions[ROOM].presence
    assert presence not in live.live
    for visitor in everybody[4:]:
        cluster.leave(visitor)
    while live.count > 9:
        cluster.advance(0.01)
    observer.gate.set()
    cluster.advance(0.001)
    observer.gate.clear()
    cluster.advance(0.2)
    assert presence is not None
    assert presence.position == live.position  # it has the number of this position, unread
    cluster.advance(2)
    assert live.count is None
    assert presence.position == live.position
    observer.gate.set()
    cluster.advance(1)
    assert observer.ids == cluster.listed == user(1, 2, 3, 4, 13, 14)


def test_a_poll_receives_the_number_without_a_cursor_and_the_list_with_one(
    cluster: Cluster,
) -> None:
    (hub,) = limit_members(cluster, 10)
    everybody = crowd(cluster, hub, *range(1, 10))
    live: Any = hub.topics[LOG]
    listed = live.position

    async def poll(since: Cursor | None) -> tuple[list[Any], Cursor | None]:
        """Return the frames and the cursor that a poll's answer would have."""
        writer = CollectingWriter(500, 100_000)
        connection = Connection(hub, User(1), writer, 100_000, lambda code: None)
        topic = resolve(ROOM)
        subscription = Subscription(connection, await hub.follow(topic))
        presence = subscription.add_presence(topic, await hub.follow_presence(topic), None, None)
        await presence.prepare()
        await subscription.start(None, None, True, lambda *_: None)
        presence.start(since, at_once=True)
        reached = presence.cursor
        connection.end()
        return [json.loads(frame.text) for frame in writer.frames], reached

    everybody += crowd(cluster, hub, 10, 11, 12)
    for since in (None, listed, live.position):
        (frame,), reached = cluster.run(poll(since))
        assert (frame["type"], frame["count"], frame["members"]) == ("members", 12, [])
        assert reached is None
    numbered = live.position
    leave(cluster, everybody[5:])
    for since in (None, listed, numbered):
        (frame,), reached = cluster.run(poll(since))
        assert [member["id"] for member in frame["members"]] == sorted(user(*range(1, 6)))
        assert reached == live.position
    assert cluster.run(poll(live.position)) == ([], live.position)


def test_a_new_epoch_of_the_log_brings_the_number_again(cluster: Cluster) -> None:
    (hub,) = limit_members(cluster, 10)
    observer, *_ = crowd(cluster, hub, *range(1, 13))
    cluster.stores[0].delete(LOG)
    cluster.advance(10)
    assert observer.count == 12
    crowd(cluster, hub, 30)
    cluster.advance(2)
    assert observer.count == 13 == len(cluster.listed)


def test_the_list_comes_back_after_an_outage_of_the_store(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hub,) = limit_members(cluster, 10)
    observer, *others = crowd(cluster, hub, *range(1, 13))

    async def fail(*args: Any) -> NoReturn:
        raise StoreUnavailable("SharedStore", "it fails as configured")

    monkeypatch.setattr(cluster.stores[0], "amembers", fail)
    leave(cluster, others[5:])
    assert observer.ids == set()
    monkeypatch.undo()
    cluster.advance(2)
    assert observer.ids == cluster.listed == user(*range(1, 7))


def test_a_change_that_arrives_while_the_list_is_read_is_not_lost(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    hubs = limit_members(cluster, 10, nodes=2)
    observer, *others = crowd(cluster, hubs[0], *range(1, 13))
    real = cluster.stores[0].amembers
    arrived = asyncio.Event()
    read: list[MemberList] = []

    async def read_slowly(log: str, limit: int | None = None) -> MemberList:
        read.append(await real(log, limit))
        await arrived.wait()
        return read[-1]

    monkeypatch.setattr(cluster.stores[0], "amembers", read_slowly)
    leave(cluster, others[5:])
    assert read
    crowd(cluster, hubs[1], 30)
    cluster.advance(1)
    arrived.set()
    cluster.advance(3)
    assert observer.ids == cluster.listed == user(*range(1, 7), 30)
