"""What one process does at the channel layer's tables: read its letters, keep its rows, trim.

**Nobody writes to the dead.**
A member counts only while the lease of its inbox runs, so that a process which was killed costs its
group rows for a minute and nothing afterwards; what it had not read expires.
A renewal is one row, however many groups the process is in.

**A row is taken by deleting it**, and is delivered only after the deletion has been committed: at
most once. ``id > last`` would pass over rows whose transactions commit late.

Every method is called in the layer's thread.
Every error of the database becomes ``StoreUnavailable`` or ``StoreError`` within a few seconds.
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
from realtime.stores.database.access import DatabaseAccess
from realtime.stores.database.clock import DatabaseClock

__all__ = ["LEASE_SECONDS", "LayerTables"]

LEASE_SECONDS = 60  # three renewals may fail; the most that a killed process goes on costing
LOCKED_SECONDS = 4.0  # less than a caller waits, so that it learns the reason
CLAIM_ROWS = 200  # letters taken at a time: a few ms of any database
TRIM_ROWS = 500  # rows deleted at a time: nobody waits for long


class LayerTables:
    """The rows of one process, and those that it writes for others.

    Args:
        using: the database alias.
        inbox: the process's inbox.
        expiry: seconds that a letter waits.
        group_expiry: seconds that a membership lasts.
        capacity: tells how many letters may wait for a channel.
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
        self.letters = MessageWriter(self.rows, self.database, inbox, expiry, capacity)
        self._looks: dict[int, Compiled] = {}

    # Groups

    def join(self, joins: Sequence[Join]) -> None:
        """Write memberships; those of channels of other processes are told to them too."""
        self._insert_members((join.group, join.channel, self.group_expiry) for join in joins)
        again: dict[str, list[str]] = {}
        foreign = []
        for join in joins:
            if not join.new:
                again.setdefault(join.channel, []).append(join.group)
            address = address_of(join.channel)
            if is_inbox(address, join.channel) and address != self.inbox:
                foreign.append((address, pack(["join", join.group, join.channel])))
        if again:
            self.database.write(lambda _: self._extend(again))
        self.letters.write(foreign)

    def _extend(self, groups_of: Mapping[str, list[str]]) -> None:
        for channel, groups in groups_of.items():
            self.rows.members.filter(channel=channel, group__in=groups).update(
                expires=DatabaseClock() + Value(float(self.group_expiry))
            )

    def leave(self, leaves: Sequence[Leave]) -> None:
        """Delete memberships; those of channels of other processes are told to them too."""
        groups_of: dict[str, list[str]] = {}
        foreign = []
        for leave in leaves:
            groups_of.setdefault(leave.channel, []).append(leave.group)
            address = address_of(leave.channel)
            if is_inbox(address, leave.channel) and address != self.inbox:
                foreign.append((address, pack(["leave", leave.group, leave.channel])))

        def delete(_: BaseDatabaseWrapper) -> None:
            for channel, groups in groups_of.items():
                self._delete(self.rows.members.filter(channel=channel, group__in=groups))

        self.database.write(delete)
        self.letters.write(foreign)

    def flush(self) -> None:
        """Delete every letter and membership, and tell the processes that live to do so too."""

        def delete(_: BaseDatabaseWrapper) -> None:
            self._delete(self.rows.messages.all())
            self._delete(self.rows.members.all())

        self.database.write(delete)
        others = self.rows.inboxes.exclude(name=self.inbox).filter(expires__gt=DatabaseClock())
        names = self.database.read(lambda _: list(others.values_list("name", flat=True)))
        self.letters.write([(name, pack(["flush"])) for name in names])

    # Receiving

    def claim(self) -> tuple[list[bytes], bool]:
        """Take what waits in the process's inbox, oldest first.

        Returns:
            the letters, and whether there may be more.
        """
        rows = self._look(self.inbox, CLAIM_ROWS)
        if rows:
            keys = [key for key, _, _ in rows]
            self._take(keys)
        return [bytes(payload) for _, payload, fresh in rows if fresh], len(rows) == CLAIM_ROWS

    def claim_shared(self, channel: str, limit: int) -> tuple[list[bytes], bool]:
        """Take at most ``limit`` letters of a channel that other processes read too.

        Of several processes that see a row, the one whose deletion finds it has it.

        Returns:
            the letters, and whether there may be more.
        """
        rows = self._look(channel, limit)
        taken = []
        for key, payload, fresh in rows:
            if self._take([key]) and fresh:
                taken.append(bytes(payload))
        return taken, len(rows) == limit

    def _look(self, address: str, limit: int) -> list[tuple[int, bytes, bool]]:
        if limit not in self._looks:
            fresh = ExpressionWrapper(Q(expires__gt=DatabaseClock()), BooleanField())
            rows = self.rows.messages.order_by("pk").values_list("pk", "payload", fresh)
            self._looks[limit] = Compiled(lambda at: rows.filter(inbox__in=at)[:limit])
        letters = self._looks[limit]
        return self.database.read(lambda connection: letters.rows(connection, [address]))

    def _take(self, keys: Sequence[int]) -> int:
        """Delete letters; return how many were there."""
        model = self.rows.message_model
        # On PostgreSQL it waits for one answer instead of three. It may be repeated: what the
        # first deletion took is not there for the second, and is lost instead of read twice.
        postgresql = connections[self.using].vendor == "postgresql"
        run = self.database.read if postgresql else self.database.write
        return run(lambda connection: delete_keys(connection, model, keys))

    # Life and death

    def register(self, members: Iterable[tuple[str, str, float]]) -> None:
        """Write the process's lease and the (group, channel, seconds left) of its members."""
        ends = DatabaseClock() + Value(float(LEASE_SECONDS))
        row = self.rows.inbox_model(name=self.inbox, expires=ends)

        def write(_: BaseDatabaseWrapper) -> None:
            if not self.rows.inboxes.filter(name=self.inbox).update(expires=ends):
                self.rows.inboxes.bulk_create([row], ignore_conflicts=True)

        self.database.write(write)
        self._insert_members(members)

    def renew(self) -> bool:
        """Renew the lease; False if it had ended, so that others may have trimmed the members."""
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

    def retire(self) -> None:
        """Delete everything that is kept for this process: nobody writes to it from now on."""

        def delete(_: BaseDatabaseWrapper) -> None:
            self._delete(self.rows.inboxes.filter(name=self.inbox))
            self._delete(self.rows.members.filter(inbox=self.inbox))
            self._delete(self.rows.messages.filter(inbox=self.inbox))

        self.database.write(delete)

    def trim(self) -> None:
        """Delete some of what has expired: letters, members, and inboxes with theirs."""
        now = self.database.read(lambda connection: _clock(connection))
        self._delete_some(self.rows.messages.filter(expires__lt=now))
        self._delete_some(self.rows.members.filter(expires__lt=now))
        dead = self.rows.inboxes.filter(expires__lt=now - LEASE_SECONDS).values_list(
            "name", flat=True
        )
        for name in self.database.read(lambda _: list(dead[:20])):
            self._bury(name, now - LEASE_SECONDS)

    def _bury(self, name: str, limit: float) -> None:
        """Delete an inbox that has been dead since before ``limit``, and its members.

        The inbox's row is locked first: its process, should it come back at this moment, finds
        its lease ended and writes its members anew, after this transaction.
        """
        lock = self.rows.inboxes.filter(name=name, expires__lt=limit)
        members = self.rows.members.filter(inbox=name)

        def delete(_: BaseDatabaseWrapper) -> None:
            if lock.update(expires=F("expires")):
                some = list(members.values_list("pk", flat=True)[:TRIM_ROWS])
                self._delete(members.filter(pk__in=some))
                if len(some) < TRIM_ROWS:
                    self._delete(lock)

        self.database.write(delete)

    def _delete_some(self, rows: QuerySet[Any]) -> None:
        keys = self.database.read(lambda _: list(rows.values_list("pk", flat=True)[:TRIM_ROWS]))
        if keys:
            self.database.write(lambda _: self._delete(rows.filter(pk__in=keys)))

    def _delete(self, rows: QuerySet[Any]) -> int:
        # Not delete(): with a project-wide receiver of post_delete it loads the rows and sends a
        # signal for each.
        count: int = rows._raw_delete(self.using)
        return count


def _clock(connection: BaseDatabaseWrapper) -> float:
    sql, params = DatabaseClock().as_sql(None, connection)  # type: ignore[arg-type]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {sql}", params)
        return float(cursor.fetchone()[0])
