"""How a store uses a Django database: the thread of a call, its retries, and its errors."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

from django.db import Error, InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models import QuerySet
from django.dispatch import receiver

from realtime.exceptions import StoreError, StoreUnavailable
from realtime.stores.database.dropping import before_drop
from realtime.stores.pool_checks import is_pooled
from realtime.threads import (
    ACTION_THREADS,
    IDENTITY_THREADS,
    PERMISSION_THREADS,
    RELAY_THREADS,
    STORE_THREADS,
)

if TYPE_CHECKING:
    from django.db.backends.sqlite3.base import DatabaseWrapper as SQLite

__all__ = [
    "DatabaseAccess",
    "ReadOnly",
    "TablesMissing",
    "check_names",
    "delete_rows",
    "restore_busy_timeout",
]

T = TypeVar("T")

_SQLITE_BUSY, _SQLITE_LOCKED, _SQLITE_READONLY, _SQLITE_READONLY_DBMOVED = 5, 6, 8, 8 | (4 << 8)
# The second: a row that the transaction's snapshot shows was changed. Only MariaDB with
# innodb_snapshot_isolation reports it, where the isolation level is REPEATABLE READ.
_MYSQL_LOCK_TIMEOUT, _MYSQL_CHANGED, _MYSQL_DEADLOCK = 1205, 1020, 1213
_MYSQL_NO_SUCH_TABLE = 1146
_MYSQL_READ_ONLY = (1290, 1792, 1836)  # the server's option, a read-only transaction, its mode
_POSTGRESQL_LOCK_NOT_AVAILABLE = "55P03"
_POSTGRESQL_UNDEFINED_TABLE = "42P01"
_POSTGRESQL_READ_ONLY = "25006"

_BUSY_MS = 20  # SQLite tries again after 1, 3, 8 and 18 ms

# For each SQLite connection whose busy timeout is shortened now: the original timeout in ms.
_timeouts: WeakKeyDictionary[BaseDatabaseWrapper, int] = WeakKeyDictionary()

# The file that a SQLite connection has open: its device and inode when it was opened.
_files: WeakKeyDictionary[BaseDatabaseWrapper, tuple[int, int] | None] = WeakKeyDictionary()


class TablesMissing(StoreError):
    """The database was not migrated."""


class ReadOnly(StoreError):
    """The database accepts no writes, as a replica does.

    Attributes:
        alias: the database alias.
    """

    def __init__(self, reason: str, alias: str) -> None:
        super().__init__(reason, alias)
        self.reason = reason
        self.alias = alias

    def __str__(self) -> str:
        return self.reason


def check_names(alias: str, found: Iterable[str], wanted: Collection[str]) -> None:
    """Refuse rows whose names only resemble the wanted ones.

    A database with another collation than that of migration 0005, such as a restored dump, can
    return the row of another topic.

    Args:
        alias: the database alias.
        found: the names in the rows that a query by name returned.
        wanted: the names that it asked for.

    Raises:
        StoreError: one of the names differs.
    """
    for name in found:
        if name not in wanted:
            raise StoreError(
                f"the database {alias!r} found the row of {name!r}, which was not asked for: it "
                "does not compare names exactly; run manage.py migrate, and if that is done, see "
                "docs/databases.md#mariadb"
            )


class _Attempt(Generic[T]):
    """An operation that can be retried, because it only reads or is idempotent.

    Attributes:
        committing: whether the outcome is unknown if the connection breaks now, so that a retry is
            not safe.
    """

    committing = False

    def __init__(self, operation: Callable[[BaseDatabaseWrapper], T]) -> None:
        self.operation = operation

    def run(self, connection: BaseDatabaseWrapper, seconds: float) -> T:
        """Run it; a transaction waits at most these seconds for a lock."""
        return self.operation(connection)


class _Transaction(_Attempt[T]):
    """An operation in a transaction; its outcome can be unknown once the commit has begun."""

    def run(self, connection: BaseDatabaseWrapper, seconds: float) -> T:
        self.committing = False
        with (
            _limited_waits(connection, seconds),
            transaction.atomic(using=connection.alias, durable=True),
        ):
            if connection.vendor == "postgresql":
                _execute(connection, f"SET LOCAL lock_timeout = {max(1, int(seconds * 1000))}")
            result = self.operation(connection)
            self.committing = True
        return result


class _Statement(_Attempt[T]):
    """An operation of one statement; its outcome can be unknown as soon as it has begun."""

    committing = True


class DatabaseAccess:
    """Runs a store's operations on one database alias, from any thread.

    An operation is never part of the caller's transaction: if the calling thread's connection is in
    a transaction, the operation runs in ``STORE_THREADS``, on another connection, while the caller
    waits.
    An operation that meets a lock is retried for ``locked_seconds``; a transaction does not wait
    for a lock for longer either. A broken connection is
    reopened and the operation retried once, unless the transaction may have been committed.

    The connections of ``STORE_THREADS`` and ``RELAY_THREADS`` stay open, because no request ends in
    those threads, and Django closes connections at the end of a request. Those of a pool are
    returned after each operation.

    Args:
        alias: the database alias.
        store: the name of the caller's class or feature, for error texts.
        locked_seconds: seconds for which an operation that meets a lock is retried, in addition to
            the driver's own timeout.
    """

    def __init__(self, alias: str, store: str, locked_seconds: float) -> None:
        self.alias = alias
        self.store = store
        self.locked_seconds = locked_seconds

    def read(self, operation: Callable[[BaseDatabaseWrapper], T]) -> T:
        """Run an idempotent operation outside a transaction.

        Raises:
            StoreUnavailable: the database cannot be reached, or stayed locked too long.
            StoreError: the database refused the operation.
        """
        return self._dispatch(_Attempt(operation))

    def write(self, operation: Callable[[BaseDatabaseWrapper], T]) -> T:
        """Run an operation in its own transaction; a retry calls it again.

        Raises:
            StoreUnavailable: the database cannot be reached, or stayed locked too long; if the
                connection broke during the commit, the transaction may have been committed.
            StoreError: the database refused the operation.
        """
        return self._dispatch(_Transaction(operation))

    def execute(self, operation: Callable[[BaseDatabaseWrapper], T]) -> T:
        """Run an operation of one statement, which is a transaction without a begin and a commit.

        It takes one round trip where ``write()`` takes three. It is retried only if it met a lock.

        Raises:
            StoreUnavailable: the database cannot be reached, or stayed locked too long; if the
                connection broke, the statement may have been executed.
            StoreError: the database refused the operation.
        """
        return self._dispatch(_Statement(operation))

    def close(self) -> None:
        """Close the connections of ``STORE_THREADS`` to this alias, each in its own thread."""
        if STORE_THREADS.has_current_thread():
            connections[self.alias].close()
        else:
            STORE_THREADS.run_in_each(lambda: connections[self.alias].close())

    def _dispatch(self, attempt: _Attempt[T]) -> T:
        connection = connections[self.alias]
        run_here = STORE_THREADS.has_current_thread() or (
            not connection.in_atomic_block and _autocommits(connection)
        )
        return self._run(attempt) if run_here else STORE_THREADS.submit(self._run, attempt).result()

    def _run(self, attempt: _Attempt[T]) -> T:
        try:
            return self._try(attempt)
        finally:
            if STORE_THREADS.has_current_thread() or RELAY_THREADS.has_current_thread():
                _return_to_pool(connections[self.alias])

    def _try(self, attempt: _Attempt[T]) -> T:
        connection = connections[self.alias]
        deadline = time.monotonic() + self.locked_seconds
        reconnected = False
        while True:
            opened = connection.connection
            try:
                _open(connection)
                opened = connection.connection
                return attempt.run(connection, deadline - time.monotonic())
            except Error as error:
                if _is_locked(error):
                    if time.monotonic() >= deadline:
                        reason = f"another transaction held a lock for {self.locked_seconds:g} s"
                        raise StoreUnavailable(self.store, f"{reason} ({error})") from error
                    # Jitter, so that the waiting writers do not all retry at the same time.
                    time.sleep(random.uniform(0.001, 0.010))
                elif _is_broken(connection, opened, error):
                    connection.close()
                    if attempt.committing or reconnected:
                        raise StoreUnavailable(self.store, str(error)) from error
                    reconnected = True
                elif _is_missing_table(error):
                    raise TablesMissing(
                        f"{self.store} has no tables in {self.alias!r} ({error}); "
                        f"run: manage.py migrate --database {self.alias}"
                    ) from error
                elif _is_read_only(error):
                    reason = f"{self.store} cannot write to {self.alias!r}: {error}"
                    raise ReadOnly(reason, self.alias) from error
                elif isinstance(error, OperationalError | InterfaceError):
                    raise StoreUnavailable(self.store, str(error)) from error
                else:
                    raise StoreError(f"{self.store} failed: {error}") from error


@contextmanager
def _limited_waits(connection: BaseDatabaseWrapper, seconds: float) -> Iterator[None]:
    """Limit how long the next transaction waits for a lock, where that is set before it begins.

    On MySQL the limit belongs to the session, which may be the caller's, so it is restored.
    """
    if connection.vendor != "mysql":
        _shorten_busy_timeout(connection)
        try:
            yield
        finally:
            restore_busy_timeout(connection)
        return
    limit = max(1, int(seconds))
    _execute(
        connection,
        "SET @realtime_lock_wait = @@innodb_lock_wait_timeout, "
        f"SESSION innodb_lock_wait_timeout = {limit}",
    )
    try:
        yield
    finally:
        with suppress(Error):  # the connection is broken, and the setting gone with it
            _execute(connection, "SET SESSION innodb_lock_wait_timeout = @realtime_lock_wait")


def _execute(connection: BaseDatabaseWrapper, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def _shorten_busy_timeout(connection: BaseDatabaseWrapper) -> None:
    """Make SQLite return soon if the write lock is taken; ``_run()`` then retries.

    SQLite's own backoff grows to 100 ms, so the writer that has waited longest is the least likely
    to get the lock. In a measurement with eight busy writers, some waited five seconds.
    """
    if connection.vendor == "sqlite":
        raw = connection.connection
        _timeouts[connection] = timeout = raw.execute("PRAGMA busy_timeout").fetchone()[0]
        raw.execute(f"PRAGMA busy_timeout = {min(timeout, _BUSY_MS)}")


def restore_busy_timeout(connection: BaseDatabaseWrapper) -> None:
    """Restore the busy timeout of the settings, now that the transaction has the write lock.

    The commit can have to wait for readers. With the short timeout it would give up early, new
    readers could begin before every retry, and the commit might never succeed.
    """
    timeout = _timeouts.pop(connection, None)
    if timeout is not None and connection.connection is not None:
        connection.connection.execute(f"PRAGMA busy_timeout = {timeout}")


def delete_rows(rows: QuerySet[Any]) -> int:
    """Delete rows in one statement, without signals and cascades; return how many.

    ``QuerySet.delete()`` would load the rows and send ``post_delete`` for each where the project
    has a receiver for all models. It would run inside our transaction, and one that publishes would
    feed itself for ever.
    """
    count: int = rows._raw_delete(rows.db)
    return count


def _return_to_pool(connection: BaseDatabaseWrapper) -> None:
    if is_pooled(connection.settings_dict):
        connection.close()


def _autocommits(connection: BaseDatabaseWrapper) -> bool:
    if connection.connection is None:
        return bool(connection.settings_dict["AUTOCOMMIT"])
    return connection.get_autocommit()


def _open(connection: BaseDatabaseWrapper) -> None:
    """Connect, if the connection is closed or its SQLite file was replaced.

    After a backup was moved over the file, a connection that still has the old file open would read
    and write a deleted file, without an error.
    """
    path = _path(connection)
    if path is None:
        connection.ensure_connection()
    else:
        # Retry, because the file can be replaced while it is opened.
        for _ in range(5):
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


@receiver(before_drop)
def _close_all(*, alias: str, **_: Any) -> None:
    # The relays first: their wake-ups are sent before other receivers stop the channel layer.
    user_threads = IDENTITY_THREADS, PERMISSION_THREADS, ACTION_THREADS
    for threads in (RELAY_THREADS, STORE_THREADS, *user_threads):
        threads.run_in_each(lambda: connections[alias].close())


@receiver(connection_created, dispatch_uid="realtime.stores.database.access")
def _note_file(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    path = _path(connection)
    if path is not None:
        _files[connection] = _identity(path)


def _is_locked(error: Error) -> bool:
    """Tell whether a lock or a deadlock stopped the operation, so that a retry is safe."""
    cause = error.__cause__
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in (_SQLITE_BUSY, _SQLITE_LOCKED)
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    code = error.args[0] if error.args else None
    # Class 40: the server has rolled the transaction back, after a deadlock or a serialisation
    # failure.
    return (
        str(state).startswith("40")
        or state == _POSTGRESQL_LOCK_NOT_AVAILABLE
        or code in (_MYSQL_LOCK_TIMEOUT, _MYSQL_CHANGED, _MYSQL_DEADLOCK)
    )


def _is_missing_table(error: Error) -> bool:
    cause = error.__cause__
    if isinstance(cause, sqlite3.Error):
        return str(error).startswith("no such table")  # SQLite has no error code for it
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    code = error.args[0] if error.args else None
    return state == _POSTGRESQL_UNDEFINED_TABLE or code == _MYSQL_NO_SUCH_TABLE


def _is_read_only(error: Error) -> bool:
    cause = error.__cause__
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF == _SQLITE_READONLY
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    code = error.args[0] if error.args else None
    return state == _POSTGRESQL_READ_ONLY or code in _MYSQL_READ_ONLY


def _is_broken(connection: BaseDatabaseWrapper, opened: object, error: Error) -> bool:
    """Tell whether the connection that was open can no longer be used."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    if type(error.__cause__).__name__ == "PoolTimeout":
        return False  # no connection was free; another attempt would wait as long again
    if getattr(error.__cause__, "sqlite_errorcode", 0) == _SQLITE_READONLY_DBMOVED:
        return True
    # atomic() may have noticed the break already and opened another connection.
    return connection.connection is not opened or opened is None or not connection.is_usable()
