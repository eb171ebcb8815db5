"""`<realtime-topic>` in a real Chromium, against a real Daphne."""

import json
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.js.support import ADD, publish_event, wait_for, wait_for_heard, wait_for_state
from tests.support.waiting import wait_until


@pytest.fixture
def open_page(open_window, shared_server) -> Callable:
    """Open a page with this markup; it collects `subscribed` and `unsubscribed` frames."""

    def open_page(html: str = "", query: str = "", cookie: str | None = None):
        page = open_window(shared_server, "about:blank", cookie)
        page.subscribed, page.unsubscribed = [], []

        def received(text: str) -> None:
            frame = json.loads(text)
            if frame["type"] == "subscribed":
                page.subscribed.append(frame)
            if frame["type"] == "unsubscribed":
                page.unsubscribed.append(frame)

        page.on("websocket", lambda socket: socket.on("framereceived", received))
        page.goto(f"/elements/?html={quote(html)}{query}")
        return page

    return open_page


def wait_for_frames(page, frames: list, count: int) -> None:
    def holds() -> bool:
        page.evaluate("0")  # Playwright receives frames only while it waits
        return len(frames) >= count

    wait_until(holds, f"{count} frames", timeout=20)


def test_events_bubble_from_a_hidden_element(open_page, shared_server, topic) -> None:
    cursor = publish_event(shared_server, topic, "shipped", 0)
    page = open_page(
        f'<realtime-topic id="all" name="{topic}" since="{cursor}"></realtime-topic>'
        f'<p><realtime-topic id="some" name="{topic}" on="paid  lost" since="{cursor}">'
        "</realtime-topic></p>"
    )
    page.evaluate(
        "document.body.addEventListener('realtime:paid', event => { window.paid ??= event })"
    )
    cursors = [publish_event(shared_server, topic, event, n) for n, event in enumerate(("shipped", "paid"))]
    wait_for_heard(
        page,
        ["realtime:shipped", "all", "0"],
        ["realtime:paid", "all", "1"],
        ["realtime:paid", "some", "1"],
    )
    detail = page.evaluate("({...paid.detail, time: typeof paid.detail.time})")
    assert detail == {
        "topic": topic,
        "event": "paid",
        "data": "1",
        "cursor": cursors[1],
        "seq": 3,
        "time": "number",
    }
    assert page.evaluate("[paid.bubbles, paid.composed, paid.cancelable]") == [True, True, False]
    assert page.evaluate("all.hidden && some.hidden")
    assert len(page.subscribed) == 1


def test_a_removed_element_unsubscribes_and_a_moved_one_keeps_its_position(
    open_page, shared_server, topic
) -> None:
    publish_event(shared_server, topic, "shipped", 0)
    page = open_page(
        f'<realtime-topic id="one" name="{topic}" last="1"></realtime-topic><p id="p"></p>'
    )
    wait_for_heard(page, ["realtime:shipped", "one", "0"])
    page.evaluate("p.append(one)")
    page.evaluate("document.body.moveBefore?.(one, p)")
    page.evaluate("{ const it = one; it.remove(); p.append(it); }")
    publish_event(shared_server, topic, "shipped", 1)
    wait_for(page, "heard.length >= 2")
    page.evaluate("{ window.gone = one; gone.remove(); }")
    wait_for_frames(page, page.unsubscribed, 1)
    page.evaluate(ADD, {"name": topic, "id": "two", "last": "1"})
    wait_for(page, "heard.length >= 3")
    publish_event(shared_server, topic, "shipped", 2)
    wait_for_heard(
        page,
        ["realtime:shipped", "one", "0"],
        ["realtime:shipped", "one", "1"],
        ["realtime:shipped", "two", "1"],
        ["realtime:shipped", "two", "2"],
    )
    assert len(page.subscribed) == 2


def test_changed_attributes_subscribe_again_but_changed_event_names_do_not(
    open_page, shared_server, topic
) -> None:
    cursor = publish_event(shared_server, topic, "shipped", 0)
    publish_event(shared_server, topic, "paid", 1)
    page = open_page(
        f'<realtime-topic id="one" name="{topic}" on="shipped" last="2"></realtime-topic>'
    )
    wait_for_heard(page, ["realtime:shipped", "one", "0"])
    page.evaluate("one.setAttribute('on', 'paid')")
    publish_event(shared_server, topic, "paid", 2)
    wait_for(page, "heard.length >= 2")
    assert len(page.subscribed) == 1
    page.evaluate(
        "since => { one.removeAttribute('last'); one.setAttribute('since', since); }", cursor
    )
    wait_for(page, "heard.length >= 4")
    page.evaluate(
        "name => { one.setAttribute('name', name); one.setAttribute('last', 1);"
        " one.removeAttribute('since'); }",
        f"{topic}-b",
    )
    wait_for_frames(page, page.subscribed, 3)
    publish_event(shared_server, f"{topic}-b", "paid", 3)
    wait_for_heard(
        page,
        ["realtime:shipped", "one", "0"],
        ["realtime:paid", "one", "2"],
        ["realtime:paid", "one", "1"],
        ["realtime:paid", "one", "2"],
        ["realtime:paid", "one", "3"],
    )


def test_late_elements_start_at_their_own_cursors(open_page, shared_server, topic) -> None:
    cursors = [publish_event(shared_server, topic, "shipped", n) for n in range(4)]
    page = open_page(
        f'<realtime-topic id="first" name="{topic}" since="{cursors[2]}"></realtime-topic>'
    )
    wait_for_heard(page, ["realtime:shipped", "first", "3"])
    for number in (1, 0, 3):
        page.evaluate(
            ADD, {"name": topic, "id": f"after{number}", "since": cursors[number], "on": "shipped"}
        )
    wait_for(page, "heard.length >= 6")
    publish_event(shared_server, topic, "shipped", 4)
    wait_for(page, "heard.length >= 10")
    heard = page.evaluate("heard")
    assert {name: [data for _, id, data in heard if id == name] for _, name, _ in heard} == {
        "first": ["3", "4"],
        "after1": ["2", "3", "4"],
        "after0": ["1", "2", "3", "4"],
        "after3": ["4"],
    }
    assert len(heard) == 10


def test_denials_and_resets_have_event_names_of_another_form(open_page, shared_server, topic) -> None:
    trimmed = f"tiny.{topic.removeprefix('public.')}"
    cursor = publish_event(shared_server, trimmed, "shipped", 0)
    for number in range(10):
        publish_event(shared_server, trimmed, "shipped", number)
    shared_server.run(
        "from django.core.management import call_command; call_command('realtime', 'trim')"
    )
    page = open_page(
        '<realtime-topic id="a" name="private.1"></realtime-topic>'
        f'<realtime-topic id="b" name="{trimmed}" since="{cursor}"></realtime-topic>'
        f'<realtime-topic id="c" name="{topic}"></realtime-topic>'
    )
    wait_for(page, "heard.length >= 2")
    wait_for_frames(page, page.subscribed, 2)
    publish_event(shared_server, topic, "reset", "event")
    wait_for(page, "heard.length >= 3")
    assert sorted(page.evaluate("heard")) == [
        ["realtime-denied", "a", "private.1"],
        ["realtime-reset", "b", trimmed],
        ["realtime:reset", "c", "event"],
    ]


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"name": ""}, "the attribute name is missing"),
        ({}, "the attribute name is missing"),
        ({"name": "public.news", "last": "x"}, 'last="x" is not a whole number'),
        ({"name": "public.news", "last": "-1"}, 'last="-1" is not a whole number'),
        ({"name": "public.news", "last": "1", "since": "@1"}, "give it since or last, not both"),
        ({"name": "public.news", "since": ""}, "since is empty"),
    ],
)
def test_a_wrong_attribute_is_logged_once_and_follows_nothing(
    open_page, expected_errors, shared_server, topic, attributes, error
) -> None:
    expected_errors.append(f"<realtime-topic>: {error}")
    html = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    page = open_page(f'<realtime-topic id="one" {html}></realtime-topic><p id="after"></p>')
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.reload()
    assert page.locator("#after").count() == 1
    wait_for(page, "realtime.state === 'waiting'")
    publish_event(shared_server, topic, "shipped", 0)
    page.evaluate(
        "topic => { one.removeAttribute('since'); one.setAttribute('last', 1);"
        " one.setAttribute('name', topic); }",
        topic,
    )
    wait_for_heard(page, ["realtime:shipped", "one", "0"])
    assert len(errors) == 1
    assert error in errors[0]


def test_a_page_without_a_client_logs_once_what_to_add(open_page, expected_errors) -> None:
    expected_errors.append("<realtime-topic>: this page has no client. Add {% realtime_script %}")
    page = open_page('<realtime-topic name="public.news"></realtime-topic>' * 2, "&without&twice")
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.reload()
    wait_for(page, "window.heard.length === 0")
    assert page.evaluate("[window.realtime, typeof customElements.get('realtime-topic')]") == [
        None,
        "function",
    ]
    assert len(errors) == 1


def test_the_client_can_be_loaded_twice(open_page, shared_server, topic) -> None:
    page = open_page(f'<realtime-topic id="one" name="{topic}"></realtime-topic>', "&twice")
    wait_for_state(page, "connected")
    page.evaluate(ADD, {"name": topic, "id": "two"})
    wait_for_frames(page, page.subscribed, 1)
    publish_event(shared_server, topic, "shipped", 0)
    wait_for(page, "heard.length >= 2")
    assert sorted(id for _, id, _ in page.evaluate("heard")) == ["one", "two"]


def test_an_element_waits_for_the_listeners_of_the_pages_scripts(
    open_page, shared_server, topic
) -> None:
    cursor = publish_event(shared_server, topic, "shipped", 0)
    publish_event(shared_server, topic, "paid", 1)
    page = open_page()
    script = (
        "window.wasDefined = document.querySelector('realtime-topic').matches(':defined');"
        "document.addEventListener('realtime:paid', event => { window.paid = event.detail.data });"
    )

    def allow_scripts(route) -> None:
        answer = route.fetch()
        headers = {k: v for k, v in answer.headers.items() if k != "content-security-policy"}
        route.fulfill(response=answer, headers=headers)

    page.route("**/elements/**", allow_scripts)
    page.route("**/late.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    html = f'<realtime-topic name="{topic}" since="{cursor}"></realtime-topic>'
    html += '<script type="module" src="/late.js"></script>'
    page.goto(f"/elements/?html={quote(html)}")
    wait_for(page, "window.paid === '1'")
    assert page.evaluate("wasDefined") is False


def test_an_element_whose_id_is_realtime_does_not_replace_the_client(
    open_page, shared_server, topic
) -> None:
    publish_event(shared_server, topic, "shipped", 1)
    html = f'<div id="realtime"></div><realtime-topic id="one" name="{topic}" last="1"></realtime-topic>'
    page = open_page(html)
    wait_for_heard(page, ["realtime:shipped", "one", "1"])


def test_elements_can_follow_user_and_everyone(open_page, shared_server) -> None:
    cookie = shared_server.sign_in()["Cookie"]
    cursor = publish_event(shared_server, "everyone", "paid", 0)
    page = open_page(
        '<realtime-topic id="own" name="user" last="1"></realtime-topic>'
        f'<realtime-topic id="all" name="everyone" since="{cursor}"></realtime-topic>',
        cookie=cookie,
    )
    wait_for(page, "realtime.userId")
    own = f"user.{page.evaluate('realtime.userId')}"
    publish_event(shared_server, own, "paid", 1)
    wait_for(page, "heard.length >= 1")
    publish_event(shared_server, "everyone", "paid", 2)
    wait_for_heard(page, ["realtime:paid", "own", "1"], ["realtime:paid", "all", "2"])
    page.evaluate("fetch('/logout/').then(() => realtime.reconnect())")
    wait_for(page, "heard.length >= 4")
    assert sorted(page.evaluate("heard.slice(2)")) == [
        ["realtime-denied", "all", "everyone"],
        ["realtime-denied", "own", "user"],
    ]


@pytest.mark.parametrize("is_user", [True, False], ids=["user", "name"])
def test_an_element_of_the_page_starts_at_the_time_of_the_request_and_a_later_one_from_now_on(
    open_page, shared_server, topic, is_user
) -> None:
    page = open_page()
    user = page.evaluate("fetch('/sign-in/iris/').then(answer => answer.text())")
    followed = f"user.{user}" if is_user else topic
    name = "user" if is_user else topic

    def load(route) -> None:
        publish_event(shared_server, followed, "shipped", "between")
        route.continue_()

    page.route("**/realtime.js", load)
    page.goto(f"/elements/?html={quote(f'<realtime-topic id=one name={name}></realtime-topic>')}")
    wait_for_heard(page, ["realtime:shipped", "one", "between"])
    page.evaluate(ADD, {"name": followed, "id": "two"})
    wait_for_frames(page, page.subscribed, 1)
    publish_event(shared_server, followed, "shipped", "after")
    wait_for_heard(
        page,
        ["realtime:shipped", "one", "between"],
        ["realtime:shipped", "one", "after"],
        ["realtime:shipped", "two", "after"],
    )
