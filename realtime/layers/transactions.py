"""Messages that are sent inside the sender's transaction, and delivered after its commit.

``atomic()`` belongs to synchronous code and its thread; a coroutine runs in another thread, with
its own connections.
While synchronous code waits for a coroutine in ``async_to_sync()``, its thread runs functions that
the coroutine passes to it, and these see the transaction.
A coroutine cannot be inside a transaction in any other way, because Django has none for
asynchronous code.
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
    """Tell whether the connection is in a transaction whose commit a message must wait for.

    The transactions that a ``TestCase`` opens around a test do not count, because they are never
    committed.
    """
    return connection.in_atomic_block and not all(
        getattr(block, "_from_testcase", False) for block in connection.atomic_blocks
    )


async def in_thread_of_sender(function: Callable[[], T]) -> T | None:
    """Call a function in the thread that waits for this coroutine; return None if none does.

    It costs 60 µs if a thread waits, and 3 µs otherwise.
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
        return None  # this task has outlived the call of async_to_sync()


def _is_waited_for() -> bool:
    # These attributes of asgiref are private. Reading them takes 3 µs; a function call in the
    # waiting thread takes 60 µs.
    executors: Any = getattr(AsyncToSync, "executors", None)
    loops: Any = getattr(AsyncToSync, "loop_thread_executors", None)
    if executors is None or loops is None:
        return True  # another version of asgiref: try the thread
    return getattr(executors, "current", None) is not None or asyncio.get_running_loop() in loops


def after_commit(worker: DatabaseWorker, message: Message, addresses: set[str]) -> None:
    """Deliver a message in this process and announce it to others, after the commit.

    Call it in the thread that is in the transaction.

    Args:
        worker: the layer's worker.
        message: the message.
        addresses: the addresses for which the transaction wrote the message; empty if it is only
            for this process.
    """
    item = (worker, message, frozenset(addresses))
    on_commit_once(_AfterCommit, [item], using=worker.storage.using)


class _AfterCommit(CommitHook[tuple[DatabaseWorker, Message, frozenset[str]]]):
    """Delivers committed messages in the order in which they were sent."""

    def run(self) -> None:
        written: dict[DatabaseWorker, set[str]] = {}
        for worker, message, addresses in self.items:
            written.setdefault(worker, set()).update(addresses)
            if message.group:
                worker.local.publish(message.group, message.body)
            elif not addresses:  # otherwise the message waits in the database
                worker.local.put(message.channel, message.body)  # a full channel misses it
        for worker, written_to in written.items():
            if not written_to.isdisjoint(worker.local.shared_readers()):
                worker.poll(now=True)
            announce(connections[worker.storage.using], written_to)
