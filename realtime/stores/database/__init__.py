"""The log in the project's own database: SQLite, PostgreSQL or MySQL."""

from realtime.stores.database.store import DatabaseStore

__all__ = ["DatabaseStore"]
