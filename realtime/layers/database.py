"""A Channels layer over the Django database: no other server is needed.

::

    CHANNEL_LAYERS = {"default": {"BACKEND": "realtime.layers.DatabaseChannelLayer"}}

**In one process** a message goes straight to its readers, from any thread and any event loop; no
row is written and nothing is polled for them.

**Between processes** a message is a row that the reading process deletes.
Each process has an inbox, named at random and anew after a fork; the channels that it makes are
``specific.<inbox>!<random>``.
A group message costs one row for each other process with members, however many members they are;
processes that died are passed over once their lease of a minute has ended (``layers.tables``).
A channel that is not a process's, such as ``worker``, is read by whichever process asks first.

**One thread a process** (``layers.courier``), with its own connection, writes and polls, so that no
event loop waits for the database.
It polls only while somebody in the process waits or is in a group; a process that only sends polls
nothing.
On PostgreSQL it hears of its letters instead, where that is proved (``layers.listening``).
A database that is gone or locked makes ``send()``, ``group_send()``, ``group_add()`` and
``group_discard()`` raise ``StoreUnavailable`` within about five seconds; readers wait on and are
served when it is back.

**A send inside a transaction** of the sender's is a part of it (``layers.transactions``): its row
is written there, in the sender's thread, and nobody reads it before the commit, in this process
neither.

An in-memory SQLite database has one process, so that nothing is written to it at all: the layer
works unchanged in a project's tests.

Guarantees: at most once; in order from one sender to one process; a message waits unread for
``expiry`` seconds at least.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import secrets
import time
import weakref
from concurrent.futures import Future
from typing import Any, ClassVar, cast

from channels.exceptions import ChannelFull, MessageTooLarge
from channels.layers import BaseChannelLayer
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.exceptions import StoreUnavailable
from realtime.layers.local import LocalChannels
from realtime.layers.messages import (
    Flush,
    Join,
    Leave,
    Message,
    address_of,
    is_inbox,
    new_inbox,
    pack,
    unpack,
)
from realtime.layers.tables import LayerTables
from realtime.layers.transactions import after_commit, in_thread_of_sender, is_in_transaction
from realtime.layers.worker import DatabaseWorker, Task
from realtime.stores.sqlite_checks import is_in_memory

__all__ = ["DatabaseChannelLayer"]

ANSWER_SECONDS = 5.0  # the longest that a caller waits for the database
GOODBYE_SECONDS = 1.0  # the longest that a process which exits waits for it

_layers: weakref.WeakSet[DatabaseChannelLayer] = weakref.WeakSet()


class DatabaseChannelLayer(BaseChannelLayer):
    """Channels, groups and their messages, in memory and in a Django database.

    Args:
        expiry: seconds that an unread message is kept.
        capacity: unread messages that a channel holds, in its process's memory and, as an address
            (a process, or a channel such as ``worker``), in the database.
        channel_capacity: capacities of channels by glob or compiled pattern.
        using: the database alias.
        group_expiry: seconds that a membership lasts after the last ``group_add()``.
        polling_interval: seconds between two looks for messages of other processes, where they are
            not heard of; less than half of it while messages arrive.

    Raises:
        ImproperlyConfigured: one of them has no meaning; the text says which, and what it may be.
    """

    extensions: ClassVar[list[str]] = ["groups", "flush"]
    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge  # there is no limit of the layer's own

    def __init__(
        self,
        expiry: int = 60,
        capacity: int = 1000,
        channel_capacity: dict[Any, int] | None = None,
        using: str = "default",
        group_expiry: int = 86_400,
        polling_interval: float = 0.05,
    ) -> None:
        seconds = {
            "expiry": expiry,
            "group_expiry": group_expiry,
            "polling_interval": polling_interval,
        }
        for name, value in seconds.items():
            _require_seconds(name, value)
        _require_messages("capacity", capacity)
        _require_capacities(channel_capacity)
        if using not in connections.settings:
            known = ", ".join(map(repr, connections.settings))
            raise _refused("using", using, f"is no alias in settings.DATABASES; it has {known}")
        super().__init__(expiry=expiry, capacity=capacity)
        # The base class declares the form of its argument and uses the compiled one.
        self.channel_capacity = cast("Any", self.compile_capacities(channel_capacity or {}))
        self.using = using
        self.group_expiry = group_expiry
        self.polling_interval = polling_interval
        self._begin()
        _layers.add(self)

    def _begin(self) -> None:
        """Become a process of its own, in no group and with an inbox that nobody knows."""
        self.inbox = new_inbox()
        ourselves = weakref.ref(self)  # the thread must not keep the layer

        def capacity(channel: str) -> int:
            layer = ourselves()
            return 0 if layer is None else layer.get_capacity(channel)

        self._local = LocalChannels(self.expiry, self.group_expiry, capacity)
        tables = LayerTables(self.using, self.inbox, self.expiry, self.group_expiry, capacity)
        self._courier = DatabaseWorker(tables, self._local, self.polling_interval)
        # A layer that is dropped without close() (settings changed in a test) must not poll on.
        self._finalizer = weakref.finalize(self, self._courier.stop)
        self._finalizer.atexit = False

    # Channels

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Put a message on a channel; it is read once, by one reader.

        From ``async_to_sync()`` inside ``atomic()`` of the layer's alias it is a part of that
        transaction: nobody gets it before the commit, and nobody at all after a rollback.
        Expiry counts from the call, and of a channel of this process, a message for which there
        is no room after the commit is dropped.

        Raises:
            ChannelFull: the channel holds ``capacity`` unread messages; this one is dropped.
            StoreUnavailable: the database did not take it; it may arrive all the same if the
                answer was what got lost.
            TypeError: the name is not valid, or a value cannot be packed.
        """
        self.require_valid_channel_name(channel)
        letter = Message(_body(message), channel=channel)
        fits = await in_thread_of_sender(lambda: self._enclose(letter))
        if fits is None:
            if address_of(channel) == self.inbox or self._alone():
                fits = self._local.put(channel, letter.body)
            else:
                fits = self._local.offer(channel, letter.body) or await self._have(letter)
        if not fits:
            raise ChannelFull(channel)

    async def receive(self, channel: str) -> dict[str, Any]:
        """Return the channel's next message; wait for one if there is none.

        Raises:
            ValueError: ``new_channel()`` made the channel in another process.
        """
        self.require_valid_channel_name(channel)
        address = address_of(channel)
        shared = not is_inbox(address, channel)
        if not shared and address != self.inbox:
            raise ValueError(
                f"{channel} belongs to another process, or to this one before a fork; receive() "
                "reads channels that new_channel() made in this process and such as 'worker'"
            )
        if self._alone():
            body = await self._local.get(channel, lambda: None)
        else:
            courier = self._courier

            def give_back(body: bytes) -> None:
                courier.submit(Message(body, channel=channel))

            body = await self._local.get(
                channel, lambda: courier.look(now=shared), give_back if shared else None
            )
        return cast("dict[str, Any]", unpack(body))

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return the name of a new channel that this process reads."""
        channel = f"{prefix}.{self.inbox}!{secrets.token_hex(8)}"
        self.require_valid_channel_name(channel)
        return channel

    # Groups

    async def group_add(self, group: str, channel: str) -> None:
        """Make a channel a member of a group, for ``group_expiry`` seconds from now.

        When it returns, every process sees the member: at once, inside ``atomic()`` too, where
        SQLite's lock makes it fail.

        Raises:
            StoreUnavailable: the database did not take it; the channel is no member.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        own = address_of(channel) == self.inbox
        if self._alone():
            self._local.join(group, channel)
            return
        new = self._local.join(group, channel) if own else False
        try:
            await self._have(Join(group, channel, new=new))
        except BaseException:
            if new:
                self._local.leave(group, channel)
            raise

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group if it is a member.

        Raises:
            StoreUnavailable: the database did not take it; what other processes send to the group
                may go on arriving.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        self._local.leave(group, channel)
        if not self._alone():
            await self._have(Leave(group, channel))

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Put a message on every channel of a group; channels that are full miss it.

        Inside ``atomic()`` it is as with ``send()``; the members in other processes are those that
        the transaction sees.

        Raises:
            StoreUnavailable: the database did not take it; the members in this process have it,
                unless it was sent in a transaction.
            TypeError: the name is not valid, or a value cannot be packed.
        """
        self.require_valid_group_name(group)
        letter = Message(_body(message), group=group)
        if await in_thread_of_sender(lambda: self._enclose(letter)) is None:
            self._local.publish(group, letter.body)
            if not self._alone():
                await self._have(letter)

    # Flush, and the end

    async def flush(self) -> None:
        """Remove every message and every membership, of all processes.

        Other processes forget what they have in memory within their polling interval.
        """
        self._local.clear()
        if not self._alone():
            await self._have(Flush())

    async def close(self) -> None:
        """Leave all groups, drop what is unread and end the thread; the layer can be used again."""
        self._local.clear()
        thread = self._courier.stop()
        if thread is not None:
            await asyncio.to_thread(thread.join, ANSWER_SECONDS)

    # Names: the pattern of Channels ends in "$" and its "\w" is not ASCII.

    def require_valid_channel_name(self, name: object, receive: bool = False) -> bool:
        """Return True.

        Raises:
            TypeError: the name is not valid.
        """
        super().require_valid_channel_name(name, receive=receive)
        return self._ascii(str(name), "Channel")

    def require_valid_group_name(self, name: object) -> bool:
        """Return True.

        Raises:
            TypeError: the name is not valid.
        """
        super().require_valid_group_name(name)
        return self._ascii(str(name), "Group")

    def _ascii(self, name: str, kind: str) -> bool:
        if name.endswith("\n") or not name.isascii():
            raise TypeError(self.invalid_name_error.format(kind))
        return True

    # Inside

    def _alone(self) -> bool:
        """Tell whether no other process can use this database, so that nothing is written there."""
        connection = connections[self.using]
        return connection.vendor == "sqlite" and cast("Any", connection).is_in_memory_db()

    def _enclose(self, letter: Message) -> bool | None:
        """Make a letter a part of this thread's transaction; None if there is none.

        Returns:
            False if an address had no room.
        """
        connection = connections[self.using]
        if not is_in_transaction(connection):
            return None
        fits, addresses = True, set[str]()
        if not self._alone() and address_of(letter.channel) != self.inbox:
            fits, addresses = self._courier.tables.letters.enclose(connection, letter)
        if fits or letter.group:
            after_commit(self._courier, letter, addresses)
        return fits

    async def _have(self, task: Task) -> bool:
        """Have a task done at the database; tell whether there was room."""
        future: Future[bool] = self._courier.submit(task)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), ANSWER_SECONDS)
        except TimeoutError:
            raise StoreUnavailable(
                type(self).__name__, f"no answer within {ANSWER_SECONDS:g} seconds"
            ) from None

    # System checks

    def unshared(self) -> str:
        """Return the layer's name and why processes cannot share it, for a message; "" if they can.

        The system checks call this method of any layer that has it.
        """
        if not is_in_memory(self.using):
            return ""
        return f"{type(self).__name__} on {self.using!r}, which is SQLite in memory,"


def _refused(name: str, value: object, reason: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"DatabaseChannelLayer's {name} is {value!r}, which {reason}")


def _require_seconds(name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 < cast("float", value) < math.inf):
        raise _refused(name, value, "is no time; give seconds, more than 0")


def _require_messages(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refused(name, value, "is no number of messages; give a whole number from 1 on")


def _require_capacities(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise _refused("channel_capacity", value, "is no dict; give {glob or pattern: messages}")
    for pattern, capacity in value.items():
        if not (isinstance(pattern, str) or hasattr(pattern, "match")):
            raise _refused("channel_capacity", value, f"has {pattern!r}, no glob and no pattern")
        _require_messages(f"channel_capacity[{pattern!r}]", capacity)


def _body(message: dict[str, Any]) -> bytes:
    if not isinstance(message, dict):
        raise TypeError(f"a message is a dict, not {type(message).__name__}")
    return pack(message)


# Connections of threads that stayed behind in the parent. Closing them here could end the
# parent's session or drop SQLite's locks; they are kept so that nothing does.
_abandoned: list[BaseDatabaseWrapper | object] = []


def _after_fork() -> None:
    for layer in list(_layers):
        layer._finalizer.detach()
        _abandoned.append(layer._courier)
        layer._begin()


def _at_exit() -> None:
    """Take back the rows of this process, so that nobody writes to it for another minute."""
    threads = [layer._courier.stop() for layer in list(_layers)]
    deadline = time.monotonic() + GOODBYE_SECONDS
    for thread in threads:
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
