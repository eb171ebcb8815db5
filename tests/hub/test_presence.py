"""Who is on a topic: several hubs over one store and one layer, on virtual time."""

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from realtime.broadcast import Wakeup
from realtime.hub.connection import Subscription
from realtime.hub.member_writer import POLL_HOLD_SECONDS, STREAM_HOLD_SECONDS
from realtime.hub.presence import LivePresence
from realtime.nodes import BEAT_SECONDS, EXPIRY_SECONDS
from realtime.topics import resolve
from tests.hub.town import GIVEN_UP, LOG, ROOM, Town, User, Visitor, user
from tests.support.virtual_time import passing


def test_who_enters_is_told_who_is_there_and_the_others_that_it_came(town: Town) -> None:
    hub = town.open_node()
    first = town.enter(hub, 1)
    assert first.ids == user(1)
    second = town.enter(hub, 2)
    assert second.frames[0]["type"] == "members"
    assert first.ids == second.ids == town.listed == user(1, 2)
    assert first.heard("join") == ["user.1", "user.2"]
    member = first.members["user.2"]
    assert member == {"id": "user.2", "user": "2", "info": {"name": "somebody"}}


def test_two_tabs_and_a_phone_on_two_nodes_are_one_member(town: Town) -> None:
    home, away = town.open_node(), town.open_node()
    observer = town.enter(home, 1)
    tab, other_tab, phone = town.enter(home, 7), town.enter(home, 7), town.enter(away, 7)
    assert observer.heard("join") == ["user.1", "user.7"]
    town.leave(other_tab)
    town.leave(phone)
    town.advance(60)
    assert observer.heard("leave") == []
    assert observer.ids == user(1, 7)
    town.leave(tab)
    town.advance(10)
    assert observer.heard("leave") == ["user.7"]
    assert town.listed == user(1)


def test_a_reload_is_no_leave(town: Town) -> None:
    hub = town.open_node()
    observer, visitor = town.enter(hub, 1), town.enter(hub, 2)
    told = len(observer.frames)
    for _ in range(3):
        town.leave(visitor)
        town.advance(STREAM_HOLD_SECONDS - 1)
        visitor = town.enter(hub, 2)
    assert len(observer.frames) == told


def test_a_poll_holds_its_member_until_the_next_one(town: Town) -> None:
    hub = town.open_node()
    observer, poll = town.enter(hub, 1), town.enter(hub, 2, hold=POLL_HOLD_SECONDS)
    tab = town.enter(hub, 2)
    town.leave(poll)
    town.leave(tab)  # its shorter hold does not cut the poll's
    town.advance(POLL_HOLD_SECONDS - 1)
    assert observer.ids == user(1, 2)
    town.advance(2)
    assert observer.ids == user(1)


def test_visitors_who_are_not_signed_in_are_a_member_each(town: Town) -> None:
    hub = town.open_node()
    first, second = town.enter(hub, None), town.enter(hub, None)
    ids = {f"connection.{one.connection.id}" for one in (first, second)}
    assert first.ids == second.ids == ids
    assert [member["user"] for member in first.members.values()] == [None, None]


def test_a_killed_node_is_one_leave_for_those_who_do_not_come_back(town: Town) -> None:
    home, away = town.open_node(), town.open_node()
    observer = town.enter(home, 1)
    for pk in (2, 3, 4):
        town.enter(away, pk)
    town.advance(4 * BEAT_SECONDS)
    town.kill(away)
    town.enter(home, 3)
    town.advance(GIVEN_UP)
    assert sorted(observer.heard("leave")) == ["user.2", "user.4"]
    assert observer.ids == town.listed == user(1, 3)
    assert [node.id for node in town.stores[0].nodes()] == [home.member_writer.node.id]


def test_two_survivors_give_a_node_up_once(town: Town) -> None:
    survivors, dying = [town.open_node(), town.open_node()], town.open_node()
    observers = [town.enter(hub, pk) for pk, hub in enumerate(survivors, 1)]
    town.enter(dying, 9)
    town.advance(4 * BEAT_SECONDS)
    town.kill(dying)
    town.advance(GIVEN_UP)
    assert [one.heard("leave") for one in observers] == [["user.9"], ["user.9"]]


def test_a_node_that_was_given_up_comes_back_with_all_its_members(town: Town) -> None:
    home, away = town.open_node(), town.open_node()
    observer = town.enter(home, 1)
    there = [town.enter(away, 2), town.enter(away, 3)]
    id_before = away.member_writer.node.id
    town.advance(4 * BEAT_SECONDS)
    town.stores[1].failing = True
    town.advance(GIVEN_UP)
    assert observer.ids == user(1)
    town.leave(there.pop())  # it cannot be told now
    town.stores[1].failing = False
    town.advance(3 * BEAT_SECONDS)
    assert away.member_writer.node.id != id_before
    assert observer.ids == town.listed == user(1, 2)
    town.advance(20 * BEAT_SECONDS)  # nor does anything of its first life remain
    assert town.stores[0].nodes_of_members() == {h.member_writer.node.id for h in town.hubs}
    assert observer.ids == there[0].ids == user(1, 2)


def test_members_written_after_their_node_was_given_up_do_not_stay_for_ever(town: Town) -> None:
    hub = town.open_node()
    observer = town.enter(hub, 1)
    town.stores[0].change_members(LOG, "a-node-without-a-row", {"user.8": '{"id":"user.8"}'}, [])
    town.advance(60)
    town.advance(60)
    assert observer.ids == town.listed == user(1)


def test_a_store_that_was_away_empties_no_list(town: Town) -> None:
    hubs = [town.open_node(), town.open_node(), town.open_node()]
    observers = [town.enter(hub, pk) for pk, hub in enumerate(hubs, 1)]
    town.advance(4 * BEAT_SECONDS)
    for store in town.stores:
        store.failing = True
    town.advance(3 * EXPIRY_SECONDS)
    late = town.stores[2]
    for store in town.stores:
        store.failing = store is late
    town.advance(BEAT_SECONDS)  # the others are back first
    late.failing = False
    town.advance(GIVEN_UP)
    for observer in observers:
        assert observer.heard("leave") == []
        assert observer.ids == user(1, 2, 3)


def test_who_came_while_the_store_was_away_is_told_when_it_is_back(town: Town) -> None:
    hub = town.open_node()
    observer, leaving = town.enter(hub, 1), town.enter(hub, 2)
    town.stores[0].failing = True
    town.enter(hub, 3)
    town.leave(leaving)
    town.advance(30)
    assert observer.ids == user(1, 2)
    town.stores[0].failing = False
    town.advance(10)
    assert observer.ids == town.listed == user(1, 3)


def test_a_lost_last_leave_is_found(town: Town) -> None:
    home, away = town.open_node(), town.open_node()
    observer, visitor = town.enter(home, 1), town.enter(away, 2)
    town.layer.loss = 1.0
    town.leave(visitor)
    town.advance(STREAM_HOLD_SECONDS + 6)
    assert observer.heard("leave") == ["user.2"]


def test_a_reader_that_fell_behind_is_told_the_list_anew(town: Town) -> None:
    hub = town.open_node()
    slow = town.enter(hub, 1, limit=2_000)
    slow.gate.clear()
    everybody = {f"user.{pk}": json.dumps({"id": f"user.{pk}"}) for pk in range(100, 700)}
    store, node = town.stores[0], hub.member_writer.node.id
    for appended in (
        store.change_members(LOG, node, everybody, []),
        store.change_members(LOG, node, {}, everybody),
    ):
        town.run(hub.announce(Wakeup.of(LOG, appended)))
        town.advance(0.1)
    slow.gate.set()
    town.advance(5)
    assert seen(slow.frames).count("members") > 1
    assert len(slow.frames) < 600
    assert slow.ids == town.listed == user(1)


@pytest.mark.parametrize("change", ["renew", "delete"])
def test_another_life_of_the_log_brings_the_list_anew(town: Town, change: str) -> None:
    hub = town.open_node()
    observer = town.enter(hub, 1)
    town.enter(hub, 2)
    store = town.stores[0]
    if change == "renew":
        store.renew(LOG, store.heads([LOG])[LOG].epoch)
    else:
        store.delete(LOG)
    town.advance(6)
    assert observer.frames[-1]["type"] == "members"
    town.enter(hub, 3)
    assert observer.ids == user(1, 2, 3)


def test_members_that_the_store_lost_or_has_found_again_are_put_right(town: Town) -> None:
    hub = town.open_node()
    observer, store = town.enter(hub, 1), town.stores[0]
    town.enter(hub, 2)
    dump = json.dumps(store._members)
    gone = town.enter(hub, 3)
    store._members.clear()
    store._members.update(json.loads(dump))
    store.renew(LOG, store.heads([LOG])[LOG].epoch)
    town.advance(10)
    assert observer.ids == town.listed == user(1, 2, 3)
    dump = json.dumps(store._members)
    town.leave(gone)
    town.advance(10)
    assert town.listed == user(1, 2)
    store._members.clear()
    store._members.update(json.loads(dump))
    store.renew(LOG, store.heads([LOG])[LOG].epoch)
    town.advance(10)
    assert observer.ids == town.listed == user(1, 2)


def test_many_members_are_told_in_several_frames(town: Town) -> None:
    hub = town.open_node()
    texts = {f"user.{pk}": json.dumps({"id": f"user.{pk}", "info": "x" * 900}) for pk in range(400)}
    town.stores[0].change_members(LOG, hub.member_writer.node.id, texts, [])
    visitor = Visitor(hub, None)
    town.run(visitor.enter())
    town.advance(1)
    parts = [frame for frame in visitor.frames if frame["type"] == "members"]
    assert [part.get("more", False) for part in parts] == [True, True, False]
    assert sum(len(part["members"]) for part in parts) == 400
    assert {part["version"] for part in parts} == {400}
    town.visitors = []


def test_the_row_of_a_node_tells_what_it_does(town: Town) -> None:
    hub = town.open_node()
    for pk in (1, 2):
        town.enter(hub, pk)
    town.advance(2 * BEAT_SECONDS)
    (node,) = town.stores[0].nodes()
    assert (node.connections, node.topics, node.followers) == (2, 1, {ROOM: 2})


def test_a_thousand_come_and_go_over_a_layer_that_loses_a_fifth(town: Town) -> None:
    hubs = [town.open_node() for _ in range(4)]
    observers = [town.enter(hub, pk) for pk in range(1, 9) for hub in hubs]
    town.layer.loss = 0.2
    choose = random.Random(11)
    guests = list(range(1_000, 2_000))
    staying: set[int] = set()

    async def visit(pk: int) -> None:
        await passing(choose.random() * 5)
        visitor = Visitor(choose.choice(hubs), User(pk))
        await visitor.enter()
        visitor.connection.writer.abandon()  # it is told, and nobody looks
        if pk % 10 == 0:
            staying.add(pk)
            return
        await passing(choose.random() * 5)
        visitor.connection.end()

    async def all_of_them() -> None:
        await asyncio.gather(*map(visit, guests))

    town.run(all_of_them())
    town.advance(STREAM_HOLD_SECONDS + 10)
    expected = user(*range(1, 9), *staying)
    assert town.listed == expected
    for hub in hubs:
        live = hub.topics[LOG]
        assert isinstance(live, LivePresence)
        assert set(live.members) == expected
    for observer in observers:
        assert observer.ids == expected
        assert sorted(observer.heard("leave")) == sorted(
            f"user.{pk}" for pk in guests if pk not in staying
        )


def seen(frames: Sequence[dict[str, Any]]) -> list[str]:
    return [frame["type"] for frame in frames]


def test_a_place_in_the_log_brings_only_what_has_changed(town: Town) -> None:
    hub = town.open_node()
    first = town.enter(hub, 1)
    live = hub.topics[LOG]
    place = live.position
    town.enter(hub, 2)
    returning = Visitor(hub, User(1))

    async def come_back() -> None:
        topic = resolve(ROOM)
        subscription = Subscription(returning.connection, await hub.follow(topic))
        presence = await hub.follow_presence(topic)
        attendance = subscription.attend(topic, presence, 1.0, None)
        await attendance.prepare()
        returning.version = place.seq
        attendance.begin(place)

    town.run(come_back())
    town.advance(0.1)
    assert seen(returning.frames) == ["join"]
    assert first.ids == user(1, 2)
