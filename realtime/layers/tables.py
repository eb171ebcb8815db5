"""The channel layer's three tables, as one process uses them.

``LayerInbox``
    A process that reads: a row with a lease of a minute, which it renews every 20 seconds.
``LayerMember``
    A channel in a group, and the address that its messages go to.
``LayerMessage``
    A letter that waits at an address.

Every time in them is the database's clock, read where the row is written or compared: processes
whose clocks differ lose nothing.

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

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from typing import Any

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import (
    BooleanField,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    Model,
    OuterRef,
    Q,
    QuerySet,
    Value,
)

from realtime.layers.letters import Join, Leave, Letter, address_of, is_inbox, pack
from realtime.layers.statements import Compiled, delete_keys, insert_messages
from realtime.stores.clock import DatabaseClock
from realtime.stores.connections import DatabaseAccess

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
        self.expiry = expiry
        self.group_expiry = group_expiry
        self.capacity = capacity
        self._letters: dict[int, Compiled] = {}
        self.database = DatabaseAccess(using, "DatabaseChannelLayer", LOCKED_SECONDS)

    # Models are looked up at first use: the layer may be made before django.setup() is through.

    @cached_property
    def _inbox_model(self) -> type[Model]:
        return apps.get_model("realtime", "LayerInbox")

    @cached_property
    def _member_model(self) -> type[Model]:
        return apps.get_model("realtime", "LayerMember")

    @cached_property
    def _message_model(self) -> type[Model]:
        return apps.get_model("realtime", "LayerMessage")

    @property
    def inboxes(self) -> QuerySet[Any]:
        """All inboxes."""
        return self._inbox_model._default_manager.using(self.using)

    @property
    def members(self) -> QuerySet[Any]:
        """All members of all groups."""
        return self._member_model._default_manager.using(self.using)

    @property
    def messages(self) -> QuerySet[Any]:
        """All letters that wait."""
        return self._message_model._default_manager.using(self.using)

    # Sending

    def post(self, letters: Sequence[Letter]) -> list[bool]:
        """Write letters to the processes that they are for, all in one transaction.

        A group costs one row for each *process* that has members, never one for each member.

        Returns:
            for each letter, False if an address had no room: that copy is dropped.
        """
        groups = self._addresses_of_groups({letter.group for letter in letters if letter.group})
        routes = [
            groups.get(letter.group, {})
            if letter.group
            else {address_of(letter.channel): [letter.channel]}
            for letter in letters
        ]
        addresses = set(chain.from_iterable(routes))
        if not addresses:
            return [True] * len(letters)
        waiting = self._waiting(addresses)
        fits = []
        rows = []
        for letter, route in zip(letters, routes, strict=True):
            fit = True
            for address, channels in route.items():
                if waiting[address] >= max(map(self.capacity, channels)):
                    fit = False
                    continue
                waiting[address] += 1
                rows.append((address, pack(["message", channels, letter.body])))
            fits.append(fit)
        self._write(rows)
        return fits

    def _addresses_of_groups(self, groups: set[str]) -> dict[str, dict[str, list[str]]]:
        """Return, for each group, the foreign addresses with living members, and their channels."""
        found: dict[str, dict[str, list[str]]] = {}
        if groups:
            rows = self.database.read(lambda connection: self._members_of.rows(connection, groups))
            for group, address, channel in rows:
                found.setdefault(group, {}).setdefault(address, []).append(channel)
        return found

    @cached_property
    def _members_of(self) -> Compiled:
        leases = self.inboxes.filter(name=OuterRef("inbox"), expires__gt=DatabaseClock())
        living = (
            self.members.filter(Q(inbox=F("channel")) | Exists(leases))
            .filter(expires__gt=DatabaseClock())
            .exclude(inbox=self.inbox)
        )
        return Compiled(
            lambda groups: living.filter(group__in=groups).values_list("group", "inbox", "channel")
        )

    def _waiting(self, addresses: Collection[str]) -> Counter[str]:
        """Return how many letters wait at each address."""
        rows = self.database.read(lambda connection: self._counts.rows(connection, addresses))
        return Counter(dict(rows))

    @cached_property
    def _counts(self) -> Compiled:
        counts = self.messages.order_by().values_list("inbox").annotate(Count("pk"))
        return Compiled(lambda addresses: counts.filter(inbox__in=addresses))

    def _write(self, rows: Iterable[tuple[str, bytes]]) -> None:
        letters = list(rows)
        if letters:
            self.database.write(
                lambda connection: insert_messages(
                    connection, self._message_model, letters, self.expiry
                )
            )

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
        self._write(foreign)

    def _extend(self, groups_of: Mapping[str, list[str]]) -> None:
        for channel, groups in groups_of.items():
            self.members.filter(channel=channel, group__in=groups).update(
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
                self._delete(self.members.filter(channel=channel, group__in=groups))

        self.database.write(delete)
        self._write(foreign)

    def flush(self) -> None:
        """Delete every letter and membership, and tell the processes that live to do so too."""

        def delete(_: BaseDatabaseWrapper) -> None:
            self._delete(self.messages.all())
            self._delete(self.members.all())

        self.database.write(delete)
        others = self.inboxes.exclude(name=self.inbox).filter(expires__gt=DatabaseClock())
        names = self.database.read(lambda _: list(others.values_list("name", flat=True)))
        self._write((name, pack(["flush"])) for name in names)

    # Receiving

    def claim(self) -> tuple[list[bytes], bool]:
        """Take what waits in the process's inbox, oldest first.

        Returns:
            the letters, and whether there may be more.
        """
        rows = self._look(self.inbox, CLAIM_ROWS)
        if rows:
            keys = [key for key, _, _ in rows]
            self.database.write(lambda connection: self._delete_letters(connection, keys))
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
            if self.database.write(partial(self._delete_letters, keys=[key])) and fresh:
                taken.append(bytes(payload))
        return taken, len(rows) == limit

    def _look(self, address: str, limit: int) -> list[tuple[int, bytes, bool]]:
        if limit not in self._letters:
            fresh = ExpressionWrapper(Q(expires__gt=DatabaseClock()), BooleanField())
            rows = self.messages.order_by("pk").values_list("pk", "payload", fresh)
            self._letters[limit] = Compiled(lambda at: rows.filter(inbox__in=at)[:limit])
        letters = self._letters[limit]
        return self.database.read(lambda connection: letters.rows(connection, [address]))

    def _delete_letters(self, connection: BaseDatabaseWrapper, keys: Sequence[int]) -> int:
        return delete_keys(connection, self._message_model, keys)

    # Life and death

    def register(self, members: Iterable[tuple[str, str, float]]) -> None:
        """Write the process's lease and the (group, channel, seconds left) of its members."""
        ends = DatabaseClock() + Value(float(LEASE_SECONDS))
        row = self._inbox_model(name=self.inbox, expires=ends)

        def write(_: BaseDatabaseWrapper) -> None:
            if not self.inboxes.filter(name=self.inbox).update(expires=ends):
                self.inboxes.bulk_create([row], ignore_conflicts=True)

        self.database.write(write)
        self._insert_members(members)

    def renew(self) -> bool:
        """Renew the lease; False if it had ended, so that others may have trimmed the members."""
        own = self.inboxes.filter(name=self.inbox)
        ends = DatabaseClock() + Value(float(LEASE_SECONDS))
        running = own.filter(expires__gt=DatabaseClock())
        return bool(self.database.write(lambda _: running.update(expires=ends)))

    def _insert_members(self, members: Iterable[tuple[str, str, float]]) -> None:
        rows = [
            self._member_model(
                group=group,
                channel=channel,
                inbox=address_of(channel),
                expires=DatabaseClock() + Value(float(seconds)),
            )
            for group, channel, seconds in members
        ]
        if rows:
            self.database.write(
                lambda _: self.members.bulk_create(rows, batch_size=500, ignore_conflicts=True)
            )

    def retire(self) -> None:
        """Delete everything that is kept for this process: nobody writes to it from now on."""

        def delete(_: BaseDatabaseWrapper) -> None:
            self._delete(self.inboxes.filter(name=self.inbox))
            self._delete(self.members.filter(inbox=self.inbox))
            self._delete(self.messages.filter(inbox=self.inbox))

        self.database.write(delete)

    def trim(self) -> None:
        """Delete some of what has expired: letters, members, and inboxes with theirs."""
        now = self.database.read(lambda connection: _clock(connection))
        self._delete_some(self.messages.filter(expires__lt=now))
        self._delete_some(self.members.filter(expires__lt=now))
        dead = self.inboxes.filter(expires__lt=now - LEASE_SECONDS).values_list("name", flat=True)
        for name in self.database.read(lambda _: list(dead[:20])):
            self._bury(name, now - LEASE_SECONDS)

    def _bury(self, name: str, limit: float) -> None:
        """Delete an inbox that has been dead since before ``limit``, and its members.

        The inbox's row is locked first: its process, should it come back at this moment, finds
        its lease ended and writes its members anew, after this transaction.
        """
        lock = self.inboxes.filter(name=name, expires__lt=limit)
        members = self.members.filter(inbox=name)

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
