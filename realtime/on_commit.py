"""Collect the work of a savepoint in one ``on_commit()`` callback."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from django.db import connections, transaction

__all__ = ["CommitHook", "on_commit_once"]

logger = logging.getLogger("realtime")

T = TypeVar("T")


class CommitHook(ABC, Generic[T]):
    """An ``on_commit()`` callback that collects items, runs once and never raises.

    A subclass processes the items in ``run()``.

    Attributes:
        items: the items that one savepoint added, in order.
        keys: the keys of the items, such as their topics; see ``on_commit_once()``.
        done: True once the callback has run; from then on, nothing can be added.
    """

    def __init__(self) -> None:
        self.items: list[T] = []
        self.keys: set[str] = set()
        self.done = False

    def __call__(self) -> None:
        """Run once; log an error instead of raising it, because the transaction is committed."""
        if self.done:
            return
        self.done = True
        try:
            self.run()
        except Exception:
            logger.exception("%s failed after a commit", type(self).__qualname__)

    def add(self, items: Iterable[T], keys: Iterable[str]) -> None:
        """Add items and their keys."""
        self.items.extend(items)
        self.keys.update(keys)

    @abstractmethod
    def run(self) -> None:
        """Process the items."""


def on_commit_once(
    kind: type[CommitHook[T]], items: Iterable[T], *, using: str, keys: Iterable[str] = ()
) -> None:
    """Process items in a hook after the commit, or at once if no transaction is open.

    Consecutive calls in one savepoint share a hook, so a loop of a thousand calls registers one
    callback.
    Each savepoint has its own hook, because Django drops the callbacks of a savepoint that rolls
    back.

    Args:
        kind: the class of the hook.
        items: the items to process.
        using: the database alias.
        keys: items that share a key are processed together. If a pending hook of this class has
            one of the keys, the items are added to it, or to a new hook that runs directly after
            it, before the callbacks that were registered in between.
    """
    connection = connections[using]
    callbacks: list[Any] = connection.run_on_commit
    keys = set(keys)
    index = _last_hook(callbacks, kind, keys) if connection.in_atomic_block else None
    if index is not None and callbacks[index][0] == set(connection.savepoint_ids):
        callbacks[index][1].add(items, keys)
        return
    hook = kind()
    hook.add(items, keys)
    transaction.on_commit(hook, using=using)
    if index is not None and callbacks[-1][1] is hook:
        callbacks.insert(index + 1, callbacks.pop())


def _last_hook(callbacks: list[Any], kind: type[CommitHook[Any]], keys: set[str]) -> int | None:
    """Return the index of the last pending hook that shares a key.

    If there is none, return the index of the last callback if it is a pending hook, else None.
    """

    def is_pending(hook: object) -> bool:
        return type(hook) is kind and not hook.done

    last = len(callbacks) - 1
    for index in range(last, -1, -1) if keys else ():
        hook = callbacks[index][1]
        if is_pending(hook) and not hook.keys.isdisjoint(keys):
            return index
    return last if callbacks and is_pending(callbacks[last][1]) else None
