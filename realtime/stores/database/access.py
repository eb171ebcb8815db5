"""How a store uses a Django database: on which thread, how often, and what an error means."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

from django.db import Error, InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from realtime.exceptions import StoreError, StoreUnavailable
from realtime.threads import STORE_THREADS

if TYPE_CHECKING:
    from django.db.backends.sqlite3.base import DatabaseWrapper as SQLite

__all__ = ["DatabaseAccess", "has_lock"]

T = TypeVar("T")

_SQLITE_BUSY, _SQLITE_LOCKED, _SQLITE_READONLY_DBMOVED = 5, 6, 8 | (4 << 8)
_MYSQL_LOCK_TIMEOUT, _MYSQL_DEADLOCK = 1205, 1213
_MYSQL_NO_SUCH_TABLE = 1146
_POSTGRESQL_LOCK_NOT_AVAILABLE = "55P03"
_POSTGRESQL_UNDEFINED_TABLE = "42P01"

_HURRY_MS = 20  # SQLite asks after 1, 3, 8 and 18 ms
_timeouts: WeakKeyDictionary[BaseDatabaseWrapper, int] = WeakKeyDictionary()

# Which file a SQLite connection has open: device and inode when it was opened.
_files: WeakKeyDictionary[BaseDatabaseWrapper, tuple[int, int] | None] = WeakKeyDictionary()


class _Attempt(Generic[T]):
    """An operation that changes nothing, or nothing that a repetition would change again."""

    committing = False

    def __init__(self, operation: Callable[[BaseDatabaseWrapper], T]) -> None:
        self.operation = operation

    def run(self, connection: BaseDatabaseWrapper) -> T:
        return self.operation(connection)


class _Transaction(_Attempt[T]):
    """An operation in a transaction; ``committing`` tells that its end may be unknown."""

    def run(self, connection: BaseDatabaseWrapper) -> T:
        self.committing = False
        _hurry(connection)
        try:
            with transaction.atomic(using=connection.alias, durable=True):
                result = self.operation(connection)
                self.committing = True
        finally:
            has_lock(connection)
        return result


class _Statement(_Attempt[T]):
    """An operation of one statement, whose end is unknown as soon as it has begun."""

    committing = True


class DatabaseAccess:
    """Runs a store's operations on one database alias, from any thread.

    An operation never becomes part of the caller's transaction: where the calling thread's
    connection is in one, it runs in ``STORE_THREADS``, on a connection of its own, while the
    caller waits.
    A lock that others hold is waited for within ``locked_seconds``; a connection that turns out
    to be broken is opened anew, once, unless the transaction may have been committed.

    The connections in ``STORE_THREADS`` stay open: no request ends there that could close them.
    """

    def __init__(self, alias: str, store: str, locked_seconds: float) -> None:
        self.alias = alias
        self.store = store
        self.locked_seconds = locked_seconds

    def read(self, operation: Callable[[BaseDatabaseWrapper], T]) -> T:
        """Run an operation that may be repeated, outside a transaction.

        Raises:
            StoreUnavailable: the database cannot be reached, or is locked for too long.
            StoreError: the database refused the operation.
        """
        return self._dispatch(_Attempt(operation))

    def write(self, operation: Callable[[BaseDatabaseWrapper], T]) -> T:
        """Run an operation in a transaction of its own; it may be begun several times.

        Raises:
            StoreUnavailable: the database cannot be reached, or is locked for too long.
            StoreError: the database refused the operation.
        """
        return self._dispatch(_Transaction(operation))

    def execute(self, operation: Callable[[BaseDatabaseWrapper], T]) -> T:
        """Run an operation that is one statement, and by that a transaction.

        It costs one answer of the server where ``write()`` waits for three, and is begun again only
        where a lock was in the way.

        Raises:
            StoreUnavailable: the database cannot be reached, or is locked for too long; if the
                connection broke, the statement may have been carried out.
            StoreError: the database refused the operation.
        """
        return self._dispatch(_Statement(operation))

    def close(self) -> None:
        """Close the connections of ``STORE_THREADS`` to this alias, each in its own thread."""
        if _in_pool():
            connections[self.alias].close()
            return
        # Only a thread of the pool may close its connection, and only tasks that wait for one
        # another are sure to run in all of them. The pool is busy for longer than a few seconds
        # only if its connections are needed; then the rest stays open.
        together = threading.Barrier(STORE_THREADS.count)

        def close_own() -> None:
            with suppress(threading.BrokenBarrierError):
                together.wait(timeout=5)
            connections[self.alias].close()

        wait([STORE_THREADS.submit(close_own) for _ in range(STORE_THREADS.count)], timeout=10)

    def _dispatch(self, attempt: _Attempt[T]) -> T:
        connection = connections[self.alias]
        own = _in_pool() or (not connection.in_atomic_block and _autocommits(connection))
        return self._run(attempt) if own else STORE_THREADS.submit(self._run, attempt).result()

    def _run(self, attempt: _Attempt[T]) -> T:
        connection = connections[self.alias]
        deadline = time.monotonic() + self.locked_seconds
        reconnected = False
        while True:
            opened = connection.connection
            try:
                _open(connection)
                opened = connection.connection
                return attempt.run(connection)
            except Error as error:
                if _is_locked(error):
                    if time.monotonic() >= deadline:
                        raise StoreUnavailable(self.store, str(error)) from error
                    # Those who wait must not all come back at the same moment.
                    time.sleep(random.uniform(0.001, 0.010))
                elif _is_broken(connection, opened, error):
                    connection.close()
                    if attempt.committing or reconnected:
                        raise StoreUnavailable(self.store, str(error)) from error
                    reconnected = True
                elif _is_missing_table(error):
                    raise StoreError(
                        f"{self.store} has no tables in {self.alias!r} ({error}); "
                        f"run: manage.py migrate --database {self.alias}"
                    ) from error
                elif isinstance(error, OperationalError | InterfaceError):
                    raise StoreUnavailable(self.store, str(error)) from error
                else:
                    raise StoreError(f"{self.store} failed: {error}") from error


def _hurry(connection: BaseDatabaseWrapper) -> None:
    """Make SQLite give up soon when the write lock is taken, so that ``_run`` asks again.

    SQLite's own waiting sleeps longer and longer, to 100 ms: among eight busy writers the one that
    has waited longest has the least chance, and some waited five seconds.
    """
    if connection.vendor == "sqlite":
        raw = connection.connection
        _timeouts[connection] = timeout = raw.execute("PRAGMA busy_timeout").fetchone()[0]
        raw.execute(f"PRAGMA busy_timeout = {min(timeout, _HURRY_MS)}")


def has_lock(connection: BaseDatabaseWrapper) -> None:
    """Let the driver wait as long as the settings say; the transaction has its lock.

    Its end may have to wait for readers; giving up early there would let new ones in, for ever.
    """
    timeout = _timeouts.pop(connection, None)
    if timeout is not None and connection.connection is not None:
        connection.connection.execute(f"PRAGMA busy_timeout = {timeout}")


def _in_pool() -> bool:
    return threading.current_thread().name.startswith(STORE_THREADS.name)


def _autocommits(connection: BaseDatabaseWrapper) -> bool:
    if connection.connection is None:
        return bool(connection.settings_dict["AUTOCOMMIT"])
    return connection.get_autocommit()


def _open(connection: BaseDatabaseWrapper) -> None:
    """Connect if the connection is not, to the database that is in force now.

    A SQLite file that was replaced (a backup moved into its place) has to be opened anew: who
    still has the old one open reads and writes a deleted file and gets no error.
    """
    path = _path(connection)
    if path is None:
        connection.ensure_connection()
    else:
        for _ in range(5):  # replaced again and again while it is opened? then the next call sees
            before = _identity(path)
            if before is None and connection.connection is not None:
                raise OperationalError(f"the database file {path} is missing")
            connection.ensure_connection()
            if before is not None and _files.setdefault(connection, before) == before:
                break
            connection.close()
    if not connection.get_autocommit():
        connection.set_autocommit(True)  # AUTOCOMMIT is False in the settings


def _path(connection: BaseDatabaseWrapper) -> str | None:
    if connection.vendor != "sqlite" or cast("SQLite", connection).is_in_memory_db():
        return None
    name = str(connection.settings_dict["NAME"])
    return unquote(urlsplit(name).path) if name.startswith("file:") else name


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@receiver(connection_created, dispatch_uid="realtime.stores.database.access")
def _note_file(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    path = _path(connection)
    if path is not None:
        _files[connection] = _identity(path)


def _is_locked(error: Error) -> bool:
    """Tell whether others were in the way, so that nothing was done and it is worth another try."""
    cause = error.__cause__
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in (_SQLITE_BUSY, _SQLITE_LOCKED)
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if isinstance(state, str):
        # Class 40 is a transaction that the server has rolled back: a deadlock, or a snapshot
        # that cannot be serialised.
        return state.startswith("40") or state == _POSTGRESQL_LOCK_NOT_AVAILABLE
    code = error.args[0] if error.args else None
    return code in (_MYSQL_LOCK_TIMEOUT, _MYSQL_DEADLOCK)


def _is_missing_table(error: Error) -> bool:
    cause = error.__cause__
    if isinstance(cause, sqlite3.Error):
        return str(error).startswith("no such table")  # SQLite has no code of its own for it
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    code = error.args[0] if error.args else None
    return state == _POSTGRESQL_UNDEFINED_TABLE or code == _MYSQL_NO_SUCH_TABLE


def _is_broken(connection: BaseDatabaseWrapper, opened: object, error: Error) -> bool:
    """Tell whether the connection that was open cannot be used any more."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    if getattr(error.__cause__, "sqlite_errorcode", 0) == _SQLITE_READONLY_DBMOVED:
        return True
    # atomic() may have noticed already and opened another.
    return connection.connection is not opened or opened is None or not connection.is_usable()
