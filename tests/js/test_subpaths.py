"""The client on the pages of a site below a path."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.js.support import publish_event, wait_for, wait_for_state
from tests.support.subpaths import LAYOUTS, site_below_path

SHOWN = [
    "forced name, the proxy keeps the path",
    "uvicorn root path, the proxy removes the path",
    "runserver and a forced name, without a proxy",
]


@pytest.mark.parametrize("layout", SHOWN)
def test_the_pages_client_connects_below_the_path(
    layout: str, open_window: Any, tmp_path: Path
) -> None:
    assert layout in LAYOUTS
    with site_below_path(layout, tmp_path) as site:
        check_page(site, open_window)


def check_page(site: Any, open_window: Any) -> None:
    topic = "public.subpaths_page"
    html = quote(f'<realtime-topic name="{topic}" last="1"></realtime-topic>')
    page = open_window(site, f"/app/elements/?html={html}")
    wait_for_state(page, "connected")
    address = "document.querySelector('[data-realtime-url]').dataset.realtimeUrl"
    assert page.evaluate(address) == "/app/realtime/"
    assert page.evaluate("realtime.transport") == "websocket"
    publish_event(site.server, topic, "shipped", 1)
    wait_for(page, "heard.length === 1")
