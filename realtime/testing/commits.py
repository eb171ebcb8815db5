"""Commits inside a ``TestCase``, whose own transaction never commits.

Django registers what ``on_commit()`` was given and never runs it there.
Here it runs as soon as no transaction but those of the test case is open, which is when it would
have been committed outside of a test; what was rolled back is gone from Django's list by then.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.publishing import AfterCommit

__all__ = ["Commits", "is_only_in_the_test"]

logger = logging.getLogger("realtime")

_on_commit = BaseDatabaseWrapper.on_commit


def is_only_in_the_test(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the only transactions that are open are those of the test case."""
    return connection.in_atomic_block and all(
        getattr(block, "_from_testcase", False) for block in connection.atomic_blocks
    )


class _Once:
    """An ``on_commit()`` hook that runs once, whoever else runs the hooks of a test."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.done = False

    def __call__(self) -> None:
        if not self.done:
            self.done = True
            self.function()


class Commits:
    """Runs the hooks of transactions that would have been committed."""

    def __init__(self) -> None:
        self._connections: WeakSet[BaseDatabaseWrapper] = WeakSet()
        self._local = threading.local()

    def on_commit(
        self, connection: BaseDatabaseWrapper, func: Callable[[], object], robust: bool = False
    ) -> None:
        """Do as ``connection.on_commit()`` does, in a way that lets ``settle()`` find the hook."""
        self._connections.add(connection)
        hook = func if isinstance(func, AfterCommit) else _Once(func)
        _on_commit(connection, hook, robust)

    def settle(self) -> None:
        """Run what waits for a commit that has happened, on this thread's connections.

        Raises:
            Exception: what a hook raises that is not ``robust``; those behind it never run, as
                after a commit.
        """
        if getattr(self._local, "settling", False):
            return  # a hook publishes: those behind it still wait for it to end
        self._local.settling = True
        try:
            for connection in connections.all(initialized_only=True):
                while is_only_in_the_test(connection) and (waiting := _waiting(connection)):
                    try:
                        _run(*waiting[0])
                    except BaseException:
                        for hook, _ in waiting:
                            hook.done = True
                        raise
        finally:
            self._local.settling = False

    def are_waiting(self) -> bool:
        """Tell whether ``settle()`` has something to do, on any thread's connections."""
        return any(is_only_in_the_test(one) and _waiting(one) for one in self._connections)

    def count_open(self) -> int:
        """Return how many hooks wait for a transaction that is still open."""
        return sum(len(_waiting(one)) for one in self._connections if not is_only_in_the_test(one))


def _waiting(connection: BaseDatabaseWrapper) -> list[tuple[_Once | AfterCommit, bool]]:
    hooks: list[Any] = connection.run_on_commit
    return [
        (hook, robust)
        for _, hook, robust in hooks
        if isinstance(hook, _Once | AfterCommit) and not hook.done
    ]


def _run(hook: _Once | AfterCommit, robust: bool) -> None:
    try:
        hook()
    except Exception:
        if not robust:
            raise
        logger.exception("an on_commit() hook failed")
