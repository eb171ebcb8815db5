"""The pages that docs/howto.md quotes work in a real Chromium, deployed as it says."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import DEADLINE, Server
from tests.support.waiting import wait_until

SAMPLE = Path(__file__).parent / "sample"


class Site(Server):
    """The sample site on Daphne, with DEBUG off, WhiteNoise's hashed names and django-csp."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, application="mysite.asgi:application")
        path = os.pathsep.join(filter(None, [str(SAMPLE), self.env.get("PYTHONPATH")]))
        self.env |= {"DJANGO_SETTINGS_MODULE": "mysite.deployed", "PYTHONPATH": path}

    def __enter__(self) -> "Site":
        self.run(
            "from django.core.management import call_command as call\n"
            "call('collectstatic', interactive=False, verbosity=0)\n"
            "call('migrate', run_syncdb=True, verbosity=0)\n"
            "call('migrate', run_syncdb=True, verbosity=0, database='billing')\n"
            "from django.contrib.auth.models import User\n"
            "from shop.models import Order, Team\n"
            "ada = User.objects.create_user('ada')\n"
            "Team.objects.create(pk=1).members.add(ada)\n"
            "Order.objects.create(pk=1, customer=ada, title='Pie')"
        )
        self.start()
        return self


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def open_windows(browser: Any, site: Site) -> Iterator[Callable[[str], list[Any]]]:
    """Open a path in two windows; console messages and failed requests fail the test."""
    problems: list[str] = []
    name, value = site.sign_in()["Cookie"].split("=")
    url = f"http://127.0.0.1:{site.port}"
    context = browser.new_context(base_url=url)
    context.set_default_timeout(DEADLINE * 1000)
    context.add_cookies([{"name": name, "value": value, "url": url}])

    def check_status(response: Any) -> None:
        if response.status >= 400:
            problems.append(f"{response.status}: {response.url}")

    def open_windows(path: str) -> list[Any]:
        windows = [context.new_page(), context.new_page()]
        for window in windows:
            window.on("console", lambda message: problems.append(message.text))
            window.on("pageerror", lambda error: problems.append(str(error)))
            window.on("response", check_status)
            subscribed: list[bool] = []
            note_subscription(window, subscribed)
            window.goto(path)
            wait_until(
                lambda: process_events(window) and subscribed,  # noqa: B023
                "the page is subscribed",
                timeout=DEADLINE,
            )
        return windows

    yield open_windows
    context.close()
    assert problems == []


def note_subscription(window: Any, subscribed: list[bool]) -> None:
    """Append to a list when the window's WebSocket receives a ``subscribed`` frame."""

    def received(text: str) -> None:
        if '"subscribed"' in text:
            subscribed.append(True)

    window.on("websocket", lambda socket: socket.on("framereceived", received))


def process_events(window: Any) -> bool:
    """Make Playwright call the handlers of a window's pending events; return True."""
    window.evaluate("0")
    return True


def ship(site: Site, state: str) -> None:
    site.run(
        "from shop.models import Order\n"
        "from realtime import publish\n"
        f"Order.objects.update(state={state!r})\n"
        "publish('orders.1', 'shipped')"
    )


def test_htmx_fetches_the_card_again_after_each_event(open_windows, site) -> None:
    windows = open_windows("/orders/1/")
    for state in ("packed", "shipped"):
        ship(site, state)
        for window in windows:
            window.get_by_text(f"is {state}.").wait_for()


def test_only_the_page_that_renames_does_not_receive_its_event(open_windows) -> None:
    windows = open_windows("/orders/1/")
    for window in windows:
        window.evaluate(
            "window.received = [];"
            "const order = realtime.subscribe('orders.1');"
            "void order.on('*', (data, event) => received.push([event.event, data?.title]))"
        )
    for window, title in zip(windows, ("Tart", "Cake"), strict=True):
        window.fill("#rename [name=title]", title)
        with window.expect_response("**/rename/"):
            window.click("#rename button")
    one, two = windows
    for name, window in (("first", one), ("second", two)):
        wait_until(
            lambda: window.evaluate("received.length") == 1,  # noqa: B023
            f"the {name} window receives an event",
            timeout=DEADLINE,
        )
    assert one.evaluate("received") == [["renamed", "Cake"]]
    assert two.evaluate("received") == [["renamed", "Tart"]]
    assert one.input_value("#rename [name=title]") == "Cake"


def test_the_chat_shows_typing_messages_and_refusals(open_windows) -> None:
    one, two = open_windows("/chats/1/")
    one.fill("[name=text]", "<b>Hello</b>")
    two.get_by_text("Someone is typing").wait_for()
    one.click("button")
    for window in (one, two):
        window.get_by_text("ada: <b>Hello</b>").wait_for()
    wait_until(lambda: one.input_value("[name=text]") == "", "the form is empty", timeout=DEADLINE)
    one.click("button")
    one.get_by_text("text has 1 to 500 characters").wait_for()


def test_each_reader_of_a_page_is_named_once(open_windows) -> None:
    for window in open_windows("/pages/about/"):
        window.get_by_text("1 reading: ada", exact=True).wait_for()


def test_the_script_has_a_hashed_name_and_a_nonce(open_windows) -> None:
    window, _ = open_windows("/orders/1/")
    source = window.evaluate("document.querySelector('[data-realtime-url]').src")
    assert source.rpartition("/realtime/")[2] not in ("", "realtime.js")
    assert window.evaluate("document.querySelector('[data-realtime-url]').nonce")


def test_a_progress_bar_survives_a_reload(open_windows, site) -> None:
    first, second = open_windows("/report/")
    bar = "document.querySelector('#progress').value"
    site.run(
        "from realtime import publish\n"
        "for percent in (0, 25, 50): publish('reports.1', 'progress', {'percent': percent})"
    )
    wait_until(
        lambda: process_events(first) and first.evaluate(bar) == 50,
        "the event arrived",
        timeout=DEADLINE,
    )
    second.reload()
    wait_until(
        lambda: process_events(second) and second.evaluate(bar) == 50,
        "the newest event arrived after the reload",
        timeout=DEADLINE,
    )
    site.run("from realtime import publish; publish('reports.1', 'ready', {'url': '/reports/7/'})")
    for window in (first, second):
        window.wait_for_selector("#report[href='/reports/7/']")
