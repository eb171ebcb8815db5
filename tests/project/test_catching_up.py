"""The demo after lost connections, and with the static files of a deployment."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.conftest import (
    place,
    publish,
    received,
    row,
    ship,
    wait_for_event,
    wait_until_connected,
)
from tools.demo_server import DemoServer

TRIM = """
from django.core.management import call_command
from project.desk.models import Order
from project.desk.topics import OrderTopic
from realtime import publish_many
order = Order.objects.last()
OrderTopic.max_events = 1
order.change(state="shipped")
publish_many([(order.topic, "note", None)] * 3)
call_command("realtime", "trim", verbosity=0)
"""


def test_after_a_crash_both_browsers_catch_up_without_a_reload(own_demo, open_both) -> None:
    panes = customer, desk = open_both(own_demo)
    topic = place(customer)
    ship(desk, topic)
    for pane in panes:
        wait_for_event(pane, topic, 1)
        pane.evaluate("window.sameDocument = true")
    own_demo.kill()
    for pane in panes:
        pane.wait_for_selector("#status[data-state=waiting]")
    publish(own_demo, *[(topic, "note", {"number": number}) for number in range(20)])
    own_demo.start()
    for pane in panes:
        wait_for_event(pane, topic, 21)
        assert received(pane, topic) == list(range(1, 22))
        pane.wait_for_selector("#status-text >> text=20 events replayed, in order, none missing")
        assert pane.locator("#feed li[data-replayed=true]").count() == 20
        assert pane.evaluate("window.sameDocument") is True


def test_a_reconnect_replays_what_the_other_browser_received_live(own_demo, open_both) -> None:
    customer, desk = open_both(own_demo)
    topic = place(customer)
    customer.click("#disconnect")
    customer.wait_for_selector("#status[data-state=closed] >> text=Disconnected")
    ship(desk, topic)
    desk.click(f"{row(topic)} .reopen button")
    wait_for_event(desk, topic, 2)
    desk.click("[name=to][value=ada]")
    desk.wait_for_selector("button[aria-busy]", state="detached")
    customer.wait_for_selector("#status-text >> text=/No connection for [1-9][0-9]* s/")
    assert received(customer, topic) == []
    customer.click("#disconnect >> text=Reconnect")
    customer.wait_for_selector("#status-text >> text=3 events replayed, in order, none missing")
    assert received(customer, topic) == received(desk, topic) == [1, 2]
    replayed = "#feed li[data-replayed=true] .delay"
    assert customer.locator(replayed).count() == 3
    assert "replayed after" in customer.locator(replayed).first.inner_text()
    assert desk.locator(replayed).count() == 0
    ship(desk, topic)
    wait_for_event(customer, topic, 3)
    assert customer.locator(replayed).count() == 3


@pytest.mark.parametrize("width", [1280, 390])
def test_replayed_events_are_announced_whole_and_shown_in_order_of_time(
    own_demo, open_both, width
) -> None:
    customer, _ = open_both(own_demo, viewport={"width": width, "height": 900})
    topic = place(customer)
    customer.click("#disconnect")
    customer.wait_for_selector("#status[data-state=closed]")
    topics = [topic, "everyone", "shop.news"] * 4
    own_demo.manage(
        "shell", "-c", f"from realtime import publish\nfor each in {topics}: publish(each, 'note')"
    )
    customer.click("#disconnect")
    customer.wait_for_selector("#status-text >> text=12 events replayed, in order, none missing")
    shown = customer.locator("#feed li[data-event=note]")
    assert shown.evaluate_all("lines => lines.map(line => line.dataset.topic)") == topics
    text = customer.locator("#status-text")
    assert text.evaluate("text => text.scrollHeight <= text.clientHeight"), "it is cut"


def test_after_trimming_the_page_says_so_once_and_reloads_the_orders(own_demo, open_both) -> None:
    panes = open_both(own_demo)
    topic = place(panes[0])
    for name in ("reopened", "changed"):
        publish(own_demo, (topic, name, None))
    for pane in panes:
        wait_for_event(pane, topic, 2)
        pane.evaluate("window.sameDocument = true")
    own_demo.kill()
    for pane in panes:
        pane.wait_for_selector("#status[data-state=waiting]")
    own_demo.manage("shell", "-c", TRIM)
    own_demo.start()
    message = f"#feed li >> text={topic}: the missed events are no longer stored"
    for pane in panes:
        pane.wait_for_selector(f"{row(topic)}[data-state=shipped]")
        wait_until_connected(pane)
    publish(own_demo, (topic, "note", None))
    for pane in panes:
        wait_for_event(pane, topic, 6)
        assert pane.locator(message).count() == 1
        assert pane.evaluate("window.sameDocument") is True


@pytest.fixture
def deployed_demo(tmp_path: Path, fresh_demo: DemoServer) -> Iterator[DemoServer]:
    """A server with hashed static files, without DEBUG."""
    environ = {"DEMO_DEBUG": "0", "DEMO_STATIC": str(tmp_path / "static")}
    server = DemoServer(tmp_path, like=fresh_demo, environ=environ)
    server.manage("collectstatic", "--noinput", "--verbosity", "0")
    server.start()
    yield server
    server.kill()
    assert "Traceback" not in server.log.read_text()


def test_the_demo_works_with_hashed_static_files_and_without_debug(
    deployed_demo, open_both
) -> None:
    customer, desk = open_both(deployed_demo)
    ship(desk, place(customer))
    source = customer.get_attribute("script[data-realtime-url]", "src")
    assert re.fullmatch(r"/static/realtime/realtime\.[0-9a-f]{12}\.js", source)
    admin = desk.page.context.new_page()
    admin.goto(f"{deployed_demo.url}desk/admin/desk/order/")
    assert admin.locator("#result_list").count() == 1
