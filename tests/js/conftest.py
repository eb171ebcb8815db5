"""Browser windows of a real Chromium on pages of the test project."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.console import is_of_network
from tests.support.server import Server
from tests.support.waiting import SCALE

NO_JITTER = "Math.random = () => 0.01"  # so that no test waits for jitter


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for tests that use a topic of their own and do not stop it."""
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic that only this test uses."""
    return f"public.{request.node.originalname.removeprefix('test_')}"


@pytest.fixture
def expected_errors() -> list[str]:
    """Prefixes of console errors that the test expects; tests append to it."""
    return []


@pytest.fixture
def open_window(browser, expected_errors) -> Iterator[Callable]:
    """Open a page in a new window; an unexpected console error fails the test."""
    errors: list[str] = []
    contexts = []

    def on_console(message) -> None:
        if message.type == "error" and not is_of_network(message):
            errors.append(message.text)

    def open_window(server: Server, path: str, cookie: str | None = None):
        url = f"http://127.0.0.1:{server.port}"
        context = browser.new_context(base_url=url)
        contexts.append(context)
        context.add_init_script(NO_JITTER)
        context.set_default_timeout(20_000 * SCALE)
        if cookie:
            name, value = cookie.split("=")
            context.add_cookies([{"name": name, "value": value, "url": f"{url}/"}])
        page = context.new_page()
        page.on("console", on_console)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path)
        return page

    yield open_window
    for context in contexts:
        context.close()
    assert [one for one in errors if not one.startswith(tuple(expected_errors))] == []
