"""Run ``on_commit()`` hooks inside a ``TestCase``, whose own transaction never commits.

Django registers the hooks there, but never runs them.
``Commits`` runs them when only the transactions of the test case itself are open: outside of a
test, the code under test would then be committed. By then, Django has removed the hooks of
transactions that were rolled back.
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

__all__ = ["Commits", "only_test_transactions_are_open"]

logger = logging.getLogger("realtime")

_on_commit = BaseDatabaseWrapper.on_commit


def only_test_transactions_are_open(connection: BaseDatabaseWrapper) -> bool:
    """Return whether the transactions of the test case are open, and no others."""
    return connection.in_atomic_block and all(
        getattr(block, "_from_testcase", False) for block in connection.atomic_blocks
    )


class _Once:
    """An ``on_commit()`` hook that runs only once, even if Django's test tools run it as well."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.done = False

    def __call__(self) -> None:
        if not self.done:
            self.done = True
            self.function()


class Commits:
    """Runs the hooks of committed transactions, as if the test case's own did not exist."""

    def __init__(self) -> None:
        self._connections: WeakSet[BaseDatabaseWrapper] = WeakSet()
        self._local = threading.local()

    def on_commit(
        self, connection: BaseDatabaseWrapper, func: Callable[[], object], robust: bool = False
    ) -> None:
        """Register a hook as ``connection.on_commit()`` does, so that ``run_hooks()`` finds it."""
        self._connections.add(connection)
        hook = func if isinstance(func, AfterCommit) else _Once(func)
        _on_commit(connection, hook, robust)

    def run_hooks(self) -> None:
        """Run the hooks of committed transactions on the connections of this thread.

        Raises:
            Exception: a hook that is not ``robust`` failed. As after a real commit, the hooks after
                it are discarded.
        """
        if getattr(self._local, "running_hooks", False):
            return  # called by a hook; the remaining hooks run after it
        self._local.running_hooks = True
        try:
            for connection in connections.all(initialized_only=True):
                while only_test_transactions_are_open(connection) and (
                    waiting := _waiting(connection)
                ):
                    try:
                        _run(*waiting[0])
                    except BaseException:
                        for hook, _ in waiting:
                            hook.done = True
                        raise
        finally:
            self._local.running_hooks = False

    def has_waiting_hooks(self) -> bool:
        """Return whether a connection of any thread has hooks that ``run_hooks()`` would run."""
        return any(
            only_test_transactions_are_open(connection) and _waiting(connection)
            for connection in self._connections
        )

    def count_open_hooks(self) -> int:
        """Return the number of hooks that wait for an open transaction to commit."""
        return sum(
            len(_waiting(connection))
            for connection in self._connections
            if not only_test_transactions_are_open(connection)
        )


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
