"""No event is lost between rendering a page and subscribing."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.js.support import publish_event, wait_for
from tests.support.server import Server

TRANSPORTS = ["websocket", "sse", "longpoll", "poll"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_event_between_the_query_and_the_subscribe_is_delivered(
    shared_server: Server, open_window: Callable[..., Any], transport: str
) -> None:
    topic = f"public.rendered-{transport}"
    page = open_window(shared_server, "/elements/")
    held: list[Any] = []  # the requests for the client
    page.route("**/realtime.js", lambda route: held.append(route))
    page.goto(f"/rendered/{topic}/?transport={transport}", wait_until="commit")
    page.wait_for_selector("#count")
    assert page.inner_text("#count") == "0", "the page was rendered before the event"
    # The client's script has not loaded yet.
    while not held:
        page.wait_for_event("request")
    publish_event(shared_server, topic, "counted", "1")
    for route in held:
        route.continue_()
    wait_for(page, "heard.length >= 1")
    publish_event(shared_server, topic, "counted", "2")
    wait_for(page, "heard.length >= 2")
    assert page.evaluate("heard") == ["1", "2"]
    assert page.evaluate("realtime.transport") == transport


def test_page_older_than_the_log_is_reset_once(
    shared_server: Server, open_window: Callable[..., Any]
) -> None:
    """The page is as old as one from a cache; the events since then were trimmed."""
    topic = "tiny.rendered"
    page = open_window(shared_server, "/elements/")
    held: list[Any] = []  # the requests for the client
    page.route("**/realtime.js", lambda route: held.append(route))
    page.goto(f"/rendered/{topic}/", wait_until="commit")
    page.wait_for_selector("#count")
    shared_server.publish(topic, 40, "counted")  # it keeps five
    shared_server.run(f"from realtime.retention import trim_all; trim_all([{topic!r}])")
    while not held:
        page.wait_for_event("request")
    for route in held:
        route.continue_()
    wait_for(page, "heard.length >= 1")
    publish_event(shared_server, topic, "counted", "after")
    wait_for(page, "heard.length >= 2")
    assert page.evaluate("heard") == ["realtime-reset", "after"]
