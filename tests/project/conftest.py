"""The demo as a visitor sees it: Daphne, and a real browser with two people in it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.console import is_of_network
from tests.support.waiting import SCALE
from tools.demo_server import DemoServer

NO_JITTER = "Math.random = () => 0.01;"  # so that no reconnect waits for long
SHIFTS = """
window.shifts = [];
new PerformanceObserver(list => {
  for (const entry of list.getEntries()) shifts.push(entry.value);
}).observe({type: "layout-shift", buffered: true});
"""


@pytest.fixture(scope="session")
def fresh_demo(tmp_path_factory: pytest.TempPathFactory) -> DemoServer:
    return DemoServer(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, fresh_demo: DemoServer) -> Iterator[DemoServer]:
    """A server that the tests of a module share; they place their own orders and never kill it."""
    server = DemoServer(tmp_path_factory.mktemp("shared"), like=fresh_demo)
    server.start()
    yield server
    server.kill()
    assert "Traceback" not in server.log.read_text()


@pytest.fixture
def own_demo(tmp_path: Path, fresh_demo: DemoServer) -> Iterator[DemoServer]:
    """A server that a test can kill."""
    server = DemoServer(tmp_path, like=fresh_demo)
    server.start()
    yield server
    server.kill()
    assert "Traceback" not in server.log.read_text()


@pytest.fixture
def open_page(browser) -> Iterator[Callable]:
    """Open pages in separate browsers; console errors and HTTP errors fail the test."""
    problems: list[str] = []
    contexts = []

    def check_console(message) -> None:
        if message.type in {"error", "warning"} and not is_of_network(message):
            problems.append(f"{message.type}: {message.text}")

    def check_response(response) -> None:
        if response.status >= 400:
            problems.append(f"{response.status}: {response.url}")

    def open_page(server: DemoServer, path: str = "", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(20_000 * SCALE)
        context.add_init_script(NO_JITTER + SHIFTS)
        context.on("console", check_console)
        context.on("weberror", lambda error: problems.append(str(error.error)))
        context.on("response", check_response)
        page = context.new_page()
        page.goto(server.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def open_both(open_page) -> Callable:
    """Open the front page, and return its two frames, customer and desk, when connected."""

    def open_both(server: DemoServer, **options):
        page = open_page(server, **options)
        frames = page.frame(name="customer"), page.frame(name="desk")
        for frame in frames:
            wait_until_connected(frame)
        return frames

    return open_both


def wait_until_connected(pane) -> None:
    pane.wait_for_selector("#status[data-state=connected]", state="attached")


def wait_for_event(pane, topic: str, seq: int) -> None:
    pane.wait_for_selector(f"#feed li[data-topic='{topic}'][data-seq='{seq}']", state="attached")


def received(pane, topic: str) -> list[int]:
    """Return the `seq` of each event of a topic, in the order in which the pane received them."""
    lines = pane.locator(f"#feed li[data-topic='{topic}']")
    return lines.evaluate_all("lines => lines.map(line => Number(line.dataset.seq))")


def place(customer) -> str:
    """Place an order with one click, and return its topic when its row is shown."""
    rows = customer.locator("#orders .order")
    last = "rows => Math.max(0, ...rows.map(row => Number(row.dataset.order)))"
    before = rows.evaluate_all(last)
    customer.click("#place")
    customer.wait_for_selector(f".order:last-child:not([data-order='{before}'])")
    customer.wait_for_selector("button[aria-busy]", state="detached")
    return f"orders.{rows.evaluate_all(last)}"


def row(topic: str) -> str:
    """Return the selector of an order's row."""
    return f".order[data-order='{topic.partition('.')[2]}']"


def ship(desk, topic: str) -> None:
    """Ship an order, and wait for the event and for the response of the view."""
    desk.click(f"{row(topic)} .ship button")
    desk.wait_for_selector(f"{row(topic)}[data-state=shipped]")
    desk.wait_for_selector("button[aria-busy]", state="detached")


def publish(server: DemoServer, *events: tuple[str, str, object]) -> None:
    """Publish from another process."""
    server.manage("shell", "-c", f"from realtime import publish_many; publish_many({events!r})")
