"""The contract of every store for nodes and members; `contract.py` is about logs."""

import json
import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from django.db import connections

from realtime.protocol.names import presence_log
from realtime.stores.base import JOIN, LEAVE, Appended, Node, Retention, Store


def new_log() -> str:
    return presence_log(f"contract.{uuid.uuid4().hex}")


def new_node(**fields: object) -> Node:
    return replace(Node(uuid.uuid4().hex[:22], "host", 7, "1.0"), **fields)  # type: ignore[arg-type]


def texts(*uids: str) -> dict[str, str]:
    return {uid: json.dumps({"id": uid}) for uid in uids}


def changes(appended: Appended) -> list[tuple[str, str]]:
    return [(event.name, event.data["id"]) for event in appended.events]


class MembersContract:
    """The tests; `StoreContract` inherits them."""

    def own_nodes(self, store: Store, *nodes: Node) -> list[Node]:
        ids = {node.id for node in nodes}
        return [node for node in store.nodes() if node.id in ids]

    def test_members_whose_ids_differ_only_in_case_or_a_space_are_apart(self, store: Store) -> None:
        log, uids = new_log(), ["ada", "Ada", "ada "]
        joins = store.change_members(log, "n1", texts(*uids), [])
        assert changes(joins) == [(JOIN, uid) for uid in uids]
        assert changes(store.change_members(log, "n1", {}, ["Ada"])) == [(LEAVE, "Ada")]
        assert list(store.members(log).members) == ["ada", "ada "]

    # Nodes

    def test_a_heartbeat_writes_the_nodes_row(self, store: Store) -> None:
        node = new_node(connections=3, topics=2, followers={"orders.1": 3}, writes={"direct": 9})
        before = store.clock()
        assert store.beat(node, is_known=False)
        (found,) = self.own_nodes(store, node)
        assert replace(found, started=0.0, age=0.0) == node
        assert before - 1 <= found.started <= store.clock() + 1
        assert found.age < 60

    def test_a_later_heartbeat_keeps_the_start_time(self, store: Store) -> None:
        node = new_node()
        store.beat(node, is_known=False)
        (first,) = self.own_nodes(store, node)
        assert store.beat(replace(node, connections=9), is_known=True)
        (later,) = self.own_nodes(store, node)
        assert (later.started, later.connections) == (first.started, 9)

    def test_nodes_are_listed_oldest_first(self, store: Store) -> None:
        nodes = [new_node() for _ in range(3)]
        for node in nodes:
            store.beat(node, is_known=False)
        assert [n.id for n in self.own_nodes(store, *nodes)] == [n.id for n in nodes]

    def test_beat_of_a_known_node_without_a_row_returns_false_and_writes_nothing(
        self, store: Store
    ) -> None:
        node = new_node()
        store.beat(node, is_known=False)
        assert store.expire_node(node.id, 0.0) is True
        assert store.beat(node, is_known=True) is False
        assert self.own_nodes(store, node) == []
        assert store.expire_node(node.id, 0.0) is False

    def test_a_node_with_a_recent_heartbeat_is_not_expired(self, store: Store) -> None:
        node = new_node()
        store.beat(node, is_known=False)
        assert store.expire_node(node.id, 3_600.0) is False
        assert store.beat(node, is_known=True)

    # Members

    def test_a_topic_has_no_members_at_first_and_reading_writes_nothing(self, store: Store) -> None:
        log = new_log()
        found = store.members(log)
        assert found.members == {}
        assert found.cursor == store.heads([log])[log]
        assert log not in store.topics()

    def test_a_member_joins_with_its_first_node_and_leaves_with_its_last(
        self, store: Store
    ) -> None:
        log = new_log()
        assert changes(store.change_members(log, "a", texts("ann"), [])) == [(JOIN, "ann")]
        assert changes(store.change_members(log, "b", texts("ann"), [])) == []
        assert changes(store.change_members(log, "a", {}, ["ann"])) == []
        assert store.members(log).members == texts("ann")
        assert changes(store.change_members(log, "b", {}, ["ann"])) == [(LEAVE, "ann")]
        assert store.members(log).members == {}

    def test_a_repeated_call_changes_nothing(self, store: Store) -> None:
        log = new_log()
        store.change_members(log, "a", texts("ann", "bob"), [])
        assert changes(store.change_members(log, "a", texts("ann", "bob"), [])) == []
        store.change_members(log, "a", {}, ["ann"])
        assert changes(store.change_members(log, "a", {}, ["ann", "nobody"])) == []
        assert list(store.members(log).members) == ["bob"]

    def test_members_are_listed_in_the_order_in_which_they_joined(self, store: Store) -> None:
        log = new_log()
        store.change_members(log, "a", texts("zoe", "ann"), [])
        store.change_members(log, "b", texts("bob", "zoe"), [])
        assert list(store.members(log).members) == ["zoe", "ann", "bob"]

    def test_the_version_is_the_logs_head(self, store: Store) -> None:
        log = new_log()
        appended = store.change_members(log, "a", texts("ann", "bob"), [])
        assert [event.seq for event in appended.events] == [1, 2]
        assert store.members(log).cursor == appended.events[-1].cursor
        appended = store.change_members(log, "a", texts("cid"), ["ann"])
        assert changes(appended) == [(JOIN, "cid"), (LEAVE, "ann")]
        assert store.members(log).cursor.seq == 4
        page = store.read(log, appended.previous)
        assert page.events == appended.events

    def test_a_thousand_members_join_and_leave_at_once(self, store: Store) -> None:
        log = new_log()
        uids = [f"user.{number}" for number in range(1_200)]
        assert len(store.change_members(log, "a", texts(*uids), []).events) == 1_200
        assert list(store.members(log).members) == uids
        assert len(store.change_members(log, "a", {}, uids).events) == 1_200
        assert store.members(log).members == {}

    def test_members_beyond_the_limit_are_only_counted(self, store: Store) -> None:
        log = new_log()
        assert store.members(log, 0).count is None
        store.change_members(log, "a", texts("ann", "bob"), [])
        store.change_members(log, "b", texts("bob", "cid"), [])
        found = store.members(log, 3)
        assert (list(found.members), found.count) == (["ann", "bob", "cid"], None)
        counted = store.members(log, 2)
        assert (counted.members, counted.count) == ({}, 3)
        assert counted.cursor == found.cursor == store.members(log).cursor
        store.change_members(log, "a", {}, ["ann", "bob"])
        assert store.members(log, 1).count == 2
        assert list(store.members(log, 2).members) == ["bob", "cid"]

    def test_a_nodes_members_are_found_by_log(self, store: Store) -> None:
        logs, node = [new_log(), new_log()], uuid.uuid4().hex
        store.change_members(logs[0], node, texts("ann", "bob"), [])
        store.change_members(logs[1], node, texts("ann"), [])
        store.change_members(logs[1], "another", texts("cid"), [])
        found = {log: sorted(uids) for log, uids in store.members_of(node).items()}
        assert found == {logs[0]: ["ann", "bob"], logs[1]: ["ann"]}
        assert node in store.nodes_of_members()
        for log in logs:
            store.change_members(log, node, {}, ["ann", "bob"])
        assert store.members_of(node) == {}
        assert node not in store.nodes_of_members()

    def test_trimming_the_log_keeps_the_members(self, store: Store) -> None:
        log = new_log()
        store.change_members(log, "a", texts("ann", "bob"), [])
        assert store.trim(log, Retention(0, 60.0)) == 2
        assert list(store.members(log).members) == ["ann", "bob"]
        assert store.members(log).cursor.seq == 2

    def test_concurrent_nodes_agree(self, store: Store) -> None:
        log, uids = new_log(), ["ann", "bob"]

        def join_and_leave(node: str) -> list[tuple[str, str]]:
            appended = []
            try:
                for _ in range(5):
                    appended += changes(store.change_members(log, node, texts(*uids), []))
                    appended += changes(store.change_members(log, node, {}, uids))
            finally:
                connections.close_all()
            return appended

        with ThreadPoolExecutor(4) as pool:
            results = pool.map(join_and_leave, ["a", "b", "c", "d"])
            events = [event for result in results for event in result]
        assert store.members(log).members == {}
        for uid in uids:
            assert events.count((JOIN, uid)) == events.count((LEAVE, uid)) > 0
        assert store.heads([log])[log].seq == len(events)

    @pytest.mark.asyncio
    async def test_the_async_versions_do_the_same(self, store: Store) -> None:
        log, node = new_log(), new_node()
        assert await store.abeat(node, is_known=False)
        assert node.id in [found.id for found in await store.anodes()]
        await store.achange_members(log, node.id, texts("ann"), [])
        assert (await store.amembers(log)).members == texts("ann")
        assert (await store.amembers(log, 0)).count == 1
        assert await store.amembers_of(node.id) == {log: ["ann"]}
        assert node.id in await store.anodes_of_members()
        await store.achange_members(log, node.id, {}, ["ann"])
        assert await store.aexpire_node(node.id, 0.0)
        assert node.id not in [found.id for found in await store.anodes()]

    @pytest.mark.parametrize("seed", range(8))
    def test_random_changes_end_with_the_right_list(self, store: Store, seed: int) -> None:
        log, choose = new_log(), random.Random(seed)
        present: dict[str, set[str]] = {"ann": set(), "bob": set()}
        for _ in range(20):
            node, uid = choose.choice("abc"), choose.choice(["ann", "bob"])
            before = bool(present[uid])
            if choose.random() < 0.5:
                appended = store.change_members(log, node, texts(uid), [])
                present[uid].add(node)
            else:
                appended = store.change_members(log, node, {}, [uid])
                present[uid].discard(node)
            name = JOIN if present[uid] else LEAVE
            assert changes(appended) == ([] if before == bool(present[uid]) else [(name, uid)])
        assert set(store.members(log).members) == {uid for uid, nodes in present.items() if nodes}
