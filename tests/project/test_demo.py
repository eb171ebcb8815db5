"""The demo as a visitor has it: a real Daphne, a real browser, and the README's own client."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.support.waiting import SCALE, wait_until
from tools.demo_server import DemoServer
from tools.environment import ROOT

LIVE = "#status[data-state=live]"
# The browser itself says so in the console while it cannot connect; the page cannot prevent it.
REFUSED = re.compile(r"WebSocket connection to '[^']+/realtime/ws\?v=1' failed")
SHIFTS = """
window.shifts = [];
new PerformanceObserver(list => {
  for (const entry of list.getEntries()) shifts.push(entry.value);
}).observe({type: "layout-shift", buffered: true});
"""


@pytest.fixture(scope="module")
def fresh_demo(tmp_path_factory: pytest.TempPathFactory) -> DemoServer:
    return DemoServer(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def demo(tmp_path: Path, fresh_demo: DemoServer) -> Iterator[DemoServer]:
    server = DemoServer(tmp_path, like=fresh_demo)
    server.start()
    yield server
    server.kill()
    assert "Traceback" not in server.log.read_text()


@pytest.fixture
def open_page(browser, demo) -> Iterator[Callable]:
    """Open the demo in a window of its own; what the console says against it fails the test."""
    problems: list[str] = []
    contexts = []

    def heard(message) -> None:
        if message.type in {"error", "warning"} and not REFUSED.match(message.text):
            problems.append(f"{message.type}: {message.text}")

    def answered(response) -> None:
        if response.status >= 400:
            problems.append(f"{response.status}: {response.url}")

    def open_page(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(20_000 * SCALE)
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("response", answered)
        page.goto(demo.url)
        if options.get("java_script_enabled", True):
            page.wait_for_selector(LIVE)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def publish(server: DemoServer, *events: tuple[str, str, object]) -> None:
    """Publish from a process of its own."""
    server.manage("shell", "-c", f"from realtime import publish_many; publish_many({events!r})")


def ship(page, order: int) -> None:
    """Ship an order and wait for both: the event, and the view's answer."""
    page.click(f"[data-order='{order}'] .ship button")
    wait_for_event(page, f"orders.{order}", 1)
    page.wait_for_selector("button[aria-busy]", state="detached")


def seen(page, topic: str) -> list[int]:
    """Return the numbers of a topic's events in the order in which the page got them."""
    lines = page.locator(f"#feed li[data-topic='{topic}']")
    return lines.evaluate_all("found => found.map(one => Number(one.dataset.seq))")[::-1]


def wait_for_event(page, topic: str, seq: int) -> None:
    page.wait_for_selector(f"#feed li[data-topic='{topic}'][data-seq='{seq}']")


def test_its_own_tests_pass_under_djangos_runner() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "test", "project"],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_two_windows_show_an_order_that_one_of_them_ships(open_page) -> None:
    one, other = open_page(), open_page()
    other.evaluate(SHIFTS)
    ship(one, 2)
    for page in (one, other):
        wait_for_event(page, "orders.2", 1)
        assert page.inner_text("[data-order='2'] .badge") == "Shipped"
        assert re.search(r"\d m?s$", page.inner_text("#feed .delay"))
        assert page.inner_text("#feed .cursor").startswith("cursor ")
    assert other.is_visible("[data-order='2'] .reopen button")
    assert other.evaluate("shifts.filter(value => value > 0.001)") == []


def test_the_keyboard_alone_ships_and_keeps_its_place(open_page) -> None:
    page = open_page()
    page.focus("[data-order='3'] .ship button")
    page.keyboard.press("Enter")
    wait_for_event(page, "orders.3", 1)
    assert page.evaluate("document.activeElement.textContent") == "Reopen"


def test_pushed_markup_is_text(open_page, demo) -> None:
    page = open_page()
    markup = "<img src=x onerror=\"document.title='broken'\">"
    publish(demo, ("orders.1", "note", {"state": markup, "order": 1, "version": 9}))
    wait_for_event(page, "orders.1", 1)
    assert markup in json.loads(page.inner_text("#feed .data"))["state"]
    assert page.locator("img").count() == 0
    assert page.title() == "Order desk"


def test_after_a_crash_a_page_catches_up_without_a_reload(open_page, demo) -> None:
    page = open_page()
    page.evaluate("window.sameDocument = true")
    ship(page, 1)
    demo.kill()
    page.wait_for_selector("#status[data-state=waiting]")
    publish(demo, *[("orders.1", "note", {"number": number}) for number in range(20)])
    demo.start()
    wait_for_event(page, "orders.1", 21)
    assert seen(page, "orders.1") == list(range(1, 22))
    page.wait_for_selector("#feed >> text=20 events replayed")
    assert page.evaluate("window.sameDocument") is True


def test_a_log_that_is_gone_makes_the_page_read_the_orders_anew(open_page, demo) -> None:
    page = open_page()
    demo.kill()
    page.wait_for_selector("#status[data-state=waiting]")
    gone = "from realtime import log; from project.desk.models import Order; "
    gone += "order = Order.objects.get(pk=4); order.set_state('shipped'); log.delete(order.topic)"
    demo.manage("shell", "-c", gone)
    demo.start()
    page.wait_for_selector("[data-order='4'][data-state=shipped]")
    page.wait_for_selector(LIVE)
    assert page.locator("#feed >> text=the orders were read anew").count() == 1


def test_it_works_without_javascript(open_page) -> None:
    page = open_page(java_script_enabled=False)
    page.click("[data-order='5'] .ship button")
    page.wait_for_selector("[data-order='5'] .reopen button")
    assert page.inner_text("[data-order='5'] .badge") == "Shipped"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction_only(open_page, scheme) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    ship(page, 1)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = sum(map(int, re.findall(r"\d+", background)[:3])) < 3 * 128
    assert dark == (scheme == "dark")


def test_the_admin_has_no_console_error_either(open_page, demo) -> None:
    page = open_page()
    page.goto(f"{demo.url}admin/")
    page.fill("#id_username", "desk")
    page.fill("#id_password", "desk")
    page.click("[type=submit]")
    page.goto(f"{demo.url}admin/desk/order/1/change/")
    page.select_option("#id_state", "shipped")
    page.click("[name=_save]")
    page.goto(demo.url)
    page.wait_for_selector("[data-order='1'][data-state=shipped]")


def readme_client(port: int) -> str:
    """Return the README's client, with the port of a test's server."""
    readme = (ROOT / "README.md").read_text()
    code = re.search(r"<!-- the demo's client -->\n```python\n(.*?)```", readme, re.DOTALL)
    assert code
    assert len(code[1].strip().splitlines()) <= 14
    return code[1].replace(":8000", f":{port}")


def test_the_readmes_client_resumes_after_a_crash(demo, tmp_path) -> None:
    output = tmp_path / "client.txt"
    with output.open("w") as file:
        client = subprocess.Popen(
            [sys.executable, "-u", "-c", readme_client(demo.port)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "WEBSOCKETS_BACKOFF_INITIAL_DELAY": "0.2"},
        )

    def count(kind: str) -> int:
        return output.read_text().count(f"'type': '{kind}'")

    try:
        wait_until(lambda: count("subscribed") == 1, f"it is subscribed, see {output}")
        publish(demo, ("orders.1", "note", None))
        wait_until(lambda: count("event") == 1, "the event arrives")
        demo.kill()
        publish(demo, *[("orders.1", "note", None)] * 20)
        demo.start()
        wait_until(lambda: count("event") == 21, "the missed events arrive", timeout=30)
    finally:
        client.kill()
        client.wait()
    assert "'recovered': True, 'replayed': 20" in output.read_text()
    assert list(map(int, re.findall(r"'seq': (\d+)", output.read_text()))) == list(range(1, 22))


def test_the_echo_answers_what_it_gets(demo) -> None:
    with connect(f"ws://127.0.0.1:{demo.port}/echo/") as client:
        for sent in ("hello", b"\x00\xff", "ü" * 1000):
            client.send(sent)
            assert client.recv(timeout=10 * SCALE) == sent
