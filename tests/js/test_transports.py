"""The client on networks that block some transports, in a real Chromium."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from tests.js.proxy import Proxy, Rule, Verdict
from tests.js.support import now, publish_event, wait_for, wait_for_state
from tests.support.server import Publisher, Server
from tests.support.waiting import SCALE

TRANSPORTS = ("websocket", "sse", "longpoll", "poll")


@pytest.fixture(scope="module")
def proxied(shared_server) -> Iterator[Callable[[Rule], Proxy]]:
    """Start a proxy in front of the server."""
    with ExitStack() as stack:
        yield lambda rule: stack.enter_context(Proxy(shared_server.port, rule))


@pytest.fixture
def open_page(open_window, shared_server, topic) -> Callable:
    def open_page(query: str = "", proxy: Proxy | None = None, cookie: str | None = None, at=topic):
        server = SimpleNamespace(port=proxy.port) if proxy else shared_server
        page = open_window(server, f"/page/{at}/{query}", cookie)
        wait_for_state(page, "connected")
        return page

    return open_page


def wait_for_events(page, *expected: object) -> None:
    wait_for(page, f"seen.length >= {len(expected)}")
    assert page.evaluate("seen") == list(expected)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_one_api_on_every_transport(open_page, shared_server, transport) -> None:
    name = f"orders.{1 + TRANSPORTS.index(transport)}"
    cookie = shared_server.sign_in()["Cookie"]
    page = open_page(f"?transport={transport}", cookie=cookie, at=name)
    assert page.evaluate("realtime.transport") == transport
    shared_server.publish(name, 3)
    wait_for_events(page, 1, 2, 3)
    answer = page.evaluate("topic.call('rename', 'B')")
    assert (answer["name"], answer["by"]) == ("B", "ada")
    page.evaluate("topic.publish('comment', 'hello')")
    wait_for_events(page, 1, 2, 3, 4)
    error = "error => [error.name, error.code, error.message]"
    assert page.evaluate(f"topic.call('boom', 'invalid').catch({error})") == [
        "RealtimeError",
        "invalid",
        "not a name",
    ]
    # While the first topic goes on: a second one, a refused one, and the user's own.
    script = """since => {
      window.late = [];
      realtime.since = since;
      realtime.subscribe("private.1").onDenied(({code}) => late.push(code));
      realtime.user.on("*", (data) => late.push(data));
    }"""
    page.evaluate(script, now())
    wait_for(page, "late.includes('forbidden')")
    user = page.evaluate("realtime.userId")
    wait_for(page, f"realtime.user.name === 'user.{user}'")
    page.evaluate(f"void realtime.subscribe('{name}', {{last: 1}}).on('*', ({{}}) => late.push(4))")
    wait_for(page, "late.includes(4)")
    shared_server.publish(f"user.{user}", 1, start=7)
    wait_for(page, "late.includes(7)")
    shared_server.publish(name, 2)
    wait_for_events(page, 1, 2, 3, 4, 5, 6)
    assert page.evaluate("changes") == []


def blocks_upgrades(method: str, path: str) -> Verdict:
    return "refuse" if method == "UPGRADE" else "pass"


def holds_streams(method: str, path: str) -> Verdict:
    return "hold" if "/realtime/sse" in path else blocks_upgrades(method, path)


def cuts_long_requests(method: str, path: str) -> Verdict:
    """Pass only plain GET requests that are answered at once."""
    if method == "GET":
        return "cut" if "/realtime/" in path else "pass"
    return "refuse"


@pytest.mark.parametrize(
    ("rule", "transport", "seconds"),
    [(blocks_upgrades, "sse", 5), (holds_streams, "longpoll", 15), (cuts_long_requests, "poll", 20)],
)
def test_the_client_uses_a_transport_that_the_network_lets_through(
    open_page, proxied, shared_server, topic, rule, transport, seconds
) -> None:
    proxy = proxied(rule)
    name = f"{topic}-{transport}"
    page = open_page(proxy=proxy, at=name)
    page.evaluate("addEventListener('unhandledrejection', ({reason}) => seen.push(String(reason)))")
    wait_for(page, f"realtime.transport === '{transport}' && realtime.state === 'connected'")
    assert page.evaluate("performance.now()") < seconds * 1000
    shared_server.publish(name, 5)
    wait_for_events(page, 1, 2, 3, 4, 5)
    # The next page in this tab starts with the transport that worked.
    page.goto(f"/page/{name}/")
    count = len(proxy.requests)
    wait_for_state(page, "connected")
    assert page.evaluate("realtime.transport") == transport
    assert "/realtime/ws?v=1" not in [path for _, path in proxy.requests[count:]]
    shared_server.publish(name, 1)
    wait_for_events(page, 6)


@pytest.mark.parametrize("transport", ["sse", "longpoll"])
def test_a_page_from_the_back_forward_cache_catches_up(
    open_page, shared_server, topic, transport
) -> None:
    name = f"{topic}-{transport}"
    page = open_page(f"?transport={transport}", at=name)
    page.evaluate("window.sameDocument = true")
    page.click("a")
    page.wait_for_url("**/public.other/")
    shared_server.publish(name, 5)
    page.evaluate("history.back()")
    wait_for(page, "window.sameDocument === true")
    assert page.evaluate("persisted") is True
    wait_for_events(page, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("transport", ["sse", "longpoll", "poll"])
def test_a_page_that_is_older_than_the_log_is_reset_once(
    open_page, shared_server, transport
) -> None:
    name = f"tiny.{transport}"
    shared_server.publish(name, 1)
    since = shared_server.run(f"from realtime import log; print(log.head({name!r}))").strip()
    shared_server.publish(name, 10)
    shared_server.run(
        "from django.core.management import call_command; call_command('realtime', 'trim')"
    )
    # The reload brings the same page, as from a cache, with the same cursor.
    page = open_page(f"?reload&since={since}&transport={transport}", at=name)
    wait_for(page, "performance.getEntriesByType('navigation')[0].type === 'reload'")
    wait_for(page, "realtime.state === 'connected'")
    page.evaluate(f"""
      window.all = [];
      void realtime.subscribe("{name}", {{last: 1}}).on("*", (data, {{seq}}) => all.push(seq));
    """)
    wait_for(page, "all.length === 1")
    shared_server.publish(name, 1)
    wait_for(page, "all.length === 2")
    assert page.evaluate("[all, seen]") == [[11, 12], [12]]
    assert page.evaluate("sessionStorage.resets") == "1"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_page_without_a_session_is_the_user_of_its_token(
    open_page, shared_server, transport
) -> None:
    name = f"orders.{10 + TRANSPORTS.index(transport)}"
    page = open_page()
    urls = []
    page.on("request", lambda request: urls.append(request.url))
    # The first token has expired when it arrives, and the second expires soon.
    page.evaluate(
        """([transport, name, since]) => {
          window.tokens = [];
          const seconds = [-1, 2];
          const token = async () => {
            const answer = await fetch(`/token/ada/?seconds=${seconds.shift() ?? 60}`);
            tokens.push(await answer.text());
            return tokens.at(-1);
          };
          window.own = new realtime.constructor({url: "/realtime/", token, transport});
          window.heard = [];
          const order = own.subscribe(name, {since});
          order.on("*", (data) => heard.push(data));
          order.onDenied(({code}) => heard.push(code));
          window.answer = order.call("echo", 0);
        }""",
        [transport, name, now()],
    )
    wait_for(page, "own.state === 'connected' && own.userId")
    assert page.evaluate("answer") == 0
    wait_for(page, "tokens.length === 3 && own.state === 'connected'")
    shared_server.publish(name, 3)
    wait_for(page, "heard.length === 3")
    assert page.evaluate("heard") == [0, 1, 2]
    assert page.evaluate("realtime.userId") is None
    tokens = page.evaluate("tokens")
    assert not [url for url in urls if any(token in url for token in tokens)]


def lets_polls_through(method: str, path: str) -> Verdict:
    """Pass only requests that are answered at once."""
    refused = "/realtime/sse" in path or "wait=25" in path
    return "refuse" if refused else blocks_upgrades(method, path)


# A second client in the page, which tries better transports after a tenth of the time.
UPGRADE = """([topic, since]) => {
  const after = (ms, run) => {
    const timer = setTimeout(run, ms >= 15_000 ? ms / 10 : ms);
    return () => clearTimeout(timer);
  };
  const clock = {now: () => Date.now(), random: () => 0.01, after};
  window.own = new realtime.constructor({url: "/realtime/", clock});
  window.used = [];
  window.got = [];
  own.addEventListener("transportchange", ({transport}) => used.push(transport));
  const followed = own.subscribe(topic, {since});
  followed.on("*", (data, {seq}) => got.push(seq));
  followed.onReset(() => got.push("reset"));
}"""


@pytest.mark.parametrize(
    ("remembered", "first", "blocked", "then", "last"),
    [
        ("websocket", "sse", blocks_upgrades, None, "websocket"),
        ("poll", "poll", lets_polls_through, holds_streams, "longpoll"),
        ("poll", "poll", lets_polls_through, blocks_upgrades, "sse"),
    ],
)
def test_a_page_upgrades_its_transport_when_the_network_lets_it(
    open_page, proxied, shared_server, topic, remembered, first, blocked, then, last
) -> None:
    rules: list[Rule] = [blocked]
    proxy = proxied(lambda method, path: rules[-1](method, path))
    name = f"{topic}-{last}"
    since = publish_event(shared_server, name, "tick", 0)
    page = open_page(proxy=proxy, at=name, query="?transport=poll")
    page.evaluate("realtime.close()")
    page.evaluate("name => sessionStorage.setItem('realtime:transport', name)", remembered)
    page.evaluate(UPGRADE, [name, since])
    publisher, count = Publisher(shared_server), 1

    def publish_until(claim: str) -> None:
        """Keep publishing, so that events come before, during and after each change."""
        nonlocal count
        deadline = time.monotonic() + 60 * SCALE
        while not page.evaluate(claim):
            assert time.monotonic() < deadline, f"timed out waiting for {claim}"
            if page.evaluate("got.length") > count - 20:  # do not get ahead of the page
                publisher(name, 5)
                count += 5

    try:
        publish_until(f"got.length > 20 && own.transport === '{first}'")
        rules.append(then or (lambda method, path: "pass"))
        publish_until(f"own.transport === '{last}'")
        publish_until(f"got.length > {count + 20}")
    finally:
        publisher.close()
    wait_for(page, f"got.length >= {count - 1}")
    assert page.evaluate("got") == list(range(2, count + 1))
    assert page.evaluate("own.transport") == last
    assert page.evaluate("used.at(-1)") == last


SWITCHES = """() => {
  window.got = [];
  window.used = [];
  const names = ["websocket", "sse", "longpoll", "poll"];
  let [changed, started, at] = [0, 0, 0];
  // One switch at a time, unless a restart of the server has ended it.
  window.isSwitching = () => started > changed && performance.now() - at < 3000;
  const switchToNext = () => {
    if (realtime.state !== "connected" || isSwitching()) return;
    [started, at] = [got.length, performance.now()];
    realtime.switchTo(names[(names.indexOf(realtime.transport) + 1) % names.length]);
  };
  window.topic.on("*", (data, {seq}) => {
    got.push(seq);
    if (got.length - changed >= 8) switchToNext();
  });
  realtime.addEventListener("transportchange", ({transport}) => {
    used.push(transport);
    changed = got.length;
  });
}"""


def test_a_page_that_often_switches_transports_gets_each_event_once(
    open_window, tmp_path
) -> None:
    count, name = 5000, "long.switches"
    with Server(tmp_path) as server:
        page = open_window(server, f"/page/{name}/")
        wait_for_state(page, "connected")
        page.evaluate(SWITCHES)
        publisher, published = Publisher(server), 0
        crashes = [count * 3 // 10, count * 6 // 10]
        try:
            while published < count:
                # Events arrive before, during and after the switch that they cause.
                wait_for(page, f"got.length > {published - 16} && !isSwitching()", timeout=60)
                publisher(name, 20, start=published)
                published += 20
                page.evaluate("realtime.connector.wake()")  # otherwise the next poll comes in two seconds
                if published in crashes:
                    server.kill9()
                    server.start()
        finally:
            publisher.close()
        wait_for(page, f"got.length >= {count}", timeout=60)
        assert page.evaluate("got") == list(range(1, count + 1))
        assert page.evaluate("sessionStorage.resets") is None
        used = page.evaluate("used")
        assert set(used) == set(TRANSPORTS)
        assert len(used) >= count // 25, f"{len(used)} changes"


def test_a_client_without_a_server_at_its_url_says_what_is_missing(
    open_page, expected_errors
) -> None:
    expected_errors += ["realtime: there is nothing at", "WebSocket connection", "Failed to load"]
    page = open_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.evaluate("""import("/static/realtime/realtime.js").then(({createClient}) => {
      window.lost = createClient({url: "/nowhere/"});
      lost.subscribe("public.news");
    })""")
    wait_for(page, "lost.state === 'waiting'")
    found = [text for text in said if text.startswith("realtime:")]
    assert len(found) == 1, said
    assert "/nowhere/ (404). Is with_realtime() missing in asgi.py" in found[0]
