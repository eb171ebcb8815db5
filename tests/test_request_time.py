"""The start of a request by the store's clock, even if the machines' clocks differ from it."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.template import RequestContext, Template
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from realtime import publish, request_time
from realtime.exceptions import StoreUnavailable
from realtime.request_time import (
    MARGIN_SECONDS,
    MEASURE_SECONDS,
    UNKNOWN_SECONDS,
    ameasure,
    began,
    store_time,
)
from realtime.stores import get_store
from realtime.testing import RealtimeClient

HOUR = 3_600.0


@pytest.fixture(autouse=True)
def memory_store() -> Iterator[None]:
    with override_settings(REALTIME={"STORE": {"BACKEND": "realtime.stores.memory.MemoryStore"}}):
        yield
    request_time._measured = None


def test_store_time_is_by_the_stores_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_store(), "clock", lambda: time.time() + HOUR)
    moment = time.monotonic()
    assert store_time(moment) == pytest.approx(time.time() + HOUR - MARGIN_SECONDS, abs=0.5)
    assert store_time(moment - 10) == pytest.approx(store_time(moment) - 10, abs=1e-6)


def test_setting_this_machines_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = time.monotonic()
    before = store_time(moment)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + HOUR)
    assert store_time(moment) == before


def test_store_time_is_early_while_the_store_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def clock() -> float:
        asked.append(1)
        raise StoreUnavailable("MemoryStore", "not reachable")

    monkeypatch.setattr(get_store(), "clock", clock)
    for _ in range(3):
        moment = store_time(time.monotonic())
        assert moment == pytest.approx(time.time() - UNKNOWN_SECONDS, abs=0.5)
    assert len(asked) == 1, "an unreachable store is not asked again for every page"


def test_a_store_that_became_unavailable_is_asked_once_a_minute_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    now = time.monotonic()
    monkeypatch.setattr(get_store(), "clock", lambda: time.time() + HOUR)
    before = store_time(now)

    def clock() -> float:
        asked.append(1)
        raise StoreUnavailable("MemoryStore", "not reachable")

    monkeypatch.setattr(get_store(), "clock", clock)
    monkeypatch.setattr(time, "monotonic", lambda: now + MEASURE_SECONDS + 1)
    for _ in range(3):
        assert store_time(now) == before
    assert len(asked) == 1


def test_the_stores_clock_is_read_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(get_store(), "clock", lambda: asked.append(1) or time.time())
    now = time.monotonic()
    for _ in range(3):
        store_time(now)
    assert len(asked) == 1
    monkeypatch.setattr(time, "monotonic", lambda: now + MEASURE_SECONDS + 1)
    store_time(now)
    assert len(asked) == 2


async def test_an_event_loop_does_not_wait_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    def clock() -> float:
        raise AssertionError("asked on the event loop")

    monkeypatch.setattr(get_store(), "clock", clock)
    assert store_time(time.monotonic()) == pytest.approx(time.time() - UNKNOWN_SECONDS, abs=0.5)
    monkeypatch.undo()
    await ameasure(get_store())
    assert store_time(time.monotonic()) == pytest.approx(time.time() - MARGIN_SECONDS, abs=0.5)


@pytest.mark.django_db
@override_settings(REALTIME={})
def test_the_store_is_not_asked_inside_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    def clock() -> float:
        raise AssertionError("asked while the test's transaction is open")

    monkeypatch.setattr(get_store(), "clock", clock)
    assert store_time(time.monotonic()) == pytest.approx(time.time() - UNKNOWN_SECONDS, abs=0.5)


# Requests


def page(request: HttpRequest) -> HttpResponse:
    moment = began(request)
    assert moment is not None
    assert 0 <= time.monotonic() - moment < 60
    publish("public.news", "between")  # too late for the page to show it
    text = (
        "{% load realtime %}{% realtime_script %}"
        "{% realtime_subscribe 'public.news' %}{% realtime_subscribe 'public.news' since='now' %}"
    )
    return HttpResponse(Template(text).render(RequestContext(request)))


async def apage(request: HttpRequest) -> HttpResponse:
    return await sync_to_async(page)(request)


urlpatterns = [path("", page), path("async/", apage)]


def since_of(response: Any) -> str:
    text = response.content.decode()
    [script, element] = [part.split('"')[0] for part in text.split('since="')[1:]]
    assert script == element
    assert 'name="public.news"></realtime-topic>' in text, "since='now' adds no attribute"
    return str(element)


@pytest.mark.urls(__name__)
def test_a_page_subscribes_from_the_start_of_its_request() -> None:
    since = since_of(Client().get("/"))
    assert float(since[1:]) == pytest.approx(time.time() - MARGIN_SECONDS, abs=5)


@pytest.mark.urls(__name__)
async def test_a_page_of_an_asgi_server_does_too() -> None:
    for url in ("/", "/async/"):
        since = since_of(await AsyncClient().get(url))
        assert float(since[1:]) == pytest.approx(time.time() - MARGIN_SECONDS, abs=5)


@pytest.mark.urls(__name__)
def test_an_event_between_the_query_and_the_subscribe_is_delivered() -> None:
    with RealtimeClient() as browser:
        since = since_of(Client().get("/"))
        publish("public.news", "before")
        answer = browser.subscribe("public.news", since=since)
        assert answer["recovered"] is True
        received = [browser.receive_event().name for _ in range(2)]
        assert received == ["between", "before"]


def test_a_request_that_no_handler_received_has_no_start() -> None:
    assert began(HttpRequest()) is None
