"""Layers over real databases, and other processes that share them."""

import asyncio
import math
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from pytest_django import DjangoDbBlocker

from realtime.layers.database import DatabaseChannelLayer
from tests.layers.node import Node
from tests.support.databases import database_config
from tests.support.waiting import await_until


class Database:
    """A database with the layer's tables."""

    def __init__(self, alias: str, url: str) -> None:
        self.alias = alias
        self.url = url

    def rows(self, model: str) -> Any:
        return apps.get_model("realtime", model).objects.using(self.alias)

    async def count(self, model: str) -> int:
        count: int = await self.run(self.rows(model).count)
        return count

    async def expire(self, model: str) -> None:
        """Make all current rows expire."""
        await self.run(lambda: self.rows(model).update(expires=1.0))

    async def run(self, function: Callable[[], Any]) -> Any:
        """Call a function in a thread and close the thread's connection."""

        def call() -> Any:
            try:
                return function()
            finally:
                connections[self.alias].close()

        return await asyncio.to_thread(call)

    def clear(self) -> None:
        for model in ("LayerMessage", "LayerMember", "LayerInbox"):
            self.rows(model).all().delete()


@pytest.fixture(scope="session")
def migrated_file(
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A SQLite file with this app's tables, which tests copy."""
    path = tmp_path_factory.mktemp("layers") / "migrated.sqlite3"
    with sqlite_alias("migrated", path), django_db_blocker.unblock():
        call_command("migrate", "realtime", database="migrated", verbosity=0)
        connections["migrated"].close()
    return path


@pytest.fixture
def sqlite(
    migrated_file: Path, django_db_blocker: DjangoDbBlocker, tmp_path: Path
) -> Iterator[Database]:
    """A SQLite file of this test alone, which it can lock and replace."""
    path = tmp_path / "layer.sqlite3"
    shutil.copy(migrated_file, path)
    with sqlite_alias("layer", path), django_db_blocker.unblock():
        yield Database("layer", str(path))
        connections["layer"].close()


@contextmanager
def sqlite_alias(alias: str, path: Path) -> Iterator[None]:
    config = {"default": {}, alias: database_config(str(path))}
    connections.settings[alias] = connections.configure_settings(config)[alias]
    yield
    del connections[alias], connections.settings[alias]


@pytest.fixture
def postgres(
    postgres_alias: str, postgres_dsn: str, django_db_blocker: DjangoDbBlocker
) -> Iterator[Database]:
    """The session's PostgreSQL, with empty tables."""
    database = Database(postgres_alias, postgres_dsn)
    with django_db_blocker.unblock():
        database.clear()
        yield database
        database.clear()


@pytest.fixture
def mariadb(
    mariadb_alias: str, mariadb_dsn: str, django_db_blocker: DjangoDbBlocker
) -> Iterator[Database]:
    """The session's MariaDB, with empty tables."""
    database = Database(mariadb_alias, mariadb_dsn)
    with django_db_blocker.unblock():
        database.clear()
        yield database
        database.clear()


def close(alias: str) -> None:
    """Close this thread's connection, even to an in-memory database, which Django keeps open."""
    BaseDatabaseWrapper.close(connections[alias])


@pytest.fixture
def memory(django_db_blocker: DjangoDbBlocker) -> Iterator[Database]:
    """An in-memory SQLite database without tables."""
    config = {"default": {}, "memory": database_config(":memory:")}
    connections.settings["memory"] = connections.configure_settings(config)["memory"]
    with django_db_blocker.unblock():
        yield Database("memory", ":memory:")
        close("memory")
    del connections["memory"], connections.settings["memory"]


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def database(request: pytest.FixtureRequest) -> Database:
    """Each database in turn."""
    database: Database = request.getfixturevalue(request.param)
    return database


@pytest.fixture
async def make_layer(database: Database) -> AsyncIterator[Callable[..., DatabaseChannelLayer]]:
    """Make layers over the database; two of them behave like two processes."""
    made = []

    def make(**options: Any) -> DatabaseChannelLayer:
        made.append(DatabaseChannelLayer(**{"using": database.alias} | options))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


def disable_listen(layer: DatabaseChannelLayer) -> None:
    """Keep a new layer from using LISTEN, so that it must poll."""
    layer._worker._listener.due = math.inf


async def await_polled(layer: DatabaseChannelLayer) -> None:
    """Wait until a layer has polled once, after which it waits for its interval."""
    await await_until(lambda: not layer._worker._may_have_messages, "the layer has polled")


async def await_listening(layer: DatabaseChannelLayer) -> None:
    """Wait until LISTEN is verified for a layer."""
    await await_until(lambda: layer._worker._listener.verified, "LISTEN is verified")


def end_connections(alias: str, query: str) -> None:
    """End the other connections to PostgreSQL whose last statement matches the pattern."""
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND query LIKE %s",
            [query],
        )


@pytest.fixture
def start_node(database: Database) -> Iterator[Callable[[], Node]]:
    """Start processes that join the group "all"."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Node(database.url))
