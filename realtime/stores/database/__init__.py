"""The store in a database of the project: SQLite, PostgreSQL or MariaDB."""

from realtime.stores.database.store import DatabaseStore

__all__ = ["DatabaseStore"]
