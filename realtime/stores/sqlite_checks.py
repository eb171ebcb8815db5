"""Check whether the settings of a SQLite database suit several processes.

The functions read ``settings.DATABASES`` and open no connection.
"""

from __future__ import annotations

from pathlib import Path

from django.core.checks import CheckMessage, Warning
from django.db import connections

__all__ = ["check_database", "is_in_memory", "is_sqlite"]

_HINT = """Set these options in settings.DATABASES[{alias!r}]:
    "OPTIONS": {{
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        "timeout": 20,
    }},"""


def is_sqlite(alias: str) -> bool:
    """Tell whether an alias is a SQLite database."""
    return str(connections.settings[alias]["ENGINE"]).endswith(("sqlite3", "spatialite"))


def is_in_memory(alias: str) -> bool:
    """Tell whether an alias is SQLite in memory, which no other process can use."""
    name = str(connections.settings[alias]["NAME"])
    return is_sqlite(alias) and (":memory:" in name or "mode=memory" in name)


def check_database(alias: str) -> list[CheckMessage]:
    """Report a SQLite file in which readers and writers block each other."""
    missing = _missing(alias)
    if not missing:
        return []
    return [
        Warning(
            f"The SQLite database {alias!r} lacks {' and '.join(missing)}: under load, "
            "publishing fails with 'database is locked'.",
            hint=_HINT.format(alias=alias),
            id="realtime.W003",
        )
    ]


def _missing(alias: str) -> list[str]:
    """Return the settings that a SQLite file lacks for several writers; [] for other databases."""
    if not is_sqlite(alias) or is_in_memory(alias):
        return []
    database = connections.settings[alias]
    options = database.get("OPTIONS") or {}
    missing = []
    if str(options.get("transaction_mode")).upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        missing.append("IMMEDIATE transactions")
    command = str(options.get("init_command", "")).casefold().replace(" ", "")
    if "journal_mode=wal" not in command and not _is_in_wal_mode(Path(str(database["NAME"]))):
        missing.append("write-ahead logging (WAL)")
    return missing


def _is_in_wal_mode(path: Path) -> bool:
    """Return True if the header of a SQLite file says that it uses write-ahead logging.

    Source: https://www.sqlite.org/fileformat.html, 1.3.3: the write version at offset 18 is 2.
    """
    try:
        with path.open("rb") as file:
            return file.read(19)[18:] == b"\x02"
    except OSError:
        return False
