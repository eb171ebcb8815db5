"""Rate limits of polls, streams and commands, by user or address."""

import contextlib
import logging
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client, override_settings

from realtime.auth.users import Identity
from realtime.consumers import rate_limits
from realtime.consumers.http import HttpError
from realtime.consumers.rate_limits import (
    AnonymousLimiter,
    limit_command,
    limit_publish,
    limit_request,
)
from tests.consumers.exchange import Web, scope_of
from tests.hub.support import TOPIC

ADA = SimpleNamespace(is_authenticated=True, pk=7)
LIMITS = {"LIMITS": {"commands_per_second": 10, "commands_burst": 3}}


@pytest.fixture(autouse=True)
def _few_requests_are_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "ANONYMOUS_BURST_SECONDS", 10)


@pytest.fixture(autouse=True)
def fresh_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    for limiter in (rate_limits._commands, rate_limits._requests, rate_limits._published):
        monkeypatch.setattr(limiter, "_buckets", OrderedDict())
    monkeypatch.setattr(rate_limits, "_anonymous", AnonymousLimiter())


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
        assert limit_request(scope(), ADA, can_wait=False) == 0
    with pytest.raises(HttpError):
        limit_request(scope("9.9.9.7"), ADA, can_wait=False)  # from another address
    for other, user in others:
        assert limit_request(other, user, can_wait=False) == 0
    limit_command(scope(), ADA)


@override_settings(REALTIME=LIMITS)
def test_clients_behind_an_unknown_proxy_share_one_generous_limit_of_the_process(
    now: list[float],
) -> None:
    """The limit is that of no single client: 2,000 requests at once, 200 a second."""
    for number in range(2_000):
        assert limit_request(scope(f"10.0.0.{number % 250}"), None, can_wait=False) == 0
    with pytest.raises(HttpError) as caught:
        limit_request(scope("127.0.0.1"), None, can_wait=False)
    error = caught.value
    assert (error.status, error.code, error.headers) == (429, "rate_limited", {"Retry-After": "1"})
    assert limit_request(scope("9.9.9.9"), None, can_wait=False) == 0  # a client of its own
    assert limit_request(scope("127.0.0.1"), ADA, can_wait=False) == 0
    now.append(101.0)
    for _ in range(200):
        assert limit_request(scope("127.0.0.1"), None, can_wait=False) == 0
    with pytest.raises(HttpError):
        limit_request(scope("127.0.0.1"), None, can_wait=False)


@override_settings(REALTIME={"LIMITS": {"anonymous_requests_per_second": 10}})
def test_requests_beyond_the_shared_limit_are_delayed_and_then_refused(now: list[float]) -> None:
    delays = [limit_request(scope("10.0.0.1"), None) for _ in range(110)]
    assert delays == pytest.approx([0] * 100 + [n / 10 for n in range(1, 11)])
    with pytest.raises(HttpError) as caught:
        limit_request(scope("10.0.0.2"), None)
    assert caught.value.headers == {"Retry-After": "2"}


@override_settings(REALTIME={"LIMITS": {"anonymous_requests_per_second": 10}})
def test_the_shared_limit_is_logged_once_until_it_is_over(
    now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "realtime")
    for moment in (100.0, 101.0, 102.0):  # a flood, which gets ten requests a second
        now.append(moment)
        for _ in range(150):
            with contextlib.suppress(HttpError):
                limit_request(scope("10.0.0.1"), None, can_wait=False)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert 'REALTIME["TRUSTED_PROXIES"]' in caplog.text
    now.append(120.0)
    limit_request(scope("10.0.0.1"), None)
    limit_request(scope("10.0.0.1"), None)
    assert len(caplog.records) == 2
    assert "served again" in caplog.records[1].message


@override_settings(REALTIME=LIMITS)
def test_commands_of_an_address_are_limited_even_if_it_is_shared(now: list[float]) -> None:
    with pytest.raises(HttpError):
        for _ in range(4):
            limit_command(scope("127.0.0.1"), None)
    with override_settings(REALTIME={**LIMITS, "TRUSTED_PROXIES": ["127.0.0.1"]}):
        for number in range(10):
            headers = {"X-Forwarded-For": f"1.1.1.1, 8.8.8.{number}"}
            limit_command(scope_of("send", "POST", headers, client="127.0.0.1"), None)
        with pytest.raises(HttpError):
            for number in range(10):
                headers = {"X-Forwarded-For": f"1.1.1.{number}, 8.8.4.4"}
                request = scope_of("poll", "GET", headers, client="127.0.0.1")
                limit_request(request, None, can_wait=False)


def test_a_client_that_polls_100_topics_every_5_seconds_is_served_at_once(
    now: list[float],
) -> None:
    for number in range(50):
        now.append(100.0 + 5 * number)
        assert limit_request(scope(), ADA, 100) == 0


def test_a_client_that_asks_for_100_topics_in_a_loop_is_slowed_to_the_rate(
    now: list[float],
) -> None:
    """Each of its requests waits for its own 100 tokens; none is refused."""
    for number in range(20):
        delay = limit_request(scope(), ADA, 100)
        assert delay == pytest.approx(0 if number < 2 else 2)
        now.append(now[-1] + delay)


def test_concurrent_requests_for_100_topics_are_refused(now: list[float]) -> None:
    delays = [limit_request(scope(), ADA, 100) for _ in range(3)]
    assert delays == [0, 0, 2]
    with pytest.raises(HttpError) as caught:
        limit_request(scope(), ADA, 100)
    assert caught.value.headers == {"Retry-After": "4"}
    with pytest.raises(HttpError):
        limit_request(scope(), ADA, 1)


@override_settings(REALTIME={"LIMITS": {"topics": 500}})
def test_a_request_for_more_topics_than_the_burst_is_served_after_a_pause(
    now: list[float],
) -> None:
    assert limit_request(scope(), ADA, 500, can_wait=False) == 0
    with pytest.raises(HttpError):
        limit_request(scope(), ADA, 1, can_wait=False)
    now.append(104.0)
    assert limit_request(scope(), ADA, 500, can_wait=False) == 0


def test_publishes_over_http_are_limited_in_bytes_by_user_or_address(now: list[float]) -> None:
    for _ in range(4):
        limit_publish(scope(), ADA, 65_536)
    with pytest.raises(HttpError) as caught:
        limit_publish(scope(), ADA, 65_536)
    error = caught.value
    assert (error.code, error.headers) == ("rate_limited", {"Retry-After": "1"})
    assert "65536 a second, 262144 at once" in error.reason
    limit_publish(scope(), None, 65_536)
    now.append(101.0)
    limit_publish(scope(), ADA, 65_536)
    with pytest.raises(HttpError):
        limit_publish(scope(), ADA, 1)


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


@pytest.mark.parametrize("kind", ["poll", "sse"])
def test_a_request_costs_one_token_for_each_topic(
    web: Web, kind: str, now: list[float], ada: None
) -> None:
    topics = "&".join(f"topic={TOPIC}{number}" for number in range(100))
    for _ in range(2):
        assert web.open(f"{kind}?{topics}").status == 200
    late = web.open(f"{kind}?topic={TOPIC}")
    assert not late.sent  # it waits for a token
    web.scene.advance(0.1)
    assert late.status == 200


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
