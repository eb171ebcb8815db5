"""The element and the header with the real htmx 2 and 4, in a real Chromium."""

from collections.abc import Callable

import pytest

from tests.js.support import publish_event, wait_for, wait_for_heard

VERSIONS = [2, 4]


@pytest.fixture(params=VERSIONS)
def topic(request: pytest.FixtureRequest) -> str:
    """A topic that only this test uses, one for each htmx."""
    return f"public.{request.node.originalname.removeprefix('test_')}-{request.param}"


@pytest.fixture
def open_page(open_window, shared_server, topic) -> Callable:
    """Open a page with the htmx version in the topic's name."""

    def open_page():
        page = open_window(shared_server, f"/htmx/{topic[-1]}/{topic}/")
        wait_for(page, "window.htmx && realtime.state === 'connected'")
        return page

    return open_page


def test_an_event_swaps_in_an_element_that_follows_from_its_own_cursor(
    open_page, shared_server, topic
) -> None:
    publish_event(shared_server, topic, "paid", 0)
    page = open_page()
    page.evaluate("first.setAttribute('last', 1)")  # the event shows that it follows
    wait_for_heard(page, ["realtime:paid", "first", "0"])
    publish_event(shared_server, topic, "paid", 1)
    wait_for(page, "heard.length >= 2")
    publish_event(shared_server, topic, "shipped", 2)
    wait_for(page, "heard.length >= 4 && orders.textContent.trim() === '3'")
    publish_event(shared_server, topic, "paid", 3)
    wait_for(page, "heard.length >= 6")
    publish_event(shared_server, topic, "shipped", 4)
    wait_for(page, "heard.length >= 8 && orders.textContent.trim() === '5'")
    publish_event(shared_server, topic, "paid", 5)
    wait_for(page, "heard.length >= 10")
    heard = page.evaluate("heard")
    assert [one[2] for one in heard if one[1] == "first"] == ["0", "1", "2", "3", "4", "5"]
    # The first fragment gets 1 and 3; the second replaces it and starts with 3 again.
    assert [one[2] for one in heard if one[1] == "late"] == ["1", "3", "3", "5"]
    assert len(heard) == 10


def test_only_the_page_of_an_htmx_request_ignores_its_events(
    open_page, shared_server, topic
) -> None:
    publish_event(shared_server, topic, "paid", 0)
    page, other = open_page(), open_page()
    for each in (page, other):
        each.evaluate("first.setAttribute('last', 1)")
        wait_for_heard(each, ["realtime:paid", "first", "0"])
    page.click("#own")
    wait_for_heard(other, ["realtime:paid", "first", "0"], ["realtime:paid", "first", "own"])
    publish_event(shared_server, topic, "paid", 1)
    wait_for_heard(page, ["realtime:paid", "first", "0"], ["realtime:paid", "first", "1"])


def test_the_header_is_sent_to_the_same_site_only(open_page) -> None:
    page = open_page()
    secret = page.evaluate("realtime.headers['X-Realtime-Origin']")
    page.click("#seen")
    wait_for(page, f"answer.textContent === '{secret}'")
    page.click("#abroad")
    wait_for(page, "answer.textContent === 'none'")
