"""Django database settings for the tests: a SQLite file, or the URL of a server."""

import importlib.util
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


def database_config(url: str) -> dict[str, Any]:
    """Return a complete DATABASES entry.

    Args:
        url: the path of a SQLite file, or `postgres://user@host:port/name`, where `?host=/folder`
            names the folder of a Unix socket, and other parameters become OPTIONS. MariaDB's begins
            with `mysql://`, and its `host` is the socket itself.
    """
    if url.startswith(("postgres://", "postgresql://")):
        return _server("django.db.backends.postgresql", url)
    if url.startswith("mysql://"):
        use_pymysql()
        return _server("django.db.backends.mysql", url)
    return _sqlite(Path(url))


def use_pymysql() -> None:
    """Let PyMySQL stand in for mysqlclient, which Django imports, where that is not installed."""
    if importlib.util.find_spec("MySQLdb") is None:
        import pymysql

        pymysql.install_as_MySQLdb()


def _server(engine: str, url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    return {
        "ENGINE": engine,
        "NAME": unquote(parts.path.lstrip("/")) or "postgres",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", parts.hostname or ""),
        "PORT": str(options.pop("port", parts.port or "")),
        "OPTIONS": options,
    }


def _sqlite(path: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {
            "timeout": 20,  # seconds for which a writer waits for another process
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
        # The same file as NAME, so that a process started by a test reads the test's rows.
        "TEST": {"NAME": str(path)},
    }
