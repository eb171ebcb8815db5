"""Asking the database whether there are messages for this process, at the lowest cost.

SQLite: ``PRAGMA data_version`` tells whether another connection has committed anything, in 3 µs;
there is no query while nothing happens.
Other databases: an indexed query for one row.
On PostgreSQL the query is rare while a ``Listener`` (``layers.notify``) is notified of every
message.

Neither uses Django's cursors, which would add twenty lines a second to the query log that a
developer reads on the console.
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.layers.storage import LayerStorage

__all__ = ["Poller"]

BUSY_MILLISECONDS = 2_000  # that SQLite waits for a lock; then the storage retries


class Poller:
    """Polls the addresses of one process, on the connection of the layer's thread."""

    def __init__(self, storage: LayerStorage) -> None:
        self.storage = storage
        # The driver's connection at the last call, and SQLite's data_version on that connection.
        self._raw: object = None
        self._version: object = None
        # The addresses of the last query, its SQL and its parameters.
        self._query: tuple[frozenset[str], str, Any] | None = None

    def connect(self) -> bool:
        """Connect if necessary; return True if the connection is a new one.

        A new connection can lead to a replaced file or a restored backup, so the caller must check
        all rows of this process.
        """
        own = connections[self.storage.using]
        return self.storage.database.read(lambda connection: self._connect(connection, own))

    def poll(self, addresses: frozenset[str], *, is_known: bool) -> tuple[bool, bool]:
        """Connect if necessary, and ask whether there may be messages at one of the addresses.

        Args:
            addresses: where to look.
            is_known: the caller knows that there may be some, so no query is needed.

        Returns:
            whether the connection is a new one, and whether there may be messages.
        """
        own = connections[self.storage.using]
        return self.storage.database.read(
            lambda connection: (
                self._connect(connection, own),
                self._has_changed(connection, addresses, is_known),
            )
        )

    def _connect(self, connection: BaseDatabaseWrapper, own: BaseDatabaseWrapper) -> bool:
        if connection.connection is self._raw:
            return False
        if connection.vendor == "sqlite" and connection is own:
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
                cursor.execute("PRAGMA journal_mode")
                if cursor.fetchone()[0] == "wal":
                    # A commit takes 0.01 ms instead of 0.3 ms. In WAL mode this cannot corrupt the
                    # file; a power failure can only lose the last messages.
                    cursor.execute("PRAGMA synchronous = NORMAL")
        self._raw, self._version = connection.connection, None
        return True

    def _has_changed(
        self, connection: BaseDatabaseWrapper, addresses: frozenset[str], is_known: bool
    ) -> bool:
        if connection.vendor == "sqlite":
            with connection.wrap_database_errors:
                (version,) = connection.connection.execute("PRAGMA data_version").fetchone()
            key = (id(connection.connection), version)
            changed, self._version = key != self._version, key
            return changed
        if is_known:
            return True
        if self._query is None or self._query[0] != addresses:
            rows = self.storage.rows.messages.filter(inbox__in=addresses).values("pk")[:1]
            sql, params = rows.query.get_compiler(self.storage.using).as_sql()
            self._query = (addresses, sql, params)
        with connection.wrap_database_errors, connection.connection.cursor() as cursor:
            cursor.execute(*self._query[1:])
            return cursor.fetchone() is not None
