"""The pages that docs/howto.md quotes, deployed as it says, in a real Chromium."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import DEADLINE, Server
from tests.support.waiting import wait_until

SAMPLE = Path(__file__).parent / "sample"


class Site(Server):
    """The sample on Daphne: DEBUG off, WhiteNoise with hashed names, django-csp."""

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
    """Open a path in two windows; what the console or a request complains of fails the test."""
    problems: list[str] = []
    name, value = site.sign_in()["Cookie"].split("=")
    url = f"http://127.0.0.1:{site.port}"
    context = browser.new_context(base_url=url)
    context.set_default_timeout(DEADLINE * 1000)
    context.add_cookies([{"name": name, "value": value, "url": url}])

    def answered(response: Any) -> None:
        if response.status >= 400:
            problems.append(f"{response.status}: {response.url}")

    def open_windows(path: str) -> list[Any]:
        windows = [context.new_page(), context.new_page()]
        for window in windows:
            window.on("console", lambda message: problems.append(message.text))
            window.on("pageerror", lambda error: problems.append(str(error)))
            window.on("response", answered)
            subscribed: list[bool] = []
            note_subscription(window, subscribed)
            window.goto(path)
            wait_until(lambda: tick(window) and subscribed, "it follows", timeout=DEADLINE)  # noqa: B023
        return windows

    yield open_windows
    context.close()
    assert problems == []


def note_subscription(window: Any, subscribed: list[bool]) -> None:
    def received(text: str) -> None:
        if '"subscribed"' in text:
            subscribed.append(True)

    window.on("websocket", lambda socket: socket.on("framereceived", received))


def tick(window: Any) -> bool:
    """Let Playwright tell what has happened in a window."""
    window.evaluate("0")
    return True


def ship(site: Site, state: str) -> None:
    site.run(
        "from shop.models import Order\n"
        "from realtime import publish\n"
        f"Order.objects.update(state={state!r})\n"
        "publish('orders.1', 'shipped')"
    )


def test_cards_change_with_every_event_by_htmx(open_windows, site) -> None:
    windows = open_windows("/orders/1/")
    for state in ("packed", "shipped"):
        ship(site, state)
        for window in windows:
            window.get_by_text(f"is {state}.").wait_for()


def test_the_page_that_renames_is_not_told_and_the_other_is(open_windows) -> None:
    windows = open_windows("/orders/1/")
    for window in windows:
        window.evaluate(
            "window.heard = [];"
            "const order = realtime.subscribe('orders.1');"
            "void order.on('*', (data, event) => heard.push([event.event, data?.title]))"
        )
    for window, title in zip(windows, ("Tart", "Cake"), strict=True):
        window.fill("#rename [name=title]", title)
        with window.expect_response("**/rename/"):
            window.click("#rename button")
    one, two = windows
    wait_until(lambda: one.evaluate("heard.length") == 1, "one hears", timeout=DEADLINE)
    wait_until(lambda: two.evaluate("heard.length") == 1, "two hears", timeout=DEADLINE)
    assert one.evaluate("heard") == [["renamed", "Cake"]]
    assert two.evaluate("heard") == [["renamed", "Tart"]]
    assert one.input_value("#rename [name=title]") == "Cake"


def test_a_chat_shows_who_types_who_spoke_and_what_was_refused(open_windows) -> None:
    one, two = open_windows("/chats/1/")
    one.fill("[name=text]", "<b>Hello</b>")
    two.get_by_text("Somebody is typing").wait_for()
    one.click("button")
    for window in (one, two):
        window.get_by_text("ada: <b>Hello</b>").wait_for()
    wait_until(lambda: one.input_value("[name=text]") == "", "the form is empty", timeout=DEADLINE)
    one.click("button")
    one.get_by_text("text has 1 to 500 characters").wait_for()


def test_the_readers_of_a_page_are_named_once_each(open_windows) -> None:
    for window in open_windows("/pages/about/"):
        window.get_by_text("1 reading: ada", exact=True).wait_for()


def test_the_script_has_a_hashed_name_and_a_nonce(open_windows) -> None:
    window, _ = open_windows("/orders/1/")
    source = window.evaluate("document.querySelector('[data-realtime-url]').src")
    assert source.rpartition("/realtime/")[2] not in ("", "realtime.js")
    assert window.evaluate("document.querySelector('[data-realtime-url]').nonce")
