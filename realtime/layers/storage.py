"""The rows of one process in the channel layer's tables.

Each process has an inbox, which is the address of the messages for it, and a lease on that inbox.

**A dead process gets no messages.**
A group's message is written to a process's inbox only while the lease on the inbox is running.
So for at most a minute after a process was killed, each message of its groups still writes a row
for it. These rows expire unread.
A renewal of the lease writes one row, however many groups the process is in.

**A message is read by deleting its row**, and is delivered after that deletion is committed: at
most once.
Reading ``id > last`` instead would skip rows whose transactions commit late.

Every method is called in the layer's thread.
Every database error becomes ``StoreUnavailable`` or ``StoreError`` within a few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, ExpressionWrapper, F, Q, QuerySet, Value

from realtime.layers.messages import Join, Leave, address_of, is_inbox, pack
from realtime.layers.outgoing import MessageWriter
from realtime.layers.sql import Compiled, LayerRows, delete_keys
from realtime.stores.database.access import DatabaseAccess, check_names, delete_rows
from realtime.stores.database.clock import DatabaseClock

__all__ = ["LEASE_SECONDS", "LayerStorage"]

LEASE_SECONDS = 60  # three renewal intervals; a killed process is sent messages until it ends
LOCKED_SECONDS = 4.0  # of retrying a lock; less than the 5 s after which a caller gives up
CLAIM_ROWS = 200  # messages read at a time: a few ms on any database
TRIM_ROWS = 500  # rows deleted at a time, so that no one waits long for the lock


class LayerStorage:
    """Reads and writes the rows of one process, and writes messages for others.

    Args:
        using: the database alias.
        inbox: the process's inbox.
        expiry: seconds after which an unread message expires.
        group_expiry: seconds that a membership lasts.
        capacity: returns how many messages may wait for a channel.

    Attributes:
        rows: the layer's tables.
        database: runs operations and translates the database's errors.
        outgoing: writes messages for other processes.
    """

    def __init__(
        self,
        using: str,
        inbox: str,
        expiry: float,
        group_expiry: float,
        capacity: Callable[[str], int],
    ) -> None:
        self.using = using
        self.inbox = inbox
        self.group_expiry = group_expiry
        self.rows = LayerRows(using)
        self.database = DatabaseAccess(using, "DatabaseChannelLayer", LOCKED_SECONDS)
        self.outgoing = MessageWriter(self.rows, self.database, inbox, expiry, capacity)
        self._selects: dict[int, Compiled] = {}  # the query for messages, by its limit

    # Groups

    def join(self, joins: Sequence[Join]) -> None:
        """Write memberships; notify another process if the channel is one of its own."""
        self._insert_members((join.group, join.channel, self.group_expiry) for join in joins)
        groups_to_extend: dict[str, list[str]] = {}
        foreign = []
        for join in joins:
            if not join.new:
                groups_to_extend.setdefault(join.channel, []).append(join.group)
            address = address_of(join.channel)
            if is_inbox(address, join.channel) and address != self.inbox:
                foreign.append((address, pack(["join", join.group, join.channel])))
        if groups_to_extend:
            self.database.write(lambda _: self._extend(groups_to_extend))
        self.outgoing.write_rows(foreign)

    def _extend(self, groups_of: Mapping[str, list[str]]) -> None:
        for channel, groups in groups_of.items():
            self.rows.members.filter(channel=channel, group__in=groups).update(
                expires=DatabaseClock() + Value(float(self.group_expiry))
            )

    def leave(self, leaves: Sequence[Leave]) -> None:
        """Delete memberships; notify another process if the channel is one of its own."""
        groups_of: dict[str, list[str]] = {}
        foreign = []
        for leave in leaves:
            groups_of.setdefault(leave.channel, []).append(leave.group)
            address = address_of(leave.channel)
            if is_inbox(address, leave.channel) and address != self.inbox:
                foreign.append((address, pack(["leave", leave.group, leave.channel])))

        def delete(_: BaseDatabaseWrapper) -> None:
            for channel, groups in groups_of.items():
                delete_rows(self.rows.members.filter(channel=channel, group__in=groups))

        self.database.write(delete)
        self.outgoing.write_rows(foreign)

    def flush(self) -> None:
        """Delete every message and membership, and make all living processes forget theirs."""

        def delete(_: BaseDatabaseWrapper) -> None:
            delete_rows(self.rows.messages.all())
            delete_rows(self.rows.members.all())

        self.database.write(delete)
        others = self.rows.inboxes.exclude(name=self.inbox).filter(expires__gt=DatabaseClock())
        names = self.database.read(lambda _: list(others.values_list("name", flat=True)))
        self.outgoing.write_rows([(name, pack(["flush"])) for name in names])

    # Receiving

    def claim(self) -> tuple[list[bytes], bool]:
        """Remove and return messages from the process's inbox, oldest first.

        Returns:
            the messages, and whether there may be more.
        """
        rows = self._select(self.inbox, CLAIM_ROWS)
        if rows:
            self._delete_messages([key for key, _, _ in rows])
        return [bytes(payload) for _, payload, fresh in rows if fresh], len(rows) == CLAIM_ROWS

    def claim_shared(self, channel: str, limit: int) -> tuple[list[bytes], bool]:
        """Remove and return at most ``limit`` messages of a shared channel.

        Several processes may see the same row; the one that deletes it gets the message.

        Returns:
            the messages, and whether there may be more.
        """
        rows = self._select(channel, limit)
        claimed = []
        for key, payload, fresh in rows:
            if self._delete_messages([key]) and fresh:
                claimed.append(bytes(payload))
        return claimed, len(rows) == limit

    def _select(self, address: str, limit: int) -> list[tuple[int, bytes, bool]]:
        """Return (key, payload, not expired) of the oldest messages at an address."""
        if limit not in self._selects:
            fresh = ExpressionWrapper(Q(expires__gt=DatabaseClock()), BooleanField())
            rows = self.rows.messages.order_by("pk").values_list("pk", "payload", fresh)
            self._selects[limit] = Compiled(lambda at: rows.filter(inbox__in=at)[:limit])
        messages = self._selects[limit]
        return self.database.read(lambda connection: messages.rows(connection, [address]))

    def _delete_messages(self, keys: Sequence[int]) -> int:
        """Delete messages and return how many were there."""
        model = self.rows.message_model
        # On PostgreSQL, read() takes one round trip where write() takes three. After a broken
        # connection it may repeat the deletion. If the first one succeeded, the message is lost,
        # but never delivered twice.
        is_postgresql = connections[self.using].vendor == "postgresql"
        run = self.database.read if is_postgresql else self.database.write
        return run(lambda connection: delete_keys(connection, model, keys))

    # The lease

    def register(self, members: Iterable[tuple[str, str, float]]) -> None:
        """Write the process's lease and its members, each as (group, channel, seconds left)."""
        ends = DatabaseClock() + Value(float(LEASE_SECONDS))
        row = self.rows.inbox_model(name=self.inbox, expires=ends)

        def write(_: BaseDatabaseWrapper) -> None:
            if not self.rows.inboxes.filter(name=self.inbox).update(expires=ends):
                self.rows.inboxes.bulk_create([row], ignore_conflicts=True)

        self.database.write(write)
        self._check_exact()
        self._insert_members(members)

    def _check_exact(self) -> None:
        """Refuse a database that finds this process's inbox by its name in upper case.

        Its groups and channels whose names differ only in case would share their messages.
        """
        other = self.inbox.upper()
        rows = self.rows.inboxes.filter(name=other).values_list("name", flat=True)
        found = self.database.read(lambda _: list(rows.all()))
        check_names(self.using, found, [other])

    def renew(self) -> bool:
        """Renew the lease; return False if it had expired and its members may be gone."""
        own = self.rows.inboxes.filter(name=self.inbox)
        ends = DatabaseClock() + Value(float(LEASE_SECONDS))
        running = own.filter(expires__gt=DatabaseClock())
        return bool(self.database.write(lambda _: running.update(expires=ends)))

    def _insert_members(self, members: Iterable[tuple[str, str, float]]) -> None:
        rows = [
            self.rows.member_model(
                group=group,
                channel=channel,
                inbox=address_of(channel),
                expires=DatabaseClock() + Value(float(seconds)),
            )
            for group, channel, seconds in members
        ]
        if rows:
            self.database.write(
                lambda _: self.rows.members.bulk_create(rows, batch_size=500, ignore_conflicts=True)
            )

    def unregister(self) -> None:
        """Delete all rows of this process, so that no other process writes to it any longer."""

        def delete(_: BaseDatabaseWrapper) -> None:
            delete_rows(self.rows.inboxes.filter(name=self.inbox))
            delete_rows(self.rows.members.filter(inbox=self.inbox))
            delete_rows(self.rows.messages.filter(inbox=self.inbox))

        self.database.write(delete)

    # Trimming

    def trim(self) -> None:
        """Delete some of the expired messages, members, and inboxes with their members."""
        now = self.database.read(lambda connection: _clock(connection))
        self._delete_some(self.rows.messages.filter(expires__lt=now))
        self._delete_some(self.rows.members.filter(expires__lt=now))
        limit = now - LEASE_SECONDS
        expired = self.rows.inboxes.filter(expires__lt=limit).values_list("name", flat=True)
        for name in self.database.read(lambda _: list(expired[:20])):
            self._delete_inbox(name, limit)

    def _delete_inbox(self, name: str, limit: float) -> None:
        """Delete an inbox that expired before ``limit``, and its members.

        The inbox's row is locked first.
        If its process comes back at this moment, it finds its lease expired and writes its members
        again after this transaction.
        """
        inbox = self.rows.inboxes.filter(name=name, expires__lt=limit)
        members = self.rows.members.filter(inbox=name)

        def delete(_: BaseDatabaseWrapper) -> None:
            if inbox.update(expires=F("expires")):
                keys = list(members.values_list("pk", flat=True)[:TRIM_ROWS])
                delete_rows(members.filter(pk__in=keys))
                if len(keys) < TRIM_ROWS:
                    delete_rows(inbox)

        self.database.write(delete)

    def _delete_some(self, rows: QuerySet[Any]) -> None:
        keys = self.database.read(lambda _: list(rows.values_list("pk", flat=True)[:TRIM_ROWS]))
        if keys:
            self.database.write(lambda _: delete_rows(rows.filter(pk__in=keys)))


def _clock(connection: BaseDatabaseWrapper) -> float:
    sql, params = DatabaseClock().as_sql(None, connection)  # type: ignore[arg-type]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {sql}", params)
        return float(cursor.fetchone()[0])
