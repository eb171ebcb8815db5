"""The JavaScript client in a real Chromium, against a real Daphne."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.js.support import now, wait_for, wait_for_state
from tests.support.server import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        yield server


@pytest.fixture
def open_page(open_window, server) -> Callable:
    """Open the page that follows a topic."""

    def open_page(topic: str = "public.news", query: str = "", cookie: str | None = None):
        page = open_window(server, f"/page/{topic}/{query}", cookie)
        wait_for_state(page, "connected")
        return page

    return open_page


def wait_for_events(page, *expected: object) -> None:
    """Wait until the page has these events, in this order, and no others."""
    wait_for(page, f"seen.length >= {len(expected)}")
    assert page.evaluate("seen") == list(expected)


def resets(page) -> int:
    return int(page.evaluate("sessionStorage.resets ?? 0"))


def test_pages_receive_events_in_order_under_a_strict_csp(open_page, server) -> None:
    pages = [open_page(), open_page()]
    server.publish("public.news", 20)
    for page in pages:
        wait_for_events(page, *range(1, 21))
        assert page.evaluate("realtime.transport") == "websocket"


def test_after_a_crash_a_page_catches_up_without_a_reload(open_page, server) -> None:
    page = open_page()
    page.evaluate("window.sameDocument = true")
    server.publish("public.news", 1)
    wait_for_events(page, 1)
    server.kill9()
    wait_for_state(page, "waiting")
    server.publish("public.news", 20)
    server.start()
    wait_for_events(page, *range(1, 22))
    assert page.evaluate("sameDocument") is True
    assert resets(page) == 0


def trim(server: Server, topic: str) -> None:
    """Publish so many events that a trim removes all earlier ones."""
    server.publish(topic, 10)
    server.run("from django.core.management import call_command; call_command('realtime', 'trim')")


@pytest.mark.parametrize("cached", [False, True])
def test_a_trimmed_log_resets_a_page_that_reloads_only_once(open_page, server, cached) -> None:
    server.publish("tiny.log", 1)
    since = server.run("from realtime import log; print(log.head('tiny.log'))").strip()
    page = open_page("tiny.log", f"?reload&since={since}" if cached else "?reload")
    server.publish("tiny.log", 1)
    wait_for_events(page, 2)
    page.evaluate("window.before = true")
    server.kill9()
    wait_for_state(page, "waiting")
    trim(server, "tiny.log")
    server.start()
    wait_for(page, "window.before === undefined && realtime.state === 'connected'")
    server.publish("tiny.log", 1)
    wait_for_events(page, 13)
    assert resets(page) == 1


def test_a_page_that_was_offline_misses_no_event(open_page, server) -> None:
    page = open_page()
    page.context.set_offline(True)
    server.publish("public.news", 20)
    page.context.set_offline(False)
    wait_for_events(page, *range(1, 21))
    wait_for_state(page, "connected")


def test_a_page_from_the_back_forward_cache_catches_up(open_page, server) -> None:
    page = open_page()
    page.evaluate("window.sameDocument = true")
    page.click("a")
    page.wait_for_url("**/public.other/")
    server.publish("public.news", 20)
    page.evaluate("history.back()")
    wait_for(page, "window.sameDocument === true")
    assert page.evaluate("persisted") is True
    wait_for_events(page, *range(1, 21))


def test_a_page_ignores_events_that_it_caused(open_page) -> None:
    page, other = open_page(), open_page()
    page.evaluate("fetch('/publish/excluded/', {headers: realtime.headers})")
    wait_for_events(other, 1)
    page.evaluate("fetch('/publish/sync/')")
    wait_for_events(page, 2)


def test_actions_client_events_and_signing_out(open_page, server) -> None:
    page = open_page("orders.1", cookie=server.sign_in()["Cookie"])
    answer = page.evaluate("topic.call('rename', 'B')")
    assert answer == {"pk": 1, "name": "B", "by": "ada"}
    page.evaluate("topic.publish('comment', 'hello')")
    wait_for_events(page, 1)
    refused = page.evaluate(
        "topic.call('boom', 'invalid').catch(error => [error.code, error.name])"
    )
    assert refused == ["invalid", "RealtimeError"]
    page.evaluate("since => { realtime.since = since; }", now())
    # Playwright would call the function that on() returns.
    page.evaluate("void realtime.user.on('*', data => seen.push(data))")
    page.evaluate("realtime.addEventListener('userchange', event => seen.push(event.userId))")
    user = page.evaluate("realtime.userId")
    wait_for(page, f"realtime.user.name === 'user.{user}'")
    server.publish(f"user.{user}", 1)
    wait_for_events(page, 1, 0)
    page.evaluate("fetch('/logout/').then(() => realtime.reconnect())")
    wait_for(page, "seen.length === 4")
    assert set(page.evaluate("seen.slice(2)")) == {"forbidden", None}


def test_too_large_or_deep_commands_are_refused_and_the_page_stays_connected(
    open_page, server
) -> None:
    cookie = server.sign_in()["Cookie"]
    page = open_page("orders.1", cookie=cookie)
    page.evaluate("""() => {
      let deep = 0;
      for (let level = 0; level < 150; level += 1) deep = [deep];
      window.codes = [];
      for (let number = 0; number < 12; number += 1) {
        const data = number % 2 ? deep : "x".repeat(70_000);
        topic.publish("typing", data).catch(({code}) => codes.push(code));
      }
    }""")
    wait_for(page, "codes.length === 12")
    assert page.evaluate("codes") == ["too_large", "bad_frame"] * 6
    server.publish("orders.1", 1)
    wait_for_events(page, 1)
    assert page.evaluate("realtime.state") == "connected"
