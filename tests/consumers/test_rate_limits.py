"""Rate limits of polls, streams and commands, by user or address."""

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
    """The clock of the rate limits; append to move it."""
    moments = [100.0]
    monkeypatch.setattr(rate_limits, "_now", lambda: moments[-1])
    return moments


@pytest.fixture
def ada(monkeypatch: pytest.MonkeyPatch) -> None:
    """Identify every client as Ada."""

    async def identify(self: Any) -> Identity:
        return Identity(ADA)

    monkeypatch.setattr("realtime.consumers.http.Request.identify", identify)


def scope(client: str = "9.9.9.9") -> dict[str, Any]:
    return scope_of(f"poll?topic={TOPIC}", client=client)


@override_settings(REALTIME=LIMITS)
def test_requests_beyond_the_burst_are_delayed_and_then_refused(now: list[float]) -> None:
    delays = [limit_request(scope(), ADA) for _ in range(13)]
    assert delays == pytest.approx([0, 0, 0] + [n / 10 for n in range(1, 11)])
    for _ in range(3):  # a refused request reserves no token
        with pytest.raises(HttpError) as caught:
            limit_request(scope(), ADA)
    error = caught.value
    assert (error.status, error.code, error.headers) == (429, "rate_limited", {"Retry-After": "2"})
    now.append(100.2)
    assert limit_request(scope(), ADA) == pytest.approx(0.9)
    now.append(200.0)
    assert limit_request(scope(), ADA) == 0


@override_settings(REALTIME=LIMITS)
def test_users_addresses_and_commands_have_separate_limits(now: list[float]) -> None:
    others = [(scope("9.9.9.8"), None), (scope("9.9.9.9"), None), (scope(), SimpleNamespace(
        is_authenticated=True, pk=8))]  # fmt: skip
    for _ in range(3):
        assert limit_request(scope(), ADA, 0.0) == 0
    with pytest.raises(HttpError):
        limit_request(scope("9.9.9.7"), ADA, 0.0)  # from another address
    for other, user in others:
        assert limit_request(other, user, 0.0) == 0
    limit_command(scope(), ADA)


@override_settings(REALTIME=LIMITS)
def test_clients_behind_an_unknown_proxy_do_not_share_a_limit(
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


def test_the_number_of_remembered_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_CLIENTS", 3)
    for number in range(10):
        limit_request(scope(f"9.9.9.{number}"), None)
    assert list(rate_limits._requests._buckets) == [
        f"address 9.9.9.{number}" for number in (7, 8, 9)
    ]


@pytest.mark.parametrize("kind", ["poll", "sse"])
@override_settings(REALTIME=LIMITS)
def test_a_request_is_delayed_or_refused(web: Web, kind: str, now: list[float], ada: None) -> None:
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


def test_reconnecting_tabs_of_one_user_are_not_delayed(
    web: Web, now: list[float], ada: None
) -> None:
    """Each tab first opens a stream without topics, and then one with them."""
    tabs = [[web.open("sse?topic="), web.open(f"sse?topic={TOPIC}")] for _ in range(20)]
    assert {exchange.status for tab in tabs for exchange in tab} == {200}


@pytest.mark.urls("tests.wsgi_urls")
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("two_aliases")
@override_settings(REALTIME=LIMITS)
def test_a_poll_under_wsgi_is_refused_without_delay(client: Client, now: list[float]) -> None:
    answers = [
        client.get("/realtime/poll?topic=public.rates", REMOTE_ADDR="9.9.9.9") for _ in range(4)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["code"] == "rate_limited"
    assert answers[-1].headers["Retry-After"] == "1"
    other = client.get("/realtime/poll?topic=public.rates", REMOTE_ADDR="9.9.9.8")
    assert other.status_code == 200
