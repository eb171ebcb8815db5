"""Pages with many long topic names behind nginx with its defaults, in a real Chromium."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tests.js.support import now, wait_for, wait_for_state
from tests.support.nginx import GET_NGINX, nginx, nginx_path
from tests.support.server import Server
from tests.support.services import require

TRANSPORTS = ("sse", "longpoll", "poll")
LINE = 8_192  # bytes that nginx accepts for a request's first line, or for a header

FOLLOW = """([names, since]) => {
  window.got = Object.fromEntries(names.map(name => [name, []]));
  window.denied = {};
  for (const name of names) {
    const topic = realtime.subscribe(name, {since});
    topic.on("*", (data) => got[name].push(data));
    topic.onReset(() => got[name].push("reset"));
    topic.onDenied(({code, message}) => { denied[name] = [code, message]; });
  }
}"""


@pytest.fixture(scope="module")
def proxied(shared_server, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """The server behind nginx, which by default lets no WebSocket through."""
    path = require(nginx_path(), GET_NGINX)
    with nginx(path, tmp_path_factory.mktemp("nginx"), [shared_server.port]) as port:
        yield SimpleNamespace(port=port)


def names_of(kind: str, length: int) -> list[str]:
    # 98, because the page follows two more topics, and the server allows a hundred.
    return [f"public.{kind}-{number}-".ljust(length, "x") for number in range(98)]


def publish(server: Server, names: list[str], data: int) -> None:
    server.run(
        "from realtime import publish_many\n"
        f"publish_many([(name, 'tick', {data}) for name in {names!r}])"
    )


def lines_of(requests: list) -> list[int]:
    """Return the lengths of each request's first line and of its longest header of ours."""
    lines = []
    for request in requests:
        line = f"GET {request.url.partition(':')[2]} HTTP/1.1\r\n"
        lines += [len(line), len(f"Last-Event-ID: {request.headers.get('last-event-id', '')}\r\n")]
    return lines


@pytest.mark.parametrize("transport", ["auto", *TRANSPORTS])
def test_a_hundred_topics_fit_into_the_limits_of_a_proxy(
    open_window, proxied, shared_server, transport
) -> None:
    names = names_of(transport, 46)
    page = open_window(proxied, f"/page/public.names/?transport={transport}")
    wait_for_state(page, "connected")
    assert page.evaluate("realtime.transport") == (transport if transport != "auto" else "sse")
    requests: list = []
    page.on("request", lambda request: requests.append(request))
    page.evaluate(FOLLOW, [names, now()])
    publish(shared_server, names, 1)
    wait_for(page, "Object.values(got).every(each => each.length >= 1)")
    # Another topic starts a request with the cursors of all the others.
    page.evaluate("void realtime.subscribe('public.another', {last: 1}).on('*', () => {})")
    publish(shared_server, names, 2)
    wait_for(page, "Object.values(got).every(each => each.length >= 2)")
    publish(shared_server, names, 3)
    wait_for(page, "Object.values(got).every(each => each.length >= 3)")
    assert page.evaluate("got") == {name: [1, 2, 3] for name in names}
    assert page.evaluate("denied") == {}
    assert any(request.headers.get("last-event-id", "").count(".") > 90 for request in requests)
    assert max(lines_of(requests)) < LINE
    assert page.evaluate("changes") == ([] if transport != "auto" else ["sse"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_topics_that_do_not_fit_are_denied_and_the_others_continue(
    open_window, proxied, shared_server, transport
) -> None:
    names = names_of(f"long-{transport}", 200)
    page = open_window(proxied, "/page/public.long/")
    wait_for_state(page, "connected")
    page.evaluate("name => sessionStorage.setItem('realtime:transport', name)", transport)
    paths: list = []
    page.on("request", lambda request: paths.append(request.url.partition("?")[0][-4:]))
    page.reload()
    wait_for_state(page, "connected")
    page.evaluate("""() => {
      window.states = [];
      realtime.addEventListener("statechange", ({state}) => states.push(state));
    }""")
    page.evaluate(FOLLOW, [names, now()])
    wait_for(page, "Object.keys(denied).length > 0")
    denied = page.evaluate("denied")
    assert {code for code, _ in denied.values()} == {"too_many_topics"}
    assert all("follow fewer" in message for _, message in denied.values())
    publish(shared_server, names, 1)
    left = [name for name in names if name not in denied]
    assert len(left) >= 30
    wait_for(page, f"Object.values(got).filter(each => each.length).length >= {len(left)}")
    assert page.evaluate("got") == {name: [1] if name in left else [] for name in names}
    assert page.evaluate("states") == []
    assert page.evaluate("realtime.transport") == transport
    assert len(paths) < 30, "the client sent too many requests"
