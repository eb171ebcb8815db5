"""What a visitor of the demo sees and does."""

import json
import os
import re
import subprocess
import sys

import pytest
from websockets.sync.client import connect

from tests.project.conftest import (
    place,
    publish,
    received,
    row,
    ship,
    wait_for_event,
    wait_until_connected,
)
from tests.support.waiting import SCALE, wait_until
from tools.environment import ROOT

MARKUP = "<img src=x onerror=\"document.title='broken'\">"


def test_the_demos_own_tests_pass_in_djangos_runner() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "test", "project"],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_both_browsers_show_an_order_placed_in_one_and_shipped_in_the_other(
    open_both, demo
) -> None:
    customer, desk = open_both(demo)
    topic = place(customer)
    desk.wait_for_selector(row(topic))
    ship(desk, topic)
    cursors = []
    for pane in (customer, desk):
        wait_for_event(pane, topic, 1)
        line = f"#feed li[data-topic='{topic}']"
        assert pane.inner_text(f"{row(topic)} .badge") == "Shipped"
        assert re.fullmatch(r"\d+ ms|\d+(\.\d)? s", pane.inner_text(f"{line} .delay"))
        assert re.fullmatch(r"\d\d:\d\d:\d\d", pane.inner_text(f"{line} time"))
        cursors.append(pane.text_content(f"{line} .cursor"))
    assert cursors[0] == cursors[1]
    assert cursors[0].count(".") == 2


def test_a_visitor_can_choose_the_transport(open_both, demo) -> None:
    customer, desk = open_both(demo)
    assert customer.inner_text("#status-text") == "Transport: WebSocket"
    names = {"sse": "Event stream", "longpoll": "Long polling", "poll": "Polling"}
    for transport, name in names.items():
        with customer.expect_navigation():
            customer.select_option("#transport", transport)
        wait_until_connected(customer)
        assert customer.inner_text("#status-text") == f"Transport: {name}"
        assert customer.input_value("#transport") == transport
        topic = place(customer)
        desk.wait_for_selector(row(topic))
        ship(desk, topic)
        wait_for_event(customer, topic, 1)


def test_a_click_shows_the_code_that_ran(open_both, demo) -> None:
    customer, desk = open_both(demo)
    topic = place(customer)
    assert 'publish("desk", "placed", order.as_data())' in customer.inner_text(".lines .current")
    customer.click(f"{row(topic)} .ask")
    assert 'publish(self, "asked", order.as_data())' in customer.inner_text(".lines .current")
    desk.wait_for_selector(f"{row(topic)}[data-asked=true] .asks")
    desk.click("[formaction]")
    assert desk.inner_text(".lines .current") == 'publish("everyone", "notice", data)'


def test_no_two_buttons_of_a_pane_have_the_same_name(open_both, demo) -> None:
    for pane in open_both(demo):
        names = pane.get_by_role("button").evaluate_all(
            "all => all.map(button => button.ariaLabel || button.textContent.trim())"
        )
        assert len(names) > 5
        assert len(set(names)) == len(names)
        assert pane.get_by_role("button", name="Python code: ").count() >= 2


def test_a_notice_reaches_one_customer_or_everyone(open_both, open_page, demo) -> None:
    ada, desk = open_both(demo)
    bo = open_page(demo, "customer/")
    bo.click("[value=bo]")
    bo.wait_for_selector("[value=bo][aria-pressed=true]")
    wait_until_connected(bo)
    desk.fill("#text", "for Ada alone")
    desk.click("[name=to][value=ada]")
    ada.wait_for_selector("#notice >> text=for Ada alone")
    desk.fill("#text", "for all")
    desk.click("[formaction]")
    for customer in (ada, bo):
        customer.wait_for_selector("#notice >> text=for all")
    assert "for Ada alone" not in bo.inner_text("#feed")


def test_the_two_browsers_have_separate_sessions(open_page, open_both, demo) -> None:
    customer, desk = open_both(demo)
    ada, dana = (pane.evaluate("realtime.userId") for pane in (customer, desk))
    assert None not in (ada, dana)
    assert ada != dana
    for pane in (customer, desk):
        url = pane.get_attribute("script[data-realtime-url]", "data-realtime-url")
        assert url == f"/{pane.name}/realtime/"
    customer.click("[value=bo]")
    customer.wait_for_selector("[value=bo][aria-pressed=true]")
    wait_until_connected(customer)
    assert customer.evaluate("realtime.userId") not in (ada, dana)
    window = desk.page.context.new_page()
    for path, is_open in [("desk/admin/", True), ("customer/admin/", False), ("admin/", False)]:
        window.goto(demo.url + path)
        assert (window.locator("#id_password").count() == 0) == is_open
    window.goto(f"{demo.url}desk/")
    wait_until_connected(window)
    assert window.evaluate("realtime.userId") == dana
    desk.click("[value=eli]")
    desk.wait_for_selector("[value=eli][aria-pressed=true]")
    wait_until_connected(desk)
    window.goto(f"{demo.url}customer/")
    assert window.locator("[value=bo][aria-pressed=true]").count() == 1


def test_a_second_window_reloads_when_the_browser_switches_the_persona(open_both, demo) -> None:
    customer, _ = open_both(demo)
    window = customer.page.context.new_page()
    window.goto(f"{demo.url}customer/")
    wait_until_connected(window)
    customer.click("[value=bo]")
    customer.wait_for_selector("[value=bo][aria-pressed=true]")
    window.click("#disconnect")
    window.click("#disconnect >> text=Reconnect")
    window.wait_for_selector("[value=bo][aria-pressed=true]")
    wait_until_connected(window)


def test_a_visitor_can_follow_the_news_but_no_order(open_both, demo) -> None:
    customer, desk = open_both(demo)
    customer.click("[value=visitor]")
    customer.wait_for_selector("[value=visitor][aria-pressed=true]")
    wait_until_connected(customer)
    assert customer.evaluate("realtime.userId") is None
    customer.click("#forbidden")
    customer.wait_for_selector("#feed >> text=the server refused the subscription (forbidden)")
    publish(demo, ("everyone", "notice", {}), ("shop.news", "announcement", {"text": "open"}))
    for pane in (customer, desk):
        pane.wait_for_selector("#feed li[data-topic='shop.news']")
    assert customer.locator("#feed li[data-topic=everyone]").count() == 0
    customer.goto(f"{demo.url}customer/")
    assert customer.locator("[value=visitor][aria-pressed=true]").count() == 1


def test_markup_in_events_is_shown_as_text(open_both, demo) -> None:
    customer, desk = open_both(demo)
    topic = place(customer)
    order = {"order": int(topic.partition(".")[2]), "state": "open", "customer": MARKUP}
    publish(
        demo,
        (topic, "changed", {**order, "state": MARKUP, "version": 8}),
        (topic, "changed", {**order, "item": MARKUP, "version": 9, "text": MARKUP}),
        ("desk", "placed", {**order, "order": 10**6, "item": MARKUP, "version": 0}),
    )
    for pane in (customer, desk):
        wait_for_event(pane, topic, 2)
        pane.wait_for_selector(f"{row(topic)} .what >> text=<img")
        data = pane.locator(f"#feed li[data-topic='{topic}'] .data").last.text_content()
        assert json.loads(data)["text"] == MARKUP
    desk.wait_for_selector(f"{row('orders.1000000')} .customer >> text=<img")
    desk.fill("#text", MARKUP)
    desk.click("[name=to][value=ada]")
    customer.wait_for_selector("#feed li[data-event=notice]")
    assert customer.inner_text("#notice") == MARKUP
    for pane in (customer, desk):
        assert pane.locator("img").count() == 0
        assert pane.title().endswith("Order desk")


def test_an_older_version_or_an_unknown_state_changes_nothing(open_both, demo) -> None:
    customer, desk = open_both(demo)
    topic = place(customer)
    ship(desk, topic)
    order = {"order": int(topic.partition(".")[2]), "item": "Wrong", "customer": "Ada"}
    invalid = [{"state": "open", "version": 1}, {"state": "open"}, {"state": "lost", "version": 9}]
    publish(demo, *[(topic, "changed", order | more) for more in invalid])
    for pane in (customer, desk):
        wait_for_event(pane, topic, 4)
        assert pane.inner_text(f"{row(topic)} .badge") == "Shipped"
        assert pane.inner_text(f"{row(topic)} .what") != "Wrong"


LEAVE_TIMEOUT = 20.0  # seconds; the server holds a leave back for five of them


def here(pane) -> list[str]:
    """Return the names of the members that a pane shows."""
    text = pane.text_content("#here-names") or ""
    return sorted(text.removeprefix("Here: ").split(", ")) if text else []


def test_members_join_when_they_open_a_page_and_leave_when_they_close_it(
    open_page, own_demo
) -> None:
    desk, customer = open_page(own_demo, "desk/"), open_page(own_demo, "customer/")
    for page in (desk, customer):
        wait_until(lambda page=page: here(page) == ["Ada", "Dana"], "each sees both", LEAVE_TIMEOUT)
    desk.evaluate("shifts.length = 0")
    assert desk.inner_text("#here .count") == "2 here"
    faces = desk.locator(".face:not(:empty)")
    assert sorted(faces.all_inner_texts()) == ["A", "D"]
    assert set(faces.evaluate_all("all => all.map(one => one.title)")) == {
        "Ada, customer",
        "Dana, desk",
    }
    customer.click("[value=visitor]")
    wait_until(
        lambda: here(customer) == ["Dana", "Visitor"], "a visitor is a member too", LEAVE_TIMEOUT
    )
    customer.context.close()
    wait_until(lambda: here(desk) == ["Dana"], "the visitor has left", LEAVE_TIMEOUT)
    assert desk.evaluate("shifts") == []


def test_the_others_do_not_see_a_reload(open_page, own_demo) -> None:
    desk, customer = open_page(own_demo, "desk/"), open_page(own_demo, "customer/")
    wait_until(lambda: here(desk) == ["Ada", "Dana"], "both are here", LEAVE_TIMEOUT)
    desk.evaluate("""
        window.texts = [];
        const names = document.getElementById("here-names");
        new MutationObserver(() => texts.push(names.textContent)).observe(names, {childList: true});
    """)
    customer.reload()
    wait_until_connected(customer)
    wait_until(lambda: here(customer) == ["Ada", "Dana"], "Ada sees both again", LEAVE_TIMEOUT)
    other = open_page(own_demo, "customer/")
    other.click("[value=bo]")
    wait_until(lambda: "Bo" in here(desk), "Bo joins", LEAVE_TIMEOUT)
    other.context.close()
    # Bo left after the reload, so a leave of Ada would have arrived before his.
    wait_until(lambda: here(desk) == ["Ada", "Dana"], "Bo has left", LEAVE_TIMEOUT)
    assert all("Ada" in names for names in desk.evaluate("texts"))


def test_members_beyond_the_faces_are_counted(open_both, demo) -> None:
    _, desk = open_both(demo)
    # Wait for both, so that no join replaces the members that the test sets below.
    wait_until(lambda: here(desk) == ["Ada", "Dana"], "both are here", LEAVE_TIMEOUT)
    before = desk.evaluate("document.querySelector('.top').getBoundingClientRect().height")
    desk.evaluate("""
        const members = ["Ada", "<b>Bo</b>", "Cy", "Di", "Ed", "Fay", "Gus"].map((name, id) =>
            ({id: `user.${id}`, user: `${id}`, info: {name, role: "customer"}}));
        const script = document.querySelector("script[src*=pane]");
        import(script.src).then((pane) => pane.showMembers(members));
    """)
    wait_until(lambda: desk.inner_text("#here .count") == "7 here", "all are counted")
    texts = desk.locator(".face:not(:empty)").all_inner_texts()
    assert texts == ["A", "<", "C", "D", "+3"]
    assert "Fay" in (desk.get_attribute(".face[data-role=more]", "title") or "")
    assert desk.locator("#here-names b").count() == 0
    assert desk.evaluate("document.querySelector('.top').getBoundingClientRect().height") == before


def test_nothing_moves_while_events_arrive(open_both, demo) -> None:
    customer, desk = open_both(demo)
    topic = place(customer)
    desk.wait_for_selector(row(topic))
    for pane in (customer, desk):
        pane.evaluate("shifts.length = 0")
    order = {"order": int(topic.partition(".")[2]), "item": "Star chart", "customer": "Ada"}
    changes = [
        (topic, "changed", {**order, "state": state, "asked": not number % 3, "version": number})
        for number in range(1, 31)
        for state in [("open", "shipped")[number % 2]]
    ]
    publish(demo, *changes)
    publish(demo, *[("everyone", "notice", {"text": "word " * number}) for number in (3, 30, 1)])
    for pane in (customer, desk):
        wait_for_event(pane, topic, 30)
        pane.wait_for_selector("#feed li:nth-last-child(1)[data-topic=everyone]")
        pane.page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        assert received(pane, topic) == list(range(1, 31))
        assert pane.evaluate("shifts") == []


def test_a_new_order_moves_nothing_at_the_desk(open_both, demo) -> None:
    customer, desk = open_both(demo)
    for _ in range(4):
        place(customer)
    topic = place(customer)
    desk.wait_for_selector(row(topic))
    assert desk.locator(".order").count() <= 12
    assert desk.evaluate("shifts") == []


def test_shipping_with_the_keyboard_keeps_the_focus(open_both, demo) -> None:
    customer, desk = open_both(demo)
    topic = place(customer)
    desk.focus(f"{row(topic)} .ship button")
    desk.page.keyboard.press("Enter")
    desk.wait_for_selector(f"{row(topic)}[data-state=shipped]")
    assert desk.evaluate("document.activeElement.textContent") == "Reopen"


def test_a_change_in_the_admin_appears_in_both_browsers(open_both, demo) -> None:
    customer, desk = open_both(demo)
    topic = place(customer)
    admin = desk.page.context.new_page()
    admin.goto(f"{demo.url}desk/admin/desk/order/{topic.partition('.')[2]}/change/")
    admin.select_option("#id_state", "shipped")
    admin.click("[name=_save]")
    for pane in (customer, desk):
        pane.wait_for_selector(f"{row(topic)}[data-state=shipped]")
        line = f"#feed li[data-topic='{topic}'][data-event=shipped]"
        assert pane.get_attribute(line, "data-replayed") == "false"


def test_an_announcement_from_the_admin_appears_in_both_browsers(open_both, demo) -> None:
    customer, desk = open_both(demo)
    with desk.page.expect_popup() as opened:
        desk.click("#announce")
    admin = opened.value
    admin.fill("[name$=text]", "Open until nine")
    admin.click(".submit-row [type=submit]")
    admin.wait_for_selector(".messagelist .success")
    for pane in (customer, desk):
        line = "#feed li[data-topic='shop.news'][data-event=announcement]:last-child"
        pane.wait_for_selector(f"{line} .data >> text=Open until nine")
        assert pane.get_attribute(line, "data-replayed") == "false"
    assert customer.inner_text("#notice") == "Open until nine"


def test_the_demo_works_without_javascript(open_page, demo) -> None:
    page = open_page(demo, "customer/", java_script_enabled=False)
    before = page.locator(".order").count()
    page.click("#place")
    page.wait_for_selector("#orders")
    assert page.locator(".order").count() == min(before + 1, 12)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_only_vertically(open_both, demo, scheme) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme}
    customer, desk = open_both(demo, **phone)
    page = customer.page
    topic = place(customer)
    page.click(".tabs [data-news=true] >> text=Desk")
    assert page.locator("[data-browser=desk][data-news=true]").count() == 0
    ship(desk, topic)
    page.wait_for_selector("[data-browser=customer][aria-label='Customer, with new events']")
    for view in (page, customer, desk):
        assert view.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.documentElement.scrollHeight") > 844
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = sum(map(int, re.findall(r"\d+", background)[:3])) < 3 * 128
    assert dark == (scheme == "dark")


def readme_client(port: int) -> str:
    """Return the README's client, with the port of a test's server."""
    readme = (ROOT / "README.md").read_text()
    code = re.search(r"<!-- the demo's client -->\n```python\n(.*?)```", readme, re.DOTALL)
    assert code
    assert len(code[1].strip().splitlines()) <= 14
    return code[1].replace(":8000", f":{port}")


def test_the_readmes_client_resumes_after_a_crash(own_demo, tmp_path) -> None:
    output = tmp_path / "client.txt"
    with output.open("w") as file:
        client = subprocess.Popen(
            [sys.executable, "-u", "-c", readme_client(own_demo.port)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "WEBSOCKETS_BACKOFF_INITIAL_DELAY": "0.2"},
        )

    def count(kind: str) -> int:
        return output.read_text().count(f"'type': '{kind}'")

    try:
        wait_until(lambda: count("subscribed") == 1, f"the client is subscribed, see {output}")
        publish(own_demo, ("shop.news", "note", None))
        wait_until(lambda: count("event") == 1, "the event arrives")
        own_demo.kill()
        publish(own_demo, *[("shop.news", "note", None)] * 20)
        own_demo.start()
        wait_until(lambda: count("event") == 21, "the missed events arrive", timeout=30)
    finally:
        client.kill()
        client.wait()
    assert "'recovered': True, 'replayed': 20" in output.read_text()
    assert list(map(int, re.findall(r"'seq': (\d+)", output.read_text()))) == list(range(1, 22))


def test_the_echo_returns_what_it_receives(demo) -> None:
    with connect(f"ws://127.0.0.1:{demo.port}/echo/") as client:
        for sent in ("hello", b"\x00\xff", "ü" * 1000):
            client.send(sent)
            assert client.recv(timeout=10 * SCALE) == sent
