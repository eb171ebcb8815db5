"""The database's clock as an expression of the ORM."""

from __future__ import annotations

from django.db import NotSupportedError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Expression, FloatField
from django.db.models.sql.compiler import SQLCompiler

__all__ = ["DatabaseClock", "explain_vendor"]

_SQL = {
    # 2440587.5 is the Julian day of 1970-01-01. SQLite's clock has a resolution of 1 ms.
    "sqlite": "ROUND((JULIANDAY('now') - 2440587.5) * 86400.0, 3)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) AS DOUBLE PRECISION)",
    # Django's vendor of MariaDB too. NOW() is the time when the statement began.
    "mysql": "CAST(UNIX_TIMESTAMP(SYSDATE(6)) AS DOUBLE)",
}


def explain_vendor(connection: BaseDatabaseWrapper) -> str:
    """Return why this app cannot use a database, because of its vendor; "" if it can."""
    if connection.vendor in _SQL:
        return ""
    return (
        f"the database {connection.alias!r} is {connection.display_name}; realtime keeps its "
        "logs in SQLite, PostgreSQL or MariaDB"
    )


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
        if reason := explain_vendor(connection):
            raise NotSupportedError(reason)
        return _SQL[connection.vendor], ()
