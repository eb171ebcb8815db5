"""Fixtures for real servers: PostgreSQL, MariaDB, Redis and a Chromium."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pytest_django import DjangoDbBlocker

from tests.support.databases import database_config
from tests.support.mariadb import GET_DRIVER, GET_MARIADB, mariadb_driver, mariadb_path, run_mariadb
from tests.support.redis import GET_REDIS, RedisCluster, RedisServer, redis_binary
from tests.support.services import (
    CHROMIUM_ARGS,
    GET_CHROMIUM,
    GET_POSTGRES,
    PostgresServer,
    chromium_path,
    postgres_binaries,
    require,
    run_postgres,
)


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """The URL of a temporary PostgreSQL that runs for the whole test session."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        require(None, "psycopg: pip install 'psycopg[binary]'")
    with run_postgres(require(postgres_binaries(), GET_POSTGRES)) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def postgres_alias(
    postgres_dsn: str, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[str]:
    """The migrated database alias "postgres"; tests list it in `databases=`."""
    from django.core.management import call_command
    from django.db import connections

    config = {"default": {}, "postgres": database_config(postgres_dsn)}
    connections.settings["postgres"] = connections.configure_settings(config)["postgres"]
    with django_db_blocker.unblock():
        call_command("migrate", database="postgres", verbosity=0, run_syncdb=True)
    yield "postgres"
    with django_db_blocker.unblock():
        connections["postgres"].close()
    del connections["postgres"], connections.settings["postgres"]


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL for one test, which can stop and start it."""
    with PostgresServer(require(postgres_binaries(), GET_POSTGRES)) as server:
        yield server


@pytest.fixture
def postgres_database(postgres_dsn: str) -> Iterator[str]:
    """The URL of an empty database for one test."""
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield urlsplit(postgres_dsn)._replace(path=f"/{name}").geturl()
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def mariadb_dsn() -> Iterator[str]:
    """The URL of an empty database of a temporary MariaDB, which runs for the whole session.

    Its names ignore case, as they do by default.
    """
    require(mariadb_driver(), GET_DRIVER)
    with run_mariadb(require(mariadb_path(), GET_MARIADB)) as dsn:
        _create_database(dsn, "realtime")
        yield dsn


@pytest.fixture(scope="session")
def mariadb_alias(
    mariadb_dsn: str, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[str]:
    """The migrated database alias "mariadb"."""
    from django.core.management import call_command
    from django.db import connections

    config = {"default": {}, "mariadb": database_config(mariadb_dsn)}
    connections.settings["mariadb"] = connections.configure_settings(config)["mariadb"]
    with django_db_blocker.unblock():
        call_command("migrate", database="mariadb", verbosity=0, run_syncdb=True)
    yield "mariadb"
    with django_db_blocker.unblock():
        connections["mariadb"].close()
    del connections["mariadb"], connections.settings["mariadb"]


@pytest.fixture
def mariadb_database(mariadb_dsn: str) -> str:
    """The URL of an empty database for one test."""
    name = f"test_{uuid.uuid4().hex}"
    _create_database(mariadb_dsn, name)
    return urlsplit(mariadb_dsn)._replace(path=f"/{name}").geturl()


def _create_database(dsn: str, name: str) -> None:
    entry = database_config(dsn)
    import MySQLdb  # database_config() lets PyMySQL have this name

    connection = MySQLdb.connect(unix_socket=entry["HOST"], user=entry["USER"])
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    connection.close()


@pytest.fixture(scope="session")
def redis_path() -> Path:
    """The path of the redis-server that the tests start."""
    return require(redis_binary(), GET_REDIS)


@pytest.fixture(scope="session")
def redis_url(redis_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis that runs for the whole test session, without persistence."""
    with RedisServer(redis_path, tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def redis_server(redis_path: Path, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test, which can stop, pause and restart it."""
    with RedisServer(redis_path, tmp_path / "redis") as server:
        yield server


@pytest.fixture(scope="module")
def redis_cluster(
    redis_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisCluster]:
    """A Redis Cluster of three nodes."""
    with RedisCluster(redis_path, tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium, for Playwright's `executable_path`."""
    return require(chromium_path(), GET_CHROMIUM)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[object]:
    """A Chromium that Playwright drives, with the back/forward cache on, as users have it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        require(None, "Playwright: pip install playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=CHROMIUM_ARGS,
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield browser
        browser.close()
