"""The database's clock as an expression of the ORM."""

from __future__ import annotations

from django.db import NotSupportedError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Expression, FloatField
from django.db.models.sql.compiler import SQLCompiler

__all__ = ["DatabaseClock"]

_SQL = {
    # 2440587.5 is the Julian day of 1970-01-01. SQLite's clock has a resolution of 1 ms.
    "sqlite": "ROUND((JULIANDAY('now') - 2440587.5) * 86400.0, 3)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) AS DOUBLE PRECISION)",
    "mysql": "CAST(UNIX_TIMESTAMP(SYSDATE(6)) AS DOUBLE)",
}


class DatabaseClock(Expression):
    """Seconds since 1970 by the database's clock, when the row is read or written.

    ``Now()`` does not suffice. On PostgreSQL it is the time when the statement began, which can
    be seconds ago if the statement waited for a lock. Its result is a datetime whose time zone
    depends on ``USE_TZ``.
    """

    output_field = FloatField()

    def as_sql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper
    ) -> tuple[str, tuple[str | int, ...]]:
        """Return the SQL for the database's vendor."""
        if connection.vendor not in _SQL:
            raise NotSupportedError(
                "realtime keeps its logs in SQLite, PostgreSQL, MySQL or MariaDB, not in "
                f"{connection.display_name}"
            )
        return _SQL[connection.vendor], ()
