"""Writing letters: to which addresses, whether there is room, and who is told of them.

On PostgreSQL the processes that read at the addresses are told by ``NOTIFY``, after the letters
were committed and never in their transaction: it takes a lock of the whole cluster until the
commit.
It names an inbox or a channel and carries nothing else; a process that misses it finds its letters
when it looks for them the next time.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from itertools import chain

from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count, Exists, F, OuterRef, Q
from django.db.transaction import TransactionManagementError

from realtime.exceptions import StoreError, StoreUnavailable
from realtime.layers.messages import Message, address_of, is_inbox_name, pack
from realtime.layers.sql import INSERT_ROWS, Compiled, LayerRows, insert_messages, notify
from realtime.stores.database.access import DatabaseAccess
from realtime.stores.database.clock import DatabaseClock

__all__ = ["SHARED_CHANNEL", "MessageWriter", "announce", "inbox_channel"]

logger = logging.getLogger("realtime.layers")

SHARED_CHANNEL = "realtime_layer_shared"  # PostgreSQL's name for letters that any process may read


def inbox_channel(inbox: str) -> str:
    """Return PostgreSQL's name for the letters of one process."""
    return f"realtime_layer_{inbox}"


def announce(connection: BaseDatabaseWrapper, addresses: Collection[str]) -> None:
    """Tell the processes that read at these addresses that letters wait; call it after the commit.

    Where there is no PostgreSQL it does nothing: they look by themselves.
    """
    if connection.vendor == "postgresql" and addresses:
        notify(
            connection,
            [
                (inbox_channel(address), "")
                if is_inbox_name(address)
                else (SHARED_CHANNEL, address)
                for address in addresses
            ],
        )


class MessageWriter:
    """Writes the letters of one process.

    Args:
        rows: the tables.
        database: how the layer's thread uses them.
        inbox: the process's inbox, to which nothing is written.
        expiry: seconds that a letter waits.
        capacity: tells how many letters may wait for a channel.
    """

    def __init__(
        self,
        rows: LayerRows,
        database: DatabaseAccess,
        inbox: str,
        expiry: float,
        capacity: Callable[[str], int],
    ) -> None:
        self.rows = rows
        self.database = database
        self.inbox = inbox
        self.expiry = expiry
        self.capacity = capacity

    # In the layer's thread

    def post(self, letters: Sequence[Message]) -> list[bool]:
        """Write letters to the processes that they are for, all in one transaction.

        A group costs one row for each *process* that has members, never one for each member.

        Returns:
            for each letter, False if an address had no room: that copy is dropped.
        """
        fits, rows = self.database.read(lambda connection: self._plan(connection, letters))
        self.write(rows)
        return fits

    def write(self, rows: Collection[tuple[str, bytes]]) -> None:
        """Write packed letters, each with its address, and tell who reads there."""
        if not rows:
            return
        letters = list(rows)
        one = len(letters) <= INSERT_ROWS and connections[self.rows.using].vendor == "postgresql"
        run = self.database.execute if one else self.database.write
        run(lambda connection: self._insert(connection, letters))
        addresses = {address for address, _ in letters}
        try:
            self.database.read(lambda connection: announce(connection, addresses))
        except StoreError as error:  # they are written: who reads there finds them all the same
            logger.debug("Letters could not be announced: %s", error)

    # In the thread of a sender

    def enclose(self, connection: BaseDatabaseWrapper, letter: Message) -> tuple[bool, set[str]]:
        """Write a letter as a part of the transaction that is open on a connection.

        Whether it fails or not, the transaction can go on.

        Returns:
            False if an address had no room, and the addresses to announce after the commit.

        Raises:
            StoreUnavailable: the database did not take it.
        """
        try:
            with transaction.atomic(using=connection.alias):
                [fits], rows = self._plan(connection, [letter])
                self._insert(connection, rows)
        except TransactionManagementError:
            raise  # the sender's own: its transaction is broken
        except Error as error:
            raise StoreUnavailable("DatabaseChannelLayer", str(error)) from error
        return fits, {address for address, _ in rows}

    # In either

    def _plan(
        self, connection: BaseDatabaseWrapper, letters: Sequence[Message]
    ) -> tuple[list[bool], list[tuple[str, bytes]]]:
        """Return, for each letter, whether there is room for it; and the rows to write."""
        named = {letter.group for letter in letters if letter.group}
        groups = self._addresses_of_groups(connection, named)
        routes = [
            groups.get(letter.group, {})
            if letter.group
            else {address_of(letter.channel): [letter.channel]}
            for letter in letters
        ]
        addresses = set(chain.from_iterable(routes))
        if not addresses:
            return [True] * len(letters), []
        waiting = Counter(dict(self._counts.rows(connection, addresses)))
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
        return fits, rows

    def _addresses_of_groups(
        self, connection: BaseDatabaseWrapper, groups: set[str]
    ) -> dict[str, dict[str, list[str]]]:
        """Return, for each group, the foreign addresses with living members, and their channels."""
        found: dict[str, dict[str, list[str]]] = {}
        if groups:
            for group, address, channel in self._members_of.rows(connection, groups):
                found.setdefault(group, {}).setdefault(address, []).append(channel)
        return found

    @cached_property
    def _members_of(self) -> Compiled:
        leases = self.rows.inboxes.filter(name=OuterRef("inbox"), expires__gt=DatabaseClock())
        living = (
            self.rows.members.filter(Q(inbox=F("channel")) | Exists(leases))
            .filter(expires__gt=DatabaseClock())
            .exclude(inbox=self.inbox)
        )
        return Compiled(
            lambda groups: living.filter(group__in=groups).values_list("group", "inbox", "channel")
        )

    @cached_property
    def _counts(self) -> Compiled:
        counts = self.rows.messages.order_by().values_list("inbox").annotate(Count("pk"))
        return Compiled(lambda addresses: counts.filter(inbox__in=addresses))

    def _insert(
        self, connection: BaseDatabaseWrapper, letters: Sequence[tuple[str, bytes]]
    ) -> None:
        insert_messages(connection, self.rows.message_model, letters, self.expiry)
