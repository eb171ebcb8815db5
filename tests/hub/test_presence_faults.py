"""Presence when answers are lost, rows are old or one log of many fails."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from realtime.broadcast import Wakeup
from realtime.exceptions import StoreUnavailable
from realtime.hub.member_writer import LATE_SECONDS, STREAM_HOLD_SECONDS
from realtime.nodes import BEAT_SECONDS
from realtime.protocol.names import presence_log
from realtime.stores.base import Node
from tests.hub.cluster import EXPIRED_SECONDS, LOG, Cluster, SharedStore, User, Visitor, user
from tests.support.virtual_time import passing

ONE = '{"id":"user.1"}'


def lose_answers(store: SharedStore, method: str) -> Callable[[], None]:
    """Make a method fail after it has done its work; return a function that ends this."""
    real = getattr(store, method)

    async def lost(*args: Any, **kwargs: Any) -> None:
        await real(*args, **kwargs)
        raise StoreUnavailable("the store", "its answer was lost")

    setattr(store, method, lost)
    return lambda: setattr(store, method, real)


def test_a_member_whose_join_had_no_answer_still_leaves(cluster: Cluster) -> None:
    hub = cluster.open_node()
    cluster.enter(hub, 1)
    heal = lose_answers(cluster.stores[0], "achange_members")
    cluster.leave(cluster.enter(hub, 2))
    cluster.advance(STREAM_HOLD_SECONDS + 2)
    heal()
    cluster.advance(5)
    assert cluster.listed == user(1)


def test_a_member_that_is_back_stays_listed_although_its_leave_had_no_answer(
    cluster: Cluster,
) -> None:
    hub = cluster.open_node()
    cluster.enter(hub, 1)
    visitor = cluster.enter(hub, 2)
    heal = lose_answers(cluster.stores[0], "achange_members")
    cluster.leave(visitor)
    cluster.advance(STREAM_HOLD_SECONDS + 0.5)
    cluster.enter(hub, 2)
    heal()
    cluster.advance(5)
    assert cluster.listed == user(1, 2)


def test_late_writes_of_a_store_that_hung_are_corrected(cluster: Cluster) -> None:
    hub = cluster.open_node()
    cluster.enter(hub, 1)
    store = cluster.stores[0]
    heal = lose_answers(store, "achange_members")
    cluster.enter(hub, 2)
    heal()
    cluster.advance(2)
    # The store runs the abandoned write after a later one: members that were never here.
    store.change_members(LOG, hub.member_writer.node.id, {"user.9": '{"id":"user.9"}'}, ["user.2"])
    cluster.advance(LATE_SECONDS + 2)
    assert cluster.listed == user(1, 2)


def test_a_lost_answer_to_a_new_registration_costs_no_member(cluster: Cluster) -> None:
    hub, other = cluster.open_node(), cluster.open_node()
    cluster.enter(hub, 1)
    cluster.enter(other, 2)
    cluster.advance(4 * BEAT_SECONDS)
    store = cluster.stores[0]
    store.failing = True
    cluster.advance(EXPIRED_SECONDS + BEAT_SECONDS)
    assert cluster.listed == user(2)
    store.failing = False
    real = store.abeat

    async def lost_once(node: Node, *, is_known: bool) -> bool:
        answer = await real(node, is_known=is_known)
        if not is_known:
            store.abeat = real  # type: ignore[method-assign]
            raise StoreUnavailable("the store", "its answer was lost")
        return answer

    store.abeat = lost_once  # type: ignore[method-assign]
    cluster.advance(60)
    assert cluster.listed == user(1, 2)


def test_members_are_written_under_a_new_id_only_after_its_row(cluster: Cluster) -> None:
    hub = cluster.open_node()
    cluster.enter(hub, 1)
    cluster.advance(2 * BEAT_SECONDS)
    store, before = cluster.stores[0], hub.member_writer.node.id
    store.expire_node(before, 0.0)
    real = store.abeat

    async def slow(node: Node, *, is_known: bool) -> bool:
        if not is_known:
            await passing(2)
        return await real(node, is_known=is_known)

    store.abeat = slow  # type: ignore[method-assign]
    for _ in range(200):
        cluster.advance(0.1)
        rows = {node.id for node in store.nodes()}
        assert set(store.nodes_of_members()) - {before} <= rows
    assert hub.member_writer.node.id != before
    assert cluster.listed == user(1)


def test_a_node_that_expires_another_for_long_keeps_sending_heartbeats(cluster: Cluster) -> None:
    hubs = [cluster.open_node() for _ in range(3)]
    for pk, hub in enumerate(hubs, 1):
        cluster.enter(hub, pk)
    cluster.advance(4 * BEAT_SECONDS)
    store = cluster.stores[0]
    store.beat(Node("dead", "host", 1, "1"), is_known=False)
    for number in range(500):
        store.change_members(f"x.{number}", "dead", {"user.1": ONE}, [])

    async def slow(wakeup: Wakeup) -> None:
        await passing(0.1)  # as when the layer hangs

    ids = [hub.member_writer.node.id for hub in hubs]
    for hub in hubs:
        hub.announce = slow  # type: ignore[method-assign]
    cluster.advance(300)
    assert [hub.member_writer.node.id for hub in hubs] == ids
    assert all(visitor.received("leave") == [] for visitor in cluster.visitors)
    assert "dead" not in store.nodes_of_members()


def test_a_restored_dump_makes_no_present_member_leave(cluster: Cluster) -> None:
    hubs = [cluster.open_node()]
    cluster.advance(3)
    hubs.append(cluster.open_node())
    visitors = [cluster.enter(hub, pk) for pk, hub in enumerate(hubs, 1)]
    cluster.advance(6 * BEAT_SECONDS)
    nodes = cluster.stores[0]._nodes
    for id_, (row, seen) in list(nodes.items()):
        nodes[id_] = (row, seen - 3_600)
    cluster.advance(120)
    assert [visitor.received("leave") for visitor in visitors] == [[], []]


def test_one_failing_log_does_not_delay_the_others(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    hub = cluster.open_node()
    cluster.advance(1)
    store, bad = cluster.stores[0], presence_log("room.bad")
    real = store.achange_members

    async def some(log: str, *args: Any) -> Any:
        if log == bad:
            raise StoreUnavailable("the store", "a part of it is away")
        return await real(log, *args)

    store.achange_members = some  # type: ignore[method-assign]
    logs = [presence_log(f"room.r{number}") for number in range(50)]
    for log in (bad, *logs):
        hub.member_writer.arrive(log, "user.1", ONE)
    cluster.advance(5)
    assert all(store.members(log).members for log in logs)
    warnings = [record.getMessage() for record in caplog.records if "members" in record.msg]
    assert len(warnings) == 1
    assert "a part of it is away" in warnings[0]


def test_a_presence_that_cannot_be_read_fails_alone(cluster: Cluster) -> None:
    hub = cluster.open_node()
    store = cluster.stores[0]
    real = store.amembers

    async def some(log: str, limit: int | None = None) -> Any:
        if "bad" in log:
            raise StoreUnavailable("the store", "a part of it is away")
        return await real(log, limit)

    store.amembers = some  # type: ignore[method-assign]
    good, bad = Visitor(hub, User(1)), Visitor(hub, User(2))

    async def enter() -> None:
        entering = [good.enter("room.good"), bad.enter("room.bad")]
        ends = await asyncio.gather(*entering, return_exceptions=True)
        assert ends[0] is None
        assert isinstance(ends[1], StoreUnavailable)

    cluster.run(enter())


def test_logs_in_doubt_are_checked_with_one_read(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = cluster.open_node()
    cluster.advance(1)
    looks: list[str] = []
    store = cluster.stores[0]
    real = store.amembers_of

    async def counted(node: str) -> Any:
        looks.append(node)
        return await real(node)

    monkeypatch.setattr(store, "amembers_of", counted)
    for number in range(50):
        hub.member_writer.arrive(presence_log(f"room.r{number}"), "user.1", ONE)
    cluster.advance(2)
    for number in range(50):
        hub.member_writer.check(presence_log(f"room.r{number}"))
    cluster.advance(2)
    assert len(looks) == 1
    assert replace(store.nodes()[0], age=0.0).id == hub.member_writer.node.id
