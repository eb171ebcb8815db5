"""Writing messages for other processes, and notifying them.

On PostgreSQL, ``NOTIFY`` tells the reading processes that there are messages.
It is sent after the commit and never inside the transaction, where it would hold a lock of the
whole cluster until the commit.
It names an inbox or a shared channel and carries no message; a process that misses it finds its
messages with its next poll.
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
from realtime.layers.sql import Compiled, LayerRows, insert_messages, notify, split_messages
from realtime.stores.database.access import DatabaseAccess
from realtime.stores.database.clock import DatabaseClock

__all__ = ["SHARED_CHANNEL", "MessageWriter", "announce", "inbox_channel"]

logger = logging.getLogger("realtime.layers")

SHARED_CHANNEL = "realtime_layer_shared"  # PostgreSQL's channel for messages on shared channels


def inbox_channel(inbox: str) -> str:
    """Return PostgreSQL's channel for the messages of one process."""
    return f"realtime_layer_{inbox}"


def announce(connection: BaseDatabaseWrapper, addresses: Collection[str]) -> None:
    """Notify the processes that read at these addresses; call this after the commit.

    On databases other than PostgreSQL it does nothing, because processes poll there.
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
    """Writes the messages that one process sends to others.

    Args:
        rows: the layer's tables.
        database: runs operations on these tables, in the layer's thread.
        inbox: the process's own inbox, to which nothing is written.
        expiry: seconds after which an unread message expires.
        capacity: returns how many messages may wait for a channel.
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

    def write(self, messages: Sequence[Message]) -> list[bool]:
        """Write messages for the processes that read them, in one transaction.

        A group message costs one row for each *process* with members, not for each member.

        Returns:
            for each message, False if an address was full; its copy for that address is dropped.
        """
        fits, rows = self.database.read(lambda connection: self._plan(connection, messages))
        self.write_rows(rows)
        return fits

    def write_rows(self, rows: Collection[tuple[str, bytes]]) -> None:
        """Write packed messages, each as (address, payload), and notify their readers."""
        if not rows:
            return
        rows = list(rows)
        is_postgresql = connections[self.rows.using].vendor == "postgresql"
        is_one_statement = is_postgresql and len(split_messages(rows)) == 1
        run = self.database.execute if is_one_statement else self.database.write
        run(lambda connection: self._insert(connection, rows))
        addresses = {address for address, _ in rows}
        try:
            self.database.read(lambda connection: announce(connection, addresses))
        except StoreError as error:  # the rows are written, so their readers' next poll finds them
            logger.debug("Messages could not be announced: %s", error)

    # In the thread of a sender

    def write_in_transaction(
        self, connection: BaseDatabaseWrapper, message: Message
    ) -> tuple[bool, set[str]]:
        """Write a message as a part of the transaction that is open on a connection.

        The transaction stays usable if this fails.

        Returns:
            whether every address had room, and the addresses to announce after the commit.

        Raises:
            StoreUnavailable: the database did not accept the message.
        """
        try:
            with transaction.atomic(using=connection.alias):
                if connection.vendor == "sqlite":
                    # Take the write lock before the reads: SQLite waits for it, but fails at once
                    # if a transaction has read, and another connection has written since.
                    self.rows.messages.filter(inbox="").update(inbox="")
                [fits], rows = self._plan(connection, [message])
                self._insert(connection, rows)
        except TransactionManagementError:
            raise  # the sender's transaction is broken already
        except Error as error:
            raise StoreUnavailable("DatabaseChannelLayer", str(error)) from error
        return fits, {address for address, _ in rows}

    # In either thread

    def _plan(
        self, connection: BaseDatabaseWrapper, messages: Sequence[Message]
    ) -> tuple[list[bool], list[tuple[str, bytes]]]:
        """Return, for each message, whether all its addresses have room, and the rows to write."""
        names = {message.group for message in messages if message.group}
        groups = self._addresses_of_groups(connection, names)
        routes = [
            groups.get(message.group, {})
            if message.group
            else {address_of(message.channel): [message.channel]}
            for message in messages
        ]
        addresses = set(chain.from_iterable(routes))
        if not addresses:
            return [True] * len(messages), []
        waiting = Counter(dict(self._counts.rows(connection, addresses)))
        fits = []
        rows = []
        for message, route in zip(messages, routes, strict=True):
            fit = True
            for address, channels in route.items():
                if waiting[address] >= max(map(self.capacity, channels)):
                    fit = False
                    continue
                waiting[address] += 1
                rows.append((address, pack(["message", channels, message.body])))
            fits.append(fit)
        return fits, rows

    def _addresses_of_groups(
        self, connection: BaseDatabaseWrapper, groups: set[str]
    ) -> dict[str, dict[str, list[str]]]:
        """Return, for each group, its members outside this process whose lease runs, by address."""
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

    def _insert(self, connection: BaseDatabaseWrapper, rows: Sequence[tuple[str, bytes]]) -> None:
        insert_messages(connection, self.rows.message_model, rows, self.expiry)
