"""How fast polls and streams of one user or address may come, and that others are not held up."""

from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client, override_settings

from realtime.auth.users import Identity
from realtime.consumers import rate_limits
from realtime.consumers.http import HttpError
from realtime.consumers.rate_limits import RateLimiter, limit_command, limit_request
from tests.consumers.exchange import Web, scope_of
from tests.hub.support import TOPIC

ADA = SimpleNamespace(is_authenticated=True, pk=7)
LIMITS = {"LIMITS": {"commands_per_second": 10, "commands_burst": 3}}


@pytest.fixture(autouse=True)
def fresh_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_commands", RateLimiter())
    monkeypatch.setattr(rate_limits, "_requests", RateLimiter())


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the rates; append to move it."""
    moments = [100.0]
    monkeypatch.setattr(rate_limits, "_now", lambda: moments[-1])
    return moments


@pytest.fixture
def ada(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every request be hers."""

    async def identify(self: Any) -> Identity:
        return Identity(ADA)

    monkeypatch.setattr("realtime.consumers.http.Request.identify", identify)


def scope(client: str = "9.9.9.9") -> dict[str, Any]:
    return scope_of(f"poll?topic={TOPIC}", client=client)


@override_settings(REALTIME=LIMITS)
def test_turns_beyond_the_burst_come_at_the_rate_and_then_not_at_all(now: list[float]) -> None:
    waits = [limit_request(scope(), ADA) for _ in range(13)]
    assert waits == pytest.approx([0, 0, 0] + [n / 10 for n in range(1, 11)])
    for _ in range(3):  # who is refused is not put off further by it
        with pytest.raises(HttpError) as caught:
            limit_request(scope(), ADA)
    error = caught.value
    assert (error.status, error.code, error.headers) == (429, "rate_limited", {"Retry-After": "2"})
    now.append(100.2)
    assert limit_request(scope(), ADA) == pytest.approx(0.9)
    now.append(200.0)
    assert limit_request(scope(), ADA) == 0


@override_settings(REALTIME=LIMITS)
def test_users_addresses_and_commands_have_rates_of_their_own(now: list[float]) -> None:
    others = [(scope("9.9.9.8"), None), (scope("9.9.9.9"), None), (scope(), SimpleNamespace(
        is_authenticated=True, pk=8))]  # fmt: skip
    for _ in range(3):
        assert limit_request(scope(), ADA, 0.0) == 0
    with pytest.raises(HttpError):
        limit_request(scope("9.9.9.7"), ADA, 0.0)  # from wherever she is
    for where, who in others:
        assert limit_request(where, who, 0.0) == 0
    limit_command(scope(), ADA)


@override_settings(REALTIME=LIMITS)
def test_all_who_come_through_a_proxy_that_is_not_known_are_not_taken_for_one(
    now: list[float],
) -> None:
    assert [limit_request(scope("127.0.0.1"), None, 0.0) for _ in range(100)] == [0.0] * 100
    with pytest.raises(HttpError):
        for _ in range(100):
            limit_command(scope("127.0.0.1"), None)
    with override_settings(REALTIME={**LIMITS, "TRUSTED_PROXIES": ["127.0.0.1"]}):
        for number in range(10):
            headers = {"X-Forwarded-For": f"1.1.1.1, 8.8.8.{number}"}
            limit_command(scope_of("send", "POST", headers, client="127.0.0.1"), None)
        with pytest.raises(HttpError):
            for number in range(10):
                headers = {"X-Forwarded-For": f"1.1.1.{number}, 8.8.4.4"}
                limit_request(scope_of("poll", "GET", headers, client="127.0.0.1"), None, 0.0)


def test_senders_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_CLIENTS", 3)
    for number in range(10):
        limit_request(scope(f"9.9.9.{number}"), None)
    assert list(rate_limits._requests._buckets) == [
        f"address 9.9.9.{number}" for number in (7, 8, 9)
    ]


@pytest.mark.parametrize("kind", ["poll", "sse"])
@override_settings(REALTIME=LIMITS)
def test_request_waits_for_its_turn_or_is_refused(
    web: Web, kind: str, now: list[float], ada: None
) -> None:
    url = f"{kind}?topic={TOPIC}"
    for _ in range(3):
        assert web.open(url).status == 200
    late = [web.open(url) for _ in range(10)]
    assert not [exchange for exchange in late if exchange.sent]
    refused = web.get(url)
    assert (refused.status, refused.headers["retry-after"]) == (429, "2")
    assert refused.json()["code"] == "rate_limited"
    assert refused.json()["hint"]
    web.scene.advance(0.5)
    assert 4 < len([exchange for exchange in late if exchange.sent]) < 8
    web.scene.advance(0.6)
    assert {exchange.status for exchange in late} == {200}


def test_reconnecting_tabs_of_one_user_are_not_held_up(
    web: Web, now: list[float], ada: None
) -> None:
    """Each opens a stream without topics first, and then one with them."""
    tabs = [[web.open("sse?topic="), web.open(f"sse?topic={TOPIC}")] for _ in range(20)]
    assert {exchange.status for tab in tabs for exchange in tab} == {200}


@pytest.mark.urls("tests.wsgi_urls")
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("two_aliases")
@override_settings(REALTIME=LIMITS)
def test_poll_of_wsgi_is_refused_at_once(client: Client, now: list[float]) -> None:
    answers = [
        client.get("/realtime/poll?topic=public.rates", REMOTE_ADDR="9.9.9.9") for _ in range(4)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["code"] == "rate_limited"
    assert answers[-1].headers["Retry-After"] == "1"
    other = client.get("/realtime/poll?topic=public.rates", REMOTE_ADDR="9.9.9.8")
    assert other.status_code == 200
