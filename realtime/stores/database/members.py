"""Nodes and members in the tables of the database."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count, F

from realtime.protocol.events import Draft
from realtime.stores.base import JOIN, LEAVE, Appended, MemberList, Node, Store
from realtime.stores.database.access import delete_rows
from realtime.stores.database.batches import batches
from realtime.stores.database.clock import DatabaseClock
from realtime.stores.database.tables import STATE_COLUMNS, STORE_ID
from realtime.stores.log_state import LogState

if TYPE_CHECKING:
    from realtime.stores.database.access import DatabaseAccess
    from realtime.stores.database.tables import LogRow, Tables

__all__ = ["DatabaseMembers"]

UIDS_PER_QUERY = 500  # keeps statements small when thousands join a topic in one transaction


class DatabaseMembers(Store):
    """Nodes and members of a ``DatabaseStore``."""

    _tables: Tables
    _access: DatabaseAccess

    def _insert(self, log: LogRow, drafts: Sequence[Draft]) -> Appended:
        raise NotImplementedError  # DatabaseStore implements it

    # Nodes

    def beat(self, node: Node, *, is_known: bool) -> bool:
        """Write a node's row, with the time of the store's clock."""
        return self._access.write(lambda _: self._beat(node, is_known))

    def _beat(self, node: Node, is_known: bool) -> bool:
        rows = self._tables.nodes
        values = {
            "host": node.host[:255],
            "pid": node.pid,
            "version": node.version[:50],
            "connections": node.connections,
            "topics": node.topics,
            "followers": json.dumps(dict(node.followers), separators=(",", ":")),
            "writes": json.dumps(dict(node.writes), separators=(",", ":")),
            "seen": DatabaseClock(),
        }
        if rows.filter(name=node.id).update(**values):
            return True
        if is_known:
            return False
        # Not create(), which sends signals to the project.
        rows.bulk_create([rows.model(**values, name=node.id, started=DatabaseClock())])
        return True

    def nodes(self) -> Sequence[Node]:
        """Return all nodes that have a row, oldest first."""
        return self._access.read(lambda _: self._nodes())

    def _nodes(self) -> list[Node]:
        rows = self._tables.nodes.annotate(age=DatabaseClock() - F("seen")).order_by("pk")
        return [
            Node(
                id=row.name,
                host=row.host,
                pid=row.pid,
                version=row.version,
                connections=row.connections,
                topics=row.topics,
                followers=json.loads(row.followers),
                writes=json.loads(row.writes),
                started=row.started,
                age=max(0.0, float(row.age)),
            )
            for row in rows
        ]

    def expire_node(self, node: str, age: float) -> bool:
        """Remove a node's row if its last heartbeat is at least ``age`` seconds old."""
        rows = self._tables.nodes.filter(name=node, seen__lte=DatabaseClock() - age)
        return bool(self._access.write(lambda _: delete_rows(rows.all())))

    # Members

    def change_members(
        self, log: str, node: str, arrived: Mapping[str, str], left: Collection[str]
    ) -> Appended:
        """Add and remove a node's members of a topic, and append the joins and leaves."""

        def operation(connection: BaseDatabaseWrapper) -> Appended:
            row = self._tables.lock(connection, log)
            drafts = [*self._add(row, node, arrived), *self._remove(row, node, left)]
            return self._insert(row, drafts)

        return self._access.write(operation)

    def _nodes_by_uid(self, log: LogRow, uids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the JSON text of members, by member id and node."""
        found: dict[str, dict[str, str]] = {}
        for batch in _batches(uids):
            rows = self._tables.members.filter(log_id=log.pk, uid__in=batch)
            for uid, node, text in rows.values_list("uid", "node", "json"):
                found.setdefault(uid, {})[node] = text
        return found

    def _add(self, log: LogRow, node: str, arrived: Mapping[str, str]) -> list[Draft]:
        """Add a node's members; return the joins."""
        present = self._nodes_by_uid(log, list(arrived))
        make = partial(self._tables.members.model, log_id=log.pk, node=node)
        rows = [
            make(uid=uid, json=text)
            for uid, text in arrived.items()
            if node not in present.get(uid, {})
        ]
        for batch in batches(rows, lambda row: len(row.json)):
            self._tables.members.bulk_create(batch)
        return [Draft(JOIN, text) for uid, text in arrived.items() if uid not in present]

    def _remove(self, log: LogRow, node: str, left: Collection[str]) -> list[Draft]:
        """Remove a node's members; return the leaves."""
        present = self._nodes_by_uid(log, list(left))
        removed = [uid for uid in left if node in present.get(uid, {})]
        for batch in _batches(removed):
            delete_rows(self._tables.members.filter(log_id=log.pk, node=node, uid__in=batch))
        return [Draft(LEAVE, present[uid][node]) for uid in removed if len(present[uid]) == 1]

    def members(self, log: str, limit: int | None = None) -> MemberList:
        """Return a topic's members, or only their number, and the head of its presence log."""
        return self._access.read(lambda _: self._counted(log, limit) or self._members(log))

    def _counted(self, log: str, limit: int | None) -> MemberList | None:
        """Return only the number of members and the head; None if all can be listed."""
        if limit is None:
            return None
        # One statement, so that the number and the head are consistent.
        rows = list(
            self._tables.logs.filter(name__in=[log, STORE_ID])
            .annotate(count=Count("members__uid", distinct=True))
            .values_list(*STATE_COLUMNS, "count")
        )
        count = next((row[-1] for row in rows if row[0] == log), 0)
        if count <= limit:
            return None
        state: LogState = self._tables.log_state(log, [row[:-1] for row in rows])
        return MemberList(state.head, {}, count)

    def _members(self, log: str) -> MemberList:
        # One statement, so that the list and the head are consistent.
        rows = list(
            self._tables.logs.filter(name__in=[log, STORE_ID])
            .order_by("members__pk")
            .values_list(*STATE_COLUMNS, "members__uid", "members__json")
        )
        width = len(STATE_COLUMNS)
        state: LogState = self._tables.log_state(log, [row[:width] for row in rows])
        members: dict[str, str] = {}
        for row in rows:
            if row[0] == log and row[width] is not None:
                members.setdefault(row[width], row[width + 1])
        return MemberList(state.head, members)

    def members_of(self, node: str) -> Mapping[str, Sequence[str]]:
        """Return the ids of a node's members, by presence log."""
        return self._access.read(lambda _: self._members_of(node))

    def _members_of(self, node: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        rows = self._tables.members.filter(node=node).order_by("pk")
        for log, uid in rows.values_list("log__name", "uid"):
            found.setdefault(log, []).append(uid)
        return found

    def nodes_of_members(self) -> Collection[str]:
        """Return the ids of all nodes that have members, including nodes without a row."""
        rows = self._tables.members.order_by().values_list("node", flat=True).distinct()
        return self._access.read(lambda _: set(rows.all()))


def _batches(uids: Sequence[str]) -> list[Sequence[str]]:
    return [uids[start : start + UIDS_PER_QUERY] for start in range(0, len(uids), UIDS_PER_QUERY)]
