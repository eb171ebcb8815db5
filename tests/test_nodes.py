"""This process among the others: heartbeats, who may give up whom, and coming back."""

import asyncio
import json
import os
import socket
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from realtime import nodes
from realtime.broadcast import Wakeup
from realtime.exceptions import StoreUnavailable
from realtime.models import NodeRow
from realtime.nodes import (
    BEAT_SECONDS,
    EXPIRY_SECONDS,
    FOLLOWERS_LISTED,
    ORPHAN_BEATS,
    STEADY_BEATS,
    Followers,
    Load,
    Node,
    ThisNode,
    followers_of,
    living,
)
from realtime.protocol.names import presence_log
from realtime.stores import get_store
from realtime.stores.base import LEAVE, Appended, Store
from realtime.stores.memory import MemoryStore
from tests.support.virtual_time import VirtualTimeLoop

T = TypeVar("T")

LOG = presence_log("room.lobby")
OTHER = Node("other", "elsewhere", 8, "1.0")


class LoopStore(MemoryStore):
    """A store on the loop's time, which fails on demand."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.failing = False

    def clock(self) -> float:
        return 1_000_000 + self.loop.time()

    async def abeat(self, node: Node, *, is_known: bool) -> bool:
        if self.failing:
            raise StoreUnavailable("the store", "it is away")
        return self.beat(node, is_known=is_known)


class Process:
    """A node, and what it received and announced."""

    def __init__(self, store: Store) -> None:
        self.load = Load(0, {})
        self.rebirths = 0
        self.announced: list[tuple[str, Appended]] = []
        self.node = ThisNode(store, lambda: self.load, self._reborn, self._announce)

    def _reborn(self) -> None:
        self.rebirths += 1

    async def _announce(self, log: str, appended: Appended) -> None:
        self.announced.append((log, appended))

    def left(self) -> list[str]:
        events = [event for _, appended in self.announced for event in appended.events]
        assert all(event.name == LEAVE for event in events)
        return [event.data["id"] for event in events]


class Cluster:
    def __init__(self) -> None:
        self.loop = VirtualTimeLoop()
        self.store = LoopStore(self.loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def beat(self, process: Process, times: int = 1, every: float = BEAT_SECONDS) -> None:
        for _ in range(times):
            self.loop.advance(every)
            if self.run(process.node.beat()):
                self.run(process.node.look_after_others())

    def enter(self, node: str, *uids: str) -> None:
        self.store.change_members(LOG, node, {uid: json.dumps({"id": uid}) for uid in uids}, [])

    @property
    def ids(self) -> list[str]:
        return [node.id for node in self.store.nodes()]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.loop.close()


def test_a_node_is_registered_once_before_its_members(cluster: Cluster) -> None:
    process = Process(cluster.store)
    assert not process.node.is_registered
    cluster.run(process.node.register())
    (row,) = cluster.store.nodes()
    cluster.loop.advance(5)
    cluster.run(process.node.register())
    assert cluster.store.nodes() == [replace(row, age=5.0)]
    assert process.node.is_registered


def test_a_heartbeat_says_what_the_process_is_and_does(cluster: Cluster) -> None:
    process = Process(cluster.store)
    process.load = Load(3, {"orders.1": 2, "orders.2": 1}, {"direct": 7, "portable": 1})
    cluster.beat(process)
    (row,) = cluster.store.nodes()
    assert (row.id, row.host, row.pid) == (process.node.id, socket.gethostname(), os.getpid())
    assert (row.connections, row.topics) == (3, 2)
    assert row.followers == {"orders.1": 2, "orders.2": 1}
    assert row.writes == {"direct": 7, "portable": 1}
    assert row.version
    process.load = Load(0, {})
    cluster.beat(process)
    assert cluster.store.nodes()[0].followers == {}


def test_a_heartbeat_lists_the_most_followed_topics_and_counts_all(cluster: Cluster) -> None:
    process = Process(cluster.store)
    rare = {f"rare.{number}": 1 for number in range(FOLLOWERS_LISTED)}
    process.load = Load(9, {**rare, "famous": 9, "known": 2})
    cluster.beat(process)
    (row,) = cluster.store.nodes()
    assert row.topics == FOLLOWERS_LISTED + 2
    assert len(row.followers) == FOLLOWERS_LISTED
    assert (row.followers["famous"], row.followers["known"]) == (9, 2)


def test_a_dead_node_is_given_up_and_its_members_leave(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(cluster.store)
    cluster.store.beat(OTHER, is_known=False)
    cluster.enter(OTHER.id, "user.1", "user.2")
    cluster.enter(process.node.id, "user.2", "user.3")
    cluster.beat(process, int(EXPIRY_SECONDS // BEAT_SECONDS))
    cluster.beat(process)
    assert OTHER.id in cluster.ids, "its row was found old once"
    cluster.beat(process)
    assert cluster.ids == [process.node.id]
    assert process.left() == ["user.1"], "the other one is there through this process too"
    assert list(cluster.store.members(LOG).members) == ["user.2", "user.3"]
    assert "process 8 on elsewhere has stopped sending heartbeats" in caplog.text


def test_a_node_that_is_not_steady_declares_no_other_dead(cluster: Cluster) -> None:
    process = Process(cluster.store)
    cluster.beat(process, STEADY_BEATS)
    cluster.store.beat(OTHER, is_known=False)
    cluster.store.failing = True
    cluster.beat(process, 5)
    cluster.store.failing = False
    cluster.beat(process, STEADY_BEATS - 1)
    assert OTHER.id in cluster.ids, "the other one may be the next that comes back"
    cluster.beat(process, 2)
    assert OTHER.id not in cluster.ids


def test_a_process_that_was_suspended_is_not_steady(cluster: Cluster) -> None:
    process = Process(cluster.store)
    cluster.beat(process, STEADY_BEATS)
    cluster.store.beat(OTHER, is_known=False)
    cluster.loop.advance(5 * BEAT_SECONDS)
    cluster.beat(process)
    assert OTHER.id in cluster.ids
    cluster.beat(process, STEADY_BEATS)
    assert OTHER.id not in cluster.ids


def test_a_node_that_was_given_up_comes_back_under_another_id(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(cluster.store)
    cluster.beat(process, STEADY_BEATS)
    before = process.node.id
    assert cluster.store.expire_node(before, 0.0)
    cluster.store.beat(OTHER, is_known=False)
    cluster.loop.advance(EXPIRY_SECONDS)
    cluster.run(process.node.beat())
    assert process.node.id != before
    assert process.rebirths == 1
    assert set(cluster.ids) == {OTHER.id, process.node.id}, "it must be steady again"
    assert "registers again" in caplog.text
    cluster.beat(process)
    assert process.rebirths == 1


def test_members_of_a_node_without_a_row_leave_within_a_minute(cluster: Cluster) -> None:
    process = Process(cluster.store)
    cluster.enter("gone", "user.1")
    cluster.beat(process, ORPHAN_BEATS)
    assert process.left() == ["user.1"]
    assert cluster.store.members(LOG).members == {}
    ((log, appended),) = process.announced
    assert Wakeup.of(log, appended).topic == LOG


def test_a_node_that_stops_signs_off_and_its_members_have_time_to_come_back(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    stays, stops = Process(cluster.store), Process(cluster.store)
    for _ in range(ORPHAN_BEATS):
        cluster.beat(stays)
        cluster.run(stops.node.beat())
    cluster.enter(stops.node.id, "user.1", "user.2")
    cluster.run(stops.node.sign_off())
    assert cluster.ids == [stays.node.id]
    cluster.beat(stays)
    assert stays.left() == []
    cluster.enter(stays.node.id, "user.2")
    cluster.beat(stays)
    assert stays.left() == ["user.1"]
    cluster.run(stops.node.beat())
    assert cluster.ids == [stays.node.id], "a late heartbeat does not register it again"
    assert caplog.records == []


def test_a_node_signs_off_from_a_store_that_fails(cluster: Cluster) -> None:
    process = Process(cluster.store)
    cluster.run(process.node.beat())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.store, "expire_node", lambda *args: 1 / 0)
        cluster.run(process.node.sign_off())
    cluster.run(process.node.sign_off())
    assert cluster.ids == [process.node.id], "the other nodes declare it dead"


def test_an_outage_of_the_store_is_logged_once_and_so_is_its_end(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(cluster.store)
    cluster.store.failing = True
    assert [cluster.run(process.node.beat()) for _ in range(3)] == [False] * 3
    with pytest.raises(StoreUnavailable):
        cluster.run(process.node.register())
    cluster.store.failing = False
    assert cluster.run(process.node.beat())
    assert cluster.run(process.node.beat())
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert process.node.is_registered


# Over the database


def make_old(*ids: str, seconds: float) -> None:
    for row in NodeRow.objects.filter(name__in=ids):
        row.seen -= seconds
        row.save()


def beat_all(*rows: Node) -> None:
    for row in rows:
        get_store().beat(row, is_known=False)


@pytest.fixture
def no_rows(transactional_db: None) -> Iterator[None]:
    NodeRow.objects.all().delete()
    yield
    NodeRow.objects.all().delete()


def ids(found: Sequence[Node]) -> list[str]:
    return [node.id for node in found]


def test_the_living_are_those_who_wrote_lately(no_rows: None) -> None:
    assert living() == []
    beat_all(OTHER, replace(OTHER, id="late"), replace(OTHER, id="young"))
    make_old("late", seconds=EXPIRY_SECONDS + 60)
    make_old("other", seconds=EXPIRY_SECONDS / 2)
    assert ids(living()) == ["other", "young"]


def test_followers_are_counted_over_the_nodes_that_live(no_rows: None) -> None:
    beat_all(
        replace(OTHER, id="a", followers={"orders.1": 2, "orders.2": 1}),
        replace(OTHER, id="b", followers={"orders.1": 3}),
        replace(OTHER, id="dead", followers={"orders.1": 100}),
    )
    make_old("dead", seconds=EXPIRY_SECONDS + 60)
    assert followers_of("orders.1") == Followers(5, is_exact=True)
    assert followers_of("orders.2") == Followers(1, is_exact=True)
    assert followers_of("orders.3") == Followers(0, is_exact=True)


def test_a_node_that_tells_of_fewer_topics_than_it_follows_makes_a_count_inexact(
    no_rows: None,
) -> None:
    beat_all(
        replace(OTHER, id="a", topics=2, followers={"orders.1": 2}),
        replace(OTHER, id="b", topics=1, followers={"orders.2": 1}),
    )
    assert followers_of("orders.1") == Followers(2, is_exact=True)
    assert followers_of("orders.2") == Followers(1, is_exact=False)


async def test_a_node_beats_over_the_database(no_rows: None) -> None:
    process = Process(get_store())
    process.load = Load(1, {"orders.1": 1})
    assert await process.node.beat()
    (row,) = await get_store().anodes()
    assert (row.id, row.followers) == (process.node.id, {"orders.1": 1})
    assert await get_store().aexpire_node(row.id, 0.0)
    assert await process.node.beat()
    assert process.rebirths == 1
    assert ids(await get_store().anodes()) == [process.node.id]


def test_a_checkout_without_a_distribution_says_that_its_version_is_unknown(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise nodes.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(nodes.metadata, "version", version)
    cluster.beat(Process(cluster.store))
    assert cluster.store.nodes()[0].version == "unknown"
