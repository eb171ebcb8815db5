"""Pages whose network, tab, log or user changes, in a real Chromium."""

from urllib.parse import quote

import pytest

from tests.js.support import ADD, now, publish_event, wait_for, wait_for_heard, wait_for_state
from tests.js.tabs import Tab, start_browser
from tests.support.server import Server


def element(id: str, topic: str, **attributes: str) -> str:
    text = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return f'<realtime-topic id="{id}" name="{topic}"{text}></realtime-topic>'


def test_a_page_that_was_offline_catches_up_with_another(
    open_window, shared_server, topic
) -> None:
    first = publish_event(shared_server, topic, "shipped", 0)
    url = f"/elements/?html={quote(element('one', topic, since=first))}"
    pages = [open_window(shared_server, url) for _ in range(2)]
    publish_event(shared_server, topic, "shipped", 1)
    for page in pages:
        wait_for_heard(page, ["realtime:shipped", "one", "1"])
    offline, online = pages
    offline.context.set_offline(True)
    wait_for_state(offline, "waiting")
    # A part of the page that is added without a connection, and whose cursor is older.
    offline.evaluate(ADD, {"id": "late", "name": topic, "since": first})
    for number in range(2, 6):
        publish_event(shared_server, topic, "shipped", number)
    everything = [["realtime:shipped", "one", str(number)] for number in range(1, 6)]
    wait_for_heard(online, *everything)
    assert offline.evaluate("heard.length") == 1
    offline.context.set_offline(False)
    wait_for(offline, "heard.length >= 10")
    heard = offline.evaluate("heard")
    assert [one for one in heard if one[1] == "one"] == everything
    assert [one[2] for one in heard if one[1] == "late"] == ["1", "2", "3", "4", "5"]
    assert offline.evaluate("sessionStorage.resets") is None


def test_a_hidden_or_frozen_tab_misses_no_event(chromium, shared_server, tmp_path, topic) -> None:
    url = f"http://127.0.0.1:{shared_server.port}/page/{topic}/"
    with start_browser(chromium, tmp_path) as browser:
        tab = Tab(browser, url)
        tab.wait_for("realtime.state === 'connected' && document.visibilityState === 'visible'")
        shared_server.publish(topic, 3)
        tab.wait_for("seen.length === 3")
        Tab(browser, "about:blank")
        tab.wait_for("document.visibilityState === 'hidden'")
        shared_server.publish(topic, 20)
        tab.wait_for("seen.length >= 23")
        tab.evaluate("document.addEventListener('freeze', () => { window.frozen = seen.length })")
        tab.freeze()
        shared_server.publish(topic, 20)
        tab.thaw()
        tab.show()
        tab.wait_for("document.visibilityState === 'visible' && seen.length >= 43")
        assert tab.evaluate("frozen") == 23
        assert tab.evaluate("seen") == list(range(1, 44))
        assert tab.evaluate("sessionStorage.resets") is None


def test_a_tab_that_was_frozen_while_the_server_crashed_resumes(chromium, tmp_path, topic) -> None:
    with Server(tmp_path) as server, start_browser(chromium, tmp_path / "profile") as browser:
        tab = Tab(browser, f"http://127.0.0.1:{server.port}/page/{topic}/")
        tab.wait_for("realtime.state === 'connected'")
        tab.evaluate("Math.random = () => 0.01")
        server.publish(topic, 1)
        tab.wait_for("seen.length === 1")
        Tab(browser, "about:blank")
        tab.wait_for("document.visibilityState === 'hidden'")
        tab.freeze()
        server.kill9()
        server.publish(topic, 20)
        server.start()
        tab.thaw()
        tab.show()
        tab.wait_for("seen.length >= 21 && realtime.state === 'connected'")
        assert tab.evaluate("seen") == list(range(1, 22))
        assert tab.evaluate("sessionStorage.resets") is None


def test_two_trimmed_cursors_reset_a_page_that_reloads_once(
    open_window, shared_server, topic
) -> None:
    name = f"tiny.{topic.removeprefix('public.')}"
    stale = [publish_event(shared_server, name, "shipped", number) for number in range(2)]
    for number in range(2, 12):
        publish_event(shared_server, name, "shipped", number)
    shared_server.run(
        "from django.core.management import call_command; call_command('realtime', 'trim')"
    )
    html = element("a", name, since=stale[0]) + element("b", name, since=stale[1])
    page = open_window(shared_server, f"/elements/?reload&html={quote(html)}")
    wait_for(page, "sessionStorage.resets === '2'")  # both elements were reset by the same page
    wait_for(page, "performance.getEntriesByType('navigation')[0].type === 'reload'")
    # Wait until both cursors were refused again: earlier events would reach neither element.
    wait_for(page, "window.warned?.length === 2")
    publish_event(shared_server, name, "paid", "x")
    wait_for(page, "heard.filter(([, , data]) => data === 'x').length === 2")
    assert page.evaluate("sessionStorage.resets") == "2"
    assert page.evaluate("performance.getEntriesByType('navigation')[0].type") == "reload"


def test_signing_in_while_connected_brings_the_users_topic(
    open_window, shared_server, topic
) -> None:
    html = element("own", "user") + element("all", topic, since=now())
    page = open_window(shared_server, f"/elements/?html={quote(html)}")
    wait_for_heard(page, ["realtime-denied", "own", "user"])
    page.evaluate("realtime.addEventListener('userchange', event => { window.change = event })")
    page.evaluate("fetch('/sign-in/grace/').then(() => realtime.reconnect())")
    wait_for(page, "window.change && realtime.state === 'connected'")
    key = page.evaluate("change.userId")
    assert page.evaluate("change.previous") is None
    publish_event(shared_server, f"user.{key}", "paid", 1)
    page.evaluate(ADD, {"id": "late", "name": "user", "last": "1"})
    wait_for(page, "heard.length >= 2")
    publish_event(shared_server, f"user.{key}", "paid", 2)
    wait_for(page, "heard.filter(([, , data]) => data === '2').length === 2")
    publish_event(shared_server, topic, "paid", 3)
    wait_for(page, "heard.at(-1)[2] === '3'")
    # The denial is not reported again, and the next user gets no event of this one.
    page.evaluate("fetch('/sign-in/ida/').then(() => realtime.reconnect())")
    wait_for(page, "change.previous !== null && realtime.state === 'connected'")
    publish_event(shared_server, f"user.{key}", "paid", 4)
    publish_event(shared_server, topic, "paid", 5)
    wait_for(page, "heard.at(-1)[2] === '5'")
    heard = page.evaluate("heard")
    assert "4" not in [data for _, _, data in heard]
    assert [type for type, _, _ in heard].count("realtime-denied") == 1
    assert page.evaluate("sessionStorage.resets") is None


@pytest.mark.parametrize("transport", ["sse", "longpoll"])
def test_eight_tabs_on_http_1_load_and_a_hidden_one_catches_up_when_it_is_shown(
    chromium, shared_server, tmp_path, topic, transport
) -> None:
    name = f"{topic[:30]}-{transport}"
    since = publish_event(shared_server, name, "tick", 0)
    site = f"http://127.0.0.1:{shared_server.port}"
    url = f"{site}/page/{name}/?since={since}&transport={transport}"
    with start_browser(chromium, tmp_path) as browser:
        tabs = []
        for _ in range(8):
            tabs.append(Tab(browser, url))
            tabs[-1].wait_for("realtime.state === 'connected'")
        first, last = tabs[0], tabs[-1]
        first.wait_for("document.visibilityState === 'hidden' && realtime.state === 'waiting'")
        shared_server.publish(name, 3)
        last.wait_for("seen.length === 3")
        assert first.evaluate("seen.length") == 0
        first.show()
        first.wait_for("seen.length === 3 && realtime.state === 'connected'")
        last.wait_for("realtime.state === 'waiting'")
