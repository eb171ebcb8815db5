"""What the tests of pages wait for."""

import time
from typing import Any
from urllib.request import urlopen

from tests.support.server import Server
from tests.support.waiting import wait_until

# Evaluated with attributes, it puts a <realtime-topic> into the page.
ADD = """attributes => {
  const element = document.createElement("realtime-topic");
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  document.body.append(element);
}"""


def wait_for(page: Any, claim: str, timeout: float = 20) -> None:
    """Wait until an expression is true in the page, through reloads of it."""
    from playwright.sync_api import Error

    def holds() -> bool:
        try:
            return bool(page.evaluate(claim))
        except Error:  # between two documents, or before the client is there
            return False

    # The page's own policy forbids what Playwright's wait_for_function does.
    wait_until(holds, claim, timeout)


def wait_for_state(page: Any, state: str) -> None:
    """Wait until the client is in a state.

    `connected` comes with the welcome and before any topic is answered: what is published then is
    heard only by those who follow from a place before it, such as a cursor or `now()`.
    """
    wait_for(page, f"realtime.state === '{state}'")


def now() -> str:
    """Return a place to follow from that is before all that is published from here on."""
    return f"@{time.time():.3f}"


def tell(server: Server, topic: str, event: str, data: object) -> str:
    """Publish from a view and return the cursor after the event."""
    url = f"http://127.0.0.1:{server.port}/tell/{topic}/{event}/?data={data}"
    with urlopen(url) as answer:
        cursor: str = answer.read().decode()
    return cursor


def wait_for_heard(page: Any, *expected: list[object]) -> None:
    """Wait until a page of `tests.testapp.pages` has heard as many; they must be these."""
    wait_for(page, f"heard.length >= {len(expected)}")
    assert page.evaluate("heard") == list(expected)
