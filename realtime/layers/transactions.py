"""Letters that are sent inside the sender's transaction: part of it, and known after its commit.

``atomic()`` belongs to synchronous code and its thread, and a coroutine runs in another one, with
connections of its own.
Where synchronous code waits for the coroutine in ``async_to_sync()``, its thread runs what the
coroutine gives it; there the transaction is seen.
No other coroutine can be inside one: Django has no transactions for asynchronous code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import AsyncToSync, sync_to_async
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.layers.messages import Message
from realtime.layers.outgoing import announce
from realtime.layers.worker import DatabaseWorker
from realtime.on_commit import CommitHook, on_commit_once

__all__ = ["after_commit", "in_thread_of_sender", "is_in_transaction"]

T = TypeVar("T")


def is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether there is a commit to wait for.

    The transactions that a ``TestCase`` opens around a test do not count: they are never committed.
    """
    return connection.in_atomic_block and not all(
        getattr(block, "_from_testcase", False) for block in connection.atomic_blocks
    )


async def in_thread_of_sender(function: Callable[[], T]) -> T | None:
    """Run a function in the thread that waits for this coroutine; None if there is none.

    Only then it costs anything: 60 µs.
    """
    if not _is_waited_for():
        return None
    begun = False

    def begin() -> T:
        nonlocal begun
        begun = True
        return function()

    try:
        return await sync_to_async(begin, thread_sensitive=True)()
    except RuntimeError:
        if begun:
            raise
        return None  # a task that outlived the call: nobody waits any more


def _is_waited_for() -> bool:
    # Asked of asgiref's inside, since its answer costs 3 µs and a look in that thread 60.
    executors: Any = getattr(AsyncToSync, "executors", None)
    loops: Any = getattr(AsyncToSync, "loop_thread_executors", None)
    if executors is None or loops is None:
        return True  # another version: go and look
    return getattr(executors, "current", None) is not None or asyncio.get_running_loop() in loops


def after_commit(courier: DatabaseWorker, letter: Message, addresses: set[str]) -> None:
    """Have the letter delivered in this process, and announced in others, after the commit.

    Call it in the thread that is in the transaction.

    Args:
        courier: the layer's.
        letter: what was sent.
        addresses: where it was written, in the transaction; empty if it is for this process alone.
    """
    item = (courier, letter, frozenset(addresses))
    on_commit_once(_AfterCommit, [item], using=courier.tables.using)


class _AfterCommit(CommitHook[tuple[DatabaseWorker, Message, frozenset[str]]]):
    """Delivers messages in this process and announces them in others, in the order of sending."""

    def run(self) -> None:
        written: dict[DatabaseWorker, set[str]] = {}
        for worker, message, addresses in self.items:
            written.setdefault(worker, set()).update(addresses)
            if message.group:
                worker.local.publish(message.group, message.body)
            elif not addresses:  # otherwise it waits in the database for its reader
                worker.local.put(message.channel, message.body)  # a full channel drops it
        for worker, written_to in written.items():
            if not written_to.isdisjoint(worker.local.wanted()):
                worker.look(now=True)
            announce(connections[worker.tables.using], written_to)
