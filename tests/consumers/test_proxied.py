"""One server behind nginx: rate limits by address, and streams across a restart."""

import asyncio
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.consumers.test_nginx import FOLLOW
from tests.support.http import http_client
from tests.support.nginx import GET_NGINX, nginx, nginx_path
from tests.support.server import DEADLINE, Publisher, Server
from tests.support.services import require
from tests.support.waiting import wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "wire-protocol.md").read_text()
DOCUMENTED = "".join(re.findall(r"```nginx\n(.*?)```", PAGE, re.DOTALL))
FORWARDS = """
location /realtime/ {
    proxy_pass http://site;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
}
location /plain/ {
    proxy_pass http://site/;
    proxy_set_header Host $http_host;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxied")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    require(nginx_path(), GET_NGINX)
    options = ["-u", str(folder / "site.sock")]  # in addition to its port
    application = "tests.consumers.proxied:application"
    with Server(folder, application=application, options=options) as running:
        yield running


@pytest.fixture(params=["port", "socket file"])
def site(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Iterator[str]:
    """The URL of a proxy in front of the server, which connects to its port or socket."""
    upstream: int | str = server.port
    if request.param == "socket file":
        upstream = f"unix:{server.folder / 'site.sock'}"
    path = require(nginx_path(), GET_NGINX)
    with nginx(path, tmp_path, [upstream], FORWARDS + DOCUMENTED) as port:
        yield f"http://127.0.0.1:{port}"


def client_at(address: str) -> httpx.AsyncClient:
    """Return a client whose connections are from an address of this machine."""
    return http_client(transport=httpx.AsyncHTTPTransport(local_address=address))


# Each test uses new addresses, whose rate limits are unused.
fresh = (f"127.0.9.{number}" for number in itertools.count(1))


async def test_anonymous_senders_behind_a_proxy_have_separate_rate_limits(site: str) -> None:
    command = {"type": "call", "topic": "public.a", "action": "rename"}
    async with client_at(next(fresh)) as one, client_at(next(fresh)) as other:
        statuses = []
        while 429 not in statuses:
            # A client cannot get a new rate limit by sending the header itself.
            headers = {"X-Forwarded-For": f"8.8.8.{len(statuses)}"}
            answer = await one.post(f"{site}/realtime/send", json=command, headers=headers)
            statuses.append(answer.status_code)
            assert len(statuses) < 200, "it was never refused"
        assert set(statuses) == {404, 429}
        assert statuses.count(404) >= 5
        answer = await other.post(f"{site}/realtime/send", json=command)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_action")


async def test_anonymous_pollers_behind_a_proxy_have_separate_rate_limits(site: str) -> None:
    async with client_at(next(fresh)) as one, client_at(next(fresh)) as other:
        url = f"{site}/realtime/poll?topic=public.a"
        answers = await asyncio.gather(*(one.get(url) for _ in range(40)))
        assert {answer.status_code for answer in answers} == {200, 429}
        assert (await other.get(url)).status_code == 200


@pytest.mark.parametrize("site", ["port"], indirect=True)
def test_a_plain_event_source_behind_the_documented_proxy_survives_a_restart_of_the_only_server(
    site: str, server: Server, browser: Any
) -> None:
    topic = "public.restarted"
    publisher = Publisher(server)
    page = browser.new_page()
    page.goto(f"{site}/realtime/poll?topic=")
    page.evaluate(FOLLOW, [topic])
    page.evaluate(f"window.plain = new EventSource('/plain/realtime/sse?topic={topic}')")

    def until(expression: str, what: str) -> None:
        wait_until(lambda: page.evaluate(expression), what, DEADLINE)

    until("subscribed === 1 && plain.readyState === 1", "both streams are open")
    publisher(topic, 2)
    until(f"seen['{topic}']?.length === 2", "the first events have arrived")
    server.kill9()
    try:
        publisher(topic, 3)
        until("plain.readyState === 2", "the proxy's 502 has closed the other stream for good")
        until("opened > 2", "the proxy has answered for the server")
        assert page.evaluate("source.readyState") != 2
    finally:
        server.start()
    publisher(topic, 1)
    until(f"seen['{topic}']?.length === 6", "all events have arrived")
    assert page.evaluate("seen") == {topic: [1, 2, 3, 4, 5, 6]}
    assert page.evaluate("resets") == 0
    page.close()
    publisher.close()
