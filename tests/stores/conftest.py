"""Databases for the store tests: a test can lock, kill or replace its own files."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from pytest_django import DjangoDbBlocker

from tests.support.databases import database_config

AddDatabase = Callable[[dict[str, Any]], str]


@pytest.fixture
def database(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Allow database access from any thread, without a transaction around the test."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def add_database(database: None) -> Iterator[AddDatabase]:
    """Add an alias for an entry of DATABASES until the test ends."""
    added: list[str] = []

    def add(entry: dict[str, Any]) -> str:
        alias = f"added_{uuid.uuid4().hex[:8]}"
        settings = connections.configure_settings({"default": {}, alias: entry})
        connections.settings[alias] = settings[alias]
        added.append(alias)
        return alias

    yield add
    for alias in added:
        connections[alias].close()
        del connections[alias], connections.settings[alias]


@pytest.fixture(scope="session")
def migrated_file(
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A SQLite file with every table, for other fixtures to copy."""
    path = tmp_path_factory.mktemp("migrated") / "migrated.sqlite3"
    settings = connections.configure_settings({"default": {}, "migrated": plain(path)})
    connections.settings["migrated"] = settings["migrated"]
    with django_db_blocker.unblock():
        call_command("migrate", database="migrated", verbosity=0, run_syncdb=True)
        connections["migrated"].close()
    del connections["migrated"], connections.settings["migrated"]
    return path


@pytest.fixture
def sqlite_file(migrated_file: Path, tmp_path: Path) -> Path:
    """A SQLite file of this test."""
    path = tmp_path / "log.sqlite3"
    shutil.copy(migrated_file, path)
    return path


@pytest.fixture
def sqlite_alias(add_database: AddDatabase, sqlite_file: Path) -> str:
    """The file with Django's default settings."""
    return add_database(plain(sqlite_file))


@pytest.fixture
def wal_alias(add_database: AddDatabase, sqlite_file: Path) -> str:
    """The file with the settings that the documentation recommends."""
    return add_database(database_config(str(sqlite_file)))


def plain(path: Path) -> dict[str, Any]:
    """Return the entry of DATABASES for a SQLite file with Django's default settings."""
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}
