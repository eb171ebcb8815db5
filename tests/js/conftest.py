"""Windows of a real Chromium, on pages of the test project."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.console import is_of_network
from tests.support.server import Server
from tests.support.waiting import SCALE

IMPATIENT = "Math.random = () => 0.01"  # so that nobody waits for jitter


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for tests that each have a topic of their own, and leave it running."""
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic of this test's own."""
    return f"public.{request.node.originalname.removeprefix('test_')}"


@pytest.fixture
def complaints() -> list[str]:
    """What pages may say in the console, as beginnings of its errors; tests add to it."""
    return []


@pytest.fixture
def open_window(browser, complaints) -> Iterator[Callable]:
    """Open a page in a window of its own; what the console says against it fails the test."""
    problems: list[str] = []
    contexts = []

    def heard(message) -> None:
        if message.type == "error" and not is_of_network(message):
            problems.append(message.text)

    def open_window(server: Server, path: str, cookie: str | None = None):
        url = f"http://127.0.0.1:{server.port}"
        context = browser.new_context(base_url=url)
        contexts.append(context)
        context.add_init_script(IMPATIENT)
        context.set_default_timeout(20_000 * SCALE)
        if cookie:
            name, value = cookie.split("=")
            context.add_cookies([{"name": name, "value": value, "url": f"{url}/"}])
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(path)
        return page

    yield open_window
    for context in contexts:
        context.close()
    assert [one for one in problems if not one.startswith(tuple(complaints))] == []
