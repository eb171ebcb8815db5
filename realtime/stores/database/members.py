"""Nodes and members in the tables of the database: the part of the store that is no log."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F

from realtime.protocol.events import Draft
from realtime.stores.base import JOIN, LEAVE, Appended, MemberList, Node, Store
from realtime.stores.database.clock import DatabaseClock
from realtime.stores.database.tables import STANDING, STORE_ID
from realtime.stores.log_state import LogState

if TYPE_CHECKING:
    from realtime.stores.database.access import DatabaseAccess
    from realtime.stores.database.tables import Found, Tables

__all__ = ["DatabaseMembers"]

UIDS_PER_QUERY = 500  # a herd of one topic in one transaction, in statements of a bearable size


class DatabaseMembers(Store):
    """Nodes and members of a ``DatabaseStore``."""

    _tables: Tables
    _access: DatabaseAccess

    def _insert(self, log: Found, drafts: Sequence[Draft]) -> Appended:
        raise NotImplementedError  # by the log's part

    # Nodes

    def beat(self, node: Node, *, is_known: bool) -> bool:
        """Write a node's row, with the store's time."""
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
        rows.create(**values, name=node.id, started=DatabaseClock())
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
        """Remove a node's row if its last heartbeat is so many seconds ago; its members stay."""
        rows = self._tables.nodes.filter(name=node, seen__lte=DatabaseClock() - age)
        return bool(self._access.write(lambda _: rows.all().delete()[0]))

    # Members

    def change_members(
        self, log: str, node: str, arrived: Mapping[str, str], left: Collection[str]
    ) -> Appended:
        """Write who is on a topic through a node, and append what follows from it."""

        def operation(connection: BaseDatabaseWrapper) -> Appended:
            found = self._tables.lock(connection, log)
            drafts = [*self._arrive(found, node, arrived), *self._leave(found, node, left)]
            return self._insert(found, drafts)

        return self._access.write(operation)

    def _nodes_by_uid(self, log: Found, uids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the texts of members by uid and node."""
        found: dict[str, dict[str, str]] = {}
        for piece in _pieces(uids):
            rows = self._tables.members.filter(log_id=log.pk, uid__in=piece)
            for uid, node, text in rows.values_list("uid", "node", "json"):
                found.setdefault(uid, {})[node] = text
        return found

    def _arrive(self, log: Found, node: str, arrived: Mapping[str, str]) -> list[Draft]:
        there = self._nodes_by_uid(log, list(arrived))
        make = partial(self._tables.members.model, log_id=log.pk, node=node)
        rows = [
            make(uid=uid, json=text)
            for uid, text in arrived.items()
            if node not in there.get(uid, {})
        ]
        self._tables.members.bulk_create(rows)
        return [Draft(JOIN, text) for uid, text in arrived.items() if uid not in there]

    def _leave(self, log: Found, node: str, left: Collection[str]) -> list[Draft]:
        there = self._nodes_by_uid(log, list(left))
        gone = [uid for uid in left if node in there.get(uid, {})]
        for piece in _pieces(gone):
            self._tables.members.filter(log_id=log.pk, node=node, uid__in=piece).delete()
        return [Draft(LEAVE, there[uid][node]) for uid in gone if len(there[uid]) == 1]

    def members(self, log: str) -> MemberList:
        """Return who is on a topic."""
        return self._access.read(lambda _: self._members(log))

    def _members(self, log: str) -> MemberList:
        # One statement, so that the list is the one of the head.
        rows = list(
            self._tables.logs.filter(name__in=[log, STORE_ID])
            .order_by("members__pk")
            .values_list(*STANDING, "members__uid", "members__json")
        )
        width = len(STANDING)
        standing: LogState = self._tables.standing(log, [row[:width] for row in rows])
        members: dict[str, str] = {}
        for row in rows:
            if row[0] == log and row[width] is not None:
                members.setdefault(row[width], row[width + 1])
        return MemberList(standing.head, members)

    def members_of(self, node: str) -> Mapping[str, Sequence[str]]:
        """Return the members that a node has written: their ids, by presence log."""
        return self._access.read(lambda _: self._members_of(node))

    def _members_of(self, node: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        rows = self._tables.members.filter(node=node).order_by("pk")
        for log, uid in rows.values_list("log__name", "uid"):
            found.setdefault(log, []).append(uid)
        return found

    def nodes_of_members(self) -> Collection[str]:
        """Return the ids of all nodes that have written members, with a row or without."""
        rows = self._tables.members.order_by().values_list("node", flat=True).distinct()
        return self._access.read(lambda _: set(rows.all()))


def _pieces(uids: Sequence[str]) -> list[Sequence[str]]:
    return [uids[start : start + UIDS_PER_QUERY] for start in range(0, len(uids), UIDS_PER_QUERY)]
