"""From a rendered page to a live one without a hole: what came in between is delivered."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.js.support import tell, wait_for
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
    # Here the client's script is still on its way.
    while not held:
        page.wait_for_event("request")
    tell(shared_server, topic, "counted", "1")
    for route in held:
        route.continue_()
    wait_for(page, "heard.length >= 1")
    tell(shared_server, topic, "counted", "2")
    wait_for(page, "heard.length >= 2")
    assert page.evaluate("heard") == ["1", "2"]
    assert page.evaluate("realtime.transport") == transport


def test_page_older_than_the_log_is_told_once(
    shared_server: Server, open_window: Callable[..., Any]
) -> None:
    """As one that comes out of a cache: what was trimmed since is a hole."""
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
    tell(shared_server, topic, "counted", "after")
    wait_for(page, "heard.length >= 2")
    assert page.evaluate("heard") == ["realtime-reset", "after"]
