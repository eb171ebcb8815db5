"""Two servers behind nginx with its defaults: round robin, HTTP/1.0, no sticky sessions."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.consumers.contract import (
    Follower,
    LongPollFollower,
    PollFollower,
    SseFollower,
    TransportContract,
)
from tests.support.http import get_poll, http_client, open_stream
from tests.support.nginx import GET_NGINX, nginx, nginx_path
from tests.support.server import DEADLINE, Publisher, Server
from tests.support.services import require
from tests.support.waiting import wait_until

APPLICATION = "tests.consumers.application:application"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nginx")


@pytest.fixture(scope="module")
def servers(folder: Path) -> Iterator[list[Server]]:
    require(nginx_path(), GET_NGINX)
    with ExitStack() as stack:
        yield [stack.enter_context(Server(folder, application=APPLICATION)) for _ in range(2)]


@pytest.fixture(scope="module")
def server(folder: Path, servers: list[Server]) -> Iterator[Server]:
    """Both servers, behind the proxy."""
    path = require(nginx_path(), GET_NGINX)
    with nginx(path, folder, [each.port for each in servers]) as port:
        yield Server(folder, port=port)  # never started: the proxy listens on its port


@pytest.fixture(scope="module")
def publisher(server: Server) -> Iterator[Publisher]:
    publisher = Publisher(server)
    yield publisher
    publisher.close()


@pytest.fixture(scope="module")
def ada(server: Server) -> dict[str, str]:
    return server.sign_in("ada")


@pytest.fixture(
    params=[SseFollower, LongPollFollower, PollFollower], ids=lambda transport: transport.name
)
def transport(request: pytest.FixtureRequest) -> type[Follower]:
    chosen: type[Follower] = request.param
    return chosen


class TestBehindProxy(TransportContract):
    pass


async def test_requests_of_one_client_reach_both_servers(
    server: Server, servers: list[Server]
) -> None:
    async with http_client() as client:
        for _ in range(4):
            await get_poll(client, server.site, "public.turns")
    for each in servers:
        wait_until(lambda each=each: "topic=public.turns" in each.log.read_text(), "it was asked")


async def test_large_events_pass_complete_and_at_once(server: Server) -> None:
    """They are larger than nginx's buffers, and contain line breaks of every kind."""
    script = (
        "from realtime import publish\n"
        "for n in range(60): publish('public.large', 'tick', [n, 'é\\r\\n\\u2028' * 4_000])"
    )
    async with open_stream(server.site, "public.large") as stream:
        await stream.receive()
        await asyncio.to_thread(server.run, script)
        events = await stream.events(60)
    assert [event["data"][0] for event in events] == list(range(60))
    assert {event["data"][1] for event in events} == {"é\r\n\u2028" * 4_000}


FOLLOW = """(topics) => {
  Object.assign(window, {seen: {}, resets: 0, subscribed: 0, opened: 0});
  window.source = new EventSource("/realtime/sse?" + topics.map(t => "topic=" + t).join("&"));
  source.onopen = () => { opened += 1; };
  source.onmessage = ({data}) => {
    const frame = JSON.parse(data);
    if (frame.type === "subscribed") subscribed += 1;
    if (frame.type === "reset" || frame.recovered === false) resets += 1;
    if (frame.type === "event") (seen[frame.topic] ??= []).push(frame.seq);
  };
}"""


def test_a_plain_event_source_of_a_hundred_topics_survives_a_restart_of_every_server(
    server: Server, servers: list[Server], publisher: Publisher, browser: Any
) -> None:
    topics = [f"public.a-page-with-many-topics-{number}" for number in range(100)]
    page = browser.new_page()
    page.goto(f"{server.site}/state")
    page.evaluate(FOLLOW, topics)

    def until(expression: str, what: str) -> None:
        wait_until(lambda: page.evaluate(expression), what, DEADLINE)

    def total(count: int) -> str:
        return f"Object.values(seen).flat().length >= {count}"

    until("subscribed === 100", "all topics are followed")
    for topic in topics:
        publisher(topic, 2)
    until(total(200), "the first events have arrived")
    published = 2
    for each in servers:
        each.kill9()
        for topic in topics[::3]:
            publisher(topic, 1, "missed")
        each.start()
        published += 1
    until(f"opened > 1 && {total(200 + 2 * 34)}", "the events of the restarts have arrived")
    for topic in topics:
        publisher(topic, 1)
    until(total(300 + 2 * 34), "it is live again")
    seen = page.evaluate("seen")
    assert page.evaluate("resets") == 0
    for number, topic in enumerate(topics):
        count = published + 1 if number % 3 == 0 else 3
        assert seen[topic] == list(range(1, count + 1))
    page.close()
