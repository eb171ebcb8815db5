"""The admin pages in django-unfold, in Chromium."""

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

from tests.admin.test_browser import ADD, sign_in
from tests.support.server import Server
from tests.support.services import require
from tests.support.waiting import SCALE

ROOT = """
from django.contrib.auth.models import User
User.objects.create_superuser("root", password="secret")
"""
# The number of visible fields, and the names of those whose border cannot be seen.
FIELDS = "#content-main :is(input:not([type=hidden], [type=submit], [type=radio]), textarea)"
INVISIBLE = """fields => {
  const shown = [...document.querySelectorAll(fields)].filter(field => field.offsetWidth);
  const invisible = shown.filter(field => {
    const style = getComputedStyle(field);
    const isClear = /[,/] 0\\)$/.test(style.borderTopColor);
    return parseFloat(style.borderTopWidth) < 1 || style.borderTopStyle === "none" || isClear;
  });
  return [shown.length, invisible.map(field => field.name)];
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    require(importlib.util.find_spec("unfold"), "unfold: pip install django-unfold")
    server = Server(tmp_path_factory.mktemp("unfold"))
    server.env["DJANGO_SETTINGS_MODULE"] = "tests.admin.unfold_settings"
    with server:
        server.run(ROOT)
        yield server


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_event_can_be_published_in_unfold(browser: Any, server: Server, scheme: str) -> None:
    context = browser.new_context(base_url=f"http://127.0.0.1:{server.port}", color_scheme=scheme)
    context.set_default_timeout(20_000 * SCALE)
    page = context.new_page()
    page.goto(f"/admin/login/?next={ADD}")
    sign_in(page, "root")
    page.wait_for_selector("[name=topic]")
    count, invisible = page.evaluate(INVISIBLE, FIELDS)
    assert count >= 2
    assert invisible == []
    page.fill("[name=topic]", "public.unfold")
    page.fill("[name=event]", "opened")
    page.click("#content-main input[type=submit]")
    page.wait_for_selector("textarea")
    assert page.evaluate(INVISIBLE, FIELDS) == [1, []]
    page.fill("textarea", '{"text": "hello"}')
    page.click("#content-main input[type=submit]")
    page.wait_for_selector(".realtime-event")
    assert '"text": "hello"' in page.inner_text(".realtime-event")
    page.goto("/admin/realtime/logevent/")
    assert "public.unfold" in page.inner_text(".realtime-events")
    assert page.evaluate(INVISIBLE, FIELDS)[1] == []
    context.close()


def test_no_field_leaves_a_narrow_screen_in_unfold(browser: Any, server: Server) -> None:
    context = browser.new_context(
        base_url=f"http://127.0.0.1:{server.port}", viewport={"width": 390, "height": 844}
    )
    context.set_default_timeout(20_000 * SCALE)
    page = context.new_page()
    page.goto(f"/admin/login/?next={ADD}")
    sign_in(page, "root")
    right = (
        "fields => Math.max(...[...document.querySelectorAll(fields)]"
        ".map(field => field.getBoundingClientRect().right))"
    )
    for url in (ADD, f"{ADD}?topic=public.unfold&event=opened", "/admin/realtime/logevent/"):
        page.goto(url)
        assert page.evaluate(right, FIELDS) <= 390
    context.close()
