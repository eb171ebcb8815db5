"""Helpers that publish and wait for a page."""

import time
from typing import Any
from urllib.request import urlopen

from tests.support.server import Server
from tests.support.waiting import wait_until

# A script that adds a <realtime-topic> with the given attributes to the page.
ADD = """attributes => {
  const element = document.createElement("realtime-topic");
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  document.body.append(element);
}"""


def wait_for(page: Any, claim: str, timeout: float = 20) -> None:
    """Wait until an expression is true in the page, even across reloads."""
    from playwright.sync_api import Error

    def holds() -> bool:
        try:
            return bool(page.evaluate(claim))
        except Error:  # between two documents, or before the client has loaded
            return False

    # The page's content security policy forbids Playwright's wait_for_function.
    wait_until(holds, claim, timeout)


def wait_for_state(page: Any, state: str) -> None:
    """Wait until the client is in a state.

    The state is `connected` before any subscribe is answered. An event that is published then
    reaches only pages that follow from before it, such as from a cursor or from `now()`.
    """
    wait_for(page, f"realtime.state === '{state}'")


def now() -> str:
    """Return a `since` that is before every event published after this call."""
    return f"@{time.time():.3f}"


def publish_event(server: Server, topic: str, event: str, data: object) -> str:
    """Publish from a view and return the cursor after the event."""
    url = f"http://127.0.0.1:{server.port}/tell/{topic}/{event}/?data={data}"
    with urlopen(url) as answer:
        cursor: str = answer.read().decode()
    return cursor


def wait_for_heard(page: Any, *expected: list[object]) -> None:
    """Wait until a page of `tests.testapp.pages` has these events, and no others."""
    wait_for(page, f"heard.length >= {len(expected)}")
    heard = page.evaluate("heard")
    assert heard == list(expected), heard
