"""A Channels layer over the Django database; it needs no other server.

::

    CHANNEL_LAYERS = {"default": {"BACKEND": "realtime.layers.DatabaseChannelLayer"}}

**Within a process** a message goes straight to its readers, from any thread and any event loop,
without a row and without polling.

**Between processes** a message is a row, which the reading process deletes.
Each process has an inbox with a random name, and a forked child gets a new one; the channels that
the process makes are called ``specific.<inbox>!<random>``.
A group message costs one row for each other process with members, however many members that
process has.
A process that died gets no more rows once its lease of one minute has expired (``layers.storage``).
Any other channel, such as ``worker``, is shared: each message is read by the first process that
asks for it.

**One thread per process** (``layers.worker``), with its own connection, writes and polls, so that
no event loop waits for the database.
It polls only while a reader waits or a channel of the process is in a group; a process that only
sends does not poll.
On PostgreSQL the thread is notified of messages instead, where LISTEN is verified to work
(``layers.notify``).
While the database is unreachable or locked, ``send()``, ``group_send()``, ``group_add()`` and
``group_discard()`` raise ``StoreUnavailable`` within about five seconds; readers keep waiting and
get their messages when it is back.

**A send inside a transaction** of the sender is part of it (``layers.transactions``): the sender's
thread writes the row in the transaction, and no reader gets the message before the commit, not even
in the same process.

An in-memory SQLite database belongs to one process, so the layer writes nothing to it: it works
unchanged in a project's tests.

Guarantees: at most once; in order from one sender to one process; an unread message is kept for at
least ``expiry`` seconds.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import secrets
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, ClassVar, cast

from channels.exceptions import ChannelFull, MessageTooLarge
from channels.layers import BaseChannelLayer
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.dispatch import receiver

from realtime.exceptions import StoreUnavailable
from realtime.layers.local import LocalChannels
from realtime.layers.messages import (
    Flush,
    Join,
    Leave,
    Message,
    address_of,
    new_inbox,
    pack,
    unpack,
)
from realtime.layers.storage import LayerStorage
from realtime.layers.transactions import after_commit, in_thread_of_sender, is_in_transaction
from realtime.layers.worker import DatabaseWorker, Operation
from realtime.stores.database.dropping import before_drop
from realtime.stores.sqlite_checks import is_in_memory
from realtime.threads import after_fork

__all__ = ["DatabaseChannelLayer"]

ANSWER_SECONDS = 5.0  # the longest that a caller waits for the database
EXIT_SECONDS = 1.0  # the longest that a process waits for the database at exit

_layers: weakref.WeakSet[DatabaseChannelLayer] = weakref.WeakSet()


class DatabaseChannelLayer(BaseChannelLayer):
    """A channel layer in memory and in a Django database.

    Args:
        expiry: seconds after which an unread message expires.
        capacity: unread messages that a channel holds in its process's memory, and that an address
            (a process, or a shared channel such as ``worker``) holds in the database.
        channel_capacity: different capacities for some channels, by glob or compiled pattern.
        using: the database alias.
        group_expiry: seconds that a membership lasts after the last ``group_add()``.
        polling_interval: seconds between polls for messages of other processes, where LISTEN is not
            used; less than half of that while messages arrive.

    Raises:
        ImproperlyConfigured: an option is invalid; the text says which, and what is allowed.
    """

    extensions: ClassVar[list[str]] = ["groups", "flush"]
    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge  # never raised: the layer has no limit of its own

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
            raise _refused("using", using, f"is not an alias in settings.DATABASES; it has {known}")
        super().__init__(expiry=expiry, capacity=capacity)
        # The base class declares the type of the argument but reads the compiled form.
        self.channel_capacity = cast("Any", self.compile_capacities(channel_capacity or {}))
        self.using = using
        self.group_expiry = group_expiry
        self.polling_interval = polling_interval
        self._reset()
        _layers.add(self)

    def _reset(self) -> None:
        """Create this process's state: a new inbox, no groups, no messages and no thread."""
        self.inbox = new_inbox()
        reference = weakref.ref(self)  # the thread must not keep the layer alive

        def capacity(channel: str) -> int:
            layer = reference()
            return 0 if layer is None else layer.get_capacity(channel)

        self._local = LocalChannels(self.expiry, self.group_expiry, capacity)
        storage = LayerStorage(self.using, self.inbox, self.expiry, self.group_expiry, capacity)
        self._worker = DatabaseWorker(storage, self._local, self.polling_interval)
        # Stops the thread of a layer that is dropped without close(), as when a test changes the
        # settings.
        self._finalizer = weakref.finalize(self, self._worker.stop)
        self._finalizer.atexit = False

    # Channels

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send a message to a channel; one reader receives it.

        If it is called through ``async_to_sync()`` inside ``atomic()`` of the layer's alias, the
        message is part of that transaction: it is delivered after the commit, or never after a
        rollback.
        It expires ``expiry`` seconds after the call.
        If the channel belongs to this process and is full after the commit, the message is dropped.

        Raises:
            ChannelFull: the channel holds ``capacity`` unread messages; this one is dropped.
            StoreUnavailable: the database did not confirm the message; it may still arrive if only
                the answer was lost.
            TypeError: the name is invalid, or a value cannot be packed.
        """
        self.require_valid_channel_name(channel)
        outgoing = Message(_body(message), channel=channel)
        fits = await in_thread_of_sender(lambda: self._send_in_transaction(outgoing))
        if fits is None:
            if address_of(channel) == self.inbox or self._is_in_memory():
                fits = self._local.put(channel, outgoing.body)
            else:
                fits = self._local.offer(channel, outgoing.body) or await self._execute(outgoing)
        if not fits:
            raise ChannelFull(channel)

    async def receive(self, channel: str) -> dict[str, Any]:
        """Return the channel's next message; wait for one if there is none.

        Raises:
            ValueError: ``new_channel()`` made the channel in another process, or of another layer.
        """
        self.require_valid_channel_name(channel)
        address = address_of(channel)
        is_shared = "!" not in channel
        if not is_shared and address != self.inbox:
            raise ValueError(
                f"{channel} belongs to another process or layer, or to this one before a fork; "
                "receive from "
                "a channel that new_channel() made in this process, or a shared one like 'worker'"
            )
        if self._is_in_memory():
            body = await self._local.get(channel, lambda: None)
        else:
            worker = self._worker

            def give_back(body: bytes) -> None:
                worker.submit(Message(body, channel=channel))

            body = await self._local.get(
                channel, lambda: worker.poll(now=is_shared), give_back if is_shared else None
            )
        return cast("dict[str, Any]", unpack(body))

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return the name of a new channel, which only this process reads."""
        channel = f"{prefix}.{self.inbox}!{secrets.token_hex(8)}"
        self.require_valid_channel_name(channel)
        return channel

    # Groups

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel to a group, for ``group_expiry`` seconds from now.

        When this returns, all processes see the member, even if the caller is inside ``atomic()``.
        On SQLite the call fails inside ``atomic()``, because that transaction holds the write lock.

        Raises:
            StoreUnavailable: the database did not accept it; the channel is not a member.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        is_own = address_of(channel) == self.inbox
        if self._is_in_memory():
            self._local.join(group, channel)
            return
        is_new = self._local.join(group, channel) if is_own else False
        try:
            await self._execute(Join(group, channel, new=is_new))
        except BaseException:
            if is_new:
                self._local.leave(group, channel)
            raise

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group if it is a member.

        Raises:
            StoreUnavailable: the database did not accept it; group messages of other processes may
                still arrive.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        self._local.leave(group, channel)
        if not self._is_in_memory():
            await self._execute(Leave(group, channel))

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send a message to all channels of a group; full channels miss it.

        Inside ``atomic()`` it behaves like ``send()``; the members in other processes are those
        that the transaction sees.

        Raises:
            StoreUnavailable: the database did not accept the message; unless it was sent inside a
                transaction, the members in this process have received it.
            TypeError: the name is invalid, or a value cannot be packed.
        """
        self.require_valid_group_name(group)
        outgoing = Message(_body(message), group=group)
        if await in_thread_of_sender(lambda: self._send_in_transaction(outgoing)) is None:
            self._local.publish(group, outgoing.body)
            if not self._is_in_memory():
                await self._execute(outgoing)

    # Flush and close

    async def flush(self) -> None:
        """Remove every message and every membership of all processes.

        Other processes clear their memory within their polling interval.
        """
        self._local.clear()
        if not self._is_in_memory():
            await self._execute(Flush())

    async def close(self) -> None:
        """Leave all groups, drop unread messages and stop the thread.

        The layer can be used again.
        """
        self._local.clear()
        thread = self._worker.stop()
        if thread is not None:
            await asyncio.to_thread(thread.join, ANSWER_SECONDS)

    # Names. The pattern of Channels accepts too much: "$" matches before a newline, and "\w"
    # matches letters that are not ASCII.

    def require_valid_channel_name(self, name: object, receive: bool = False) -> bool:
        """Return True.

        Raises:
            TypeError: the name is invalid.
        """
        super().require_valid_channel_name(name, receive=receive)
        return self._require_ascii(str(name), "Channel")

    def require_valid_group_name(self, name: object) -> bool:
        """Return True.

        Raises:
            TypeError: the name is invalid.
        """
        super().require_valid_group_name(name)
        return self._require_ascii(str(name), "Group")

    def _require_ascii(self, name: str, kind: str) -> bool:
        if name.endswith("\n") or not name.isascii():
            raise TypeError(self.invalid_name_error.format(kind))
        return True

    # Internals

    def _is_in_memory(self) -> bool:
        """Tell whether the database is in this process's memory; then nothing is written to it."""
        connection = connections[self.using]
        return connection.vendor == "sqlite" and cast("Any", connection).is_in_memory_db()

    def _send_in_transaction(self, message: Message) -> bool | None:
        """Make a message part of this thread's transaction.

        Returns:
            None if no transaction is open; otherwise whether every address had room.
        """
        connection = connections[self.using]
        if not is_in_transaction(connection):
            return None
        fits, addresses = True, set[str]()
        if not self._is_in_memory() and address_of(message.channel) != self.inbox:
            outgoing = self._worker.storage.outgoing
            fits, addresses = outgoing.write_in_transaction(connection, message)
        if fits or message.group:
            after_commit(self._worker, message, addresses)
        return fits

    async def _execute(self, operation: Operation) -> bool:
        """Execute an operation in the worker; return whether every address had room."""
        future: Future[bool] = self._worker.submit(operation)
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
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and 0 < cast("float", value) < math.inf):
        raise _refused(name, value, "is not a duration; give a number of seconds above 0")


def _require_messages(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refused(name, value, "is not a number of messages; give an integer above 0")


def _require_capacities(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise _refused("channel_capacity", value, "is not a dict; give {glob or pattern: messages}")
    for pattern, capacity in value.items():
        if not (isinstance(pattern, str) or hasattr(pattern, "match")):
            raise _refused(
                "channel_capacity", value, f"has the key {pattern!r}; give a glob or a pattern"
            )
        _require_messages(f"channel_capacity[{pattern!r}]", capacity)


def _body(message: dict[str, Any]) -> bytes:
    if not isinstance(message, dict):
        raise TypeError(f"the message is {type(message).__name__}; send a dict")
    return pack(message)


# Workers of the parent process, kept so that they are never garbage-collected: closing their
# connections in a forked child could end the parent's session or drop its SQLite locks.
_abandoned: list[DatabaseWorker] = []


def _reset_after_fork() -> None:
    for layer in list(_layers):
        layer._finalizer.detach()
        _abandoned.append(layer._worker)
        layer._reset()


def _at_exit() -> None:
    """Remove the rows of this process, so that others do not write to it for another minute."""
    _stop(list(_layers), EXIT_SECONDS)


@receiver(before_drop)
def _before_drop(*, alias: str, **_: object) -> None:
    """Close the connections of the threads; a thread starts again when it is needed."""
    _stop([layer for layer in list(_layers) if layer.using == alias], ANSWER_SECONDS)


def _stop(layers: Sequence[DatabaseChannelLayer], seconds: float) -> None:
    threads = [layer._worker.stop() for layer in layers]
    deadline = time.monotonic() + seconds
    for thread in threads:
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))


after_fork(_reset_after_fork)
atexit.register(_at_exit)
