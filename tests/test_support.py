"""What the tests themselves stand on."""

import pytest

from tests.support.databases import database_config
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
