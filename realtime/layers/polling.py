"""How a process learns that letters may wait for it: by asking, as cheaply as the database allows.

SQLite tells by ``PRAGMA data_version`` whether another connection has committed anything: 3 µs, and
no query while nothing happens.
Other databases are asked for one row by an indexed query; PostgreSQL seldom, while a ``Listener``
(``layers.listening``) hears of every letter.

Neither goes through Django's cursors, which would fill the log of queries, and the console of a
developer who reads it, with twenty lines a second.
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.layers.tables import LayerTables

__all__ = ["Poller"]

BUSY_MILLISECONDS = 2_000  # that SQLite waits for a lock at once; the tables try again after it


class Poller:
    """Watches the addresses of one process, on the connection of the layer's thread."""

    def __init__(self, tables: LayerTables) -> None:
        self.tables = tables
        self._raw: object = None
        self._version: object = None
        self._query: tuple[frozenset[str], str, Any] | None = None

    def open(self) -> bool:
        """Connect if need be; True if this is another connection than before.

        Then everything that this process has in the database must be looked at anew: the file may
        be another one, the server an older backup.
        """
        own = connections[self.tables.using]
        return self.tables.database.read(lambda connection: self._open(connection, own))

    def check(self, addresses: frozenset[str], *, sure: bool) -> tuple[bool, bool]:
        """Do as ``open()`` does, and tell too whether anything may wait at one of the addresses.

        ``sure``: something may, as far as the caller knows; then no query asks.
        """
        own = connections[self.tables.using]
        return self.tables.database.read(
            lambda connection: (
                self._open(connection, own),
                self._changed(connection, addresses, sure),
            )
        )

    def _open(self, connection: BaseDatabaseWrapper, own: BaseDatabaseWrapper) -> bool:
        if connection.connection is self._raw:
            return False
        if connection.vendor == "sqlite" and connection is own:
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
                cursor.execute("PRAGMA journal_mode")
                if cursor.fetchone()[0] == "wal":
                    # A power failure may take the last letters along, and nothing else: in WAL
                    # mode this is safe for the file. A commit costs 0.01 instead of 0.3 ms.
                    cursor.execute("PRAGMA synchronous = NORMAL")
        self._raw, self._version = connection.connection, None
        return True

    def _changed(
        self, connection: BaseDatabaseWrapper, addresses: frozenset[str], sure: bool
    ) -> bool:
        if connection.vendor == "sqlite":
            with connection.wrap_database_errors:
                (version,) = connection.connection.execute("PRAGMA data_version").fetchone()
            key = (id(connection.connection), version)
            changed, self._version = key != self._version, key
            return changed
        if sure:
            return True
        if self._query is None or self._query[0] != addresses:
            rows = self.tables.rows.messages.filter(inbox__in=addresses).values("pk")[:1]
            sql, params = rows.query.get_compiler(self.tables.using).as_sql()
            self._query = (addresses, sql, params)
        with connection.wrap_database_errors, connection.connection.cursor() as cursor:
            cursor.execute(*self._query[1:])
            return cursor.fetchone() is not None
