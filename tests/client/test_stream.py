"""The link over an event stream: reopened when topics change, and behind proxies."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.client import Client, CommandRefused, Cursor, Subscription
from realtime.client.links import LinkClosed
from realtime.client.stream import MAX_BYTES, EventStream, StreamLink
from tests.client.support import TOPIC, FakeClient, FakeServer, play
from tests.client.support.proxy import Proxy, proxy_to
from tests.support.nginx import GET_NGINX, nginx, nginx_path
from tests.support.server import DEADLINE, Publisher, Server
from tests.support.services import require


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("streams")) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(server: Server) -> Iterator[Publisher]:
    running = Publisher(server)
    yield running
    running.close()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with proxy_to(server.port) as running:
        yield running


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}/realtime/"


async def read(events: Subscription, numbers: Iterable[int]) -> None:
    """Read events and check their numbers, so that a missing event fails at once."""
    async with asyncio.timeout(DEADLINE * 3):
        for number in numbers:
            assert (await anext(events)).data == number


async def test_a_slow_reader_of_a_stream_receives_every_event(
    server: Server, publisher: Publisher
) -> None:
    count = 300
    async with (
        Client(url(server.port), transport="sse") as client,
        client.subscribe("public.slow", max_queue=6) as events,
    ):
        publishing = asyncio.create_task(publisher.publish("public.slow", count))
        await read(events, range(count))
        await publishing


async def test_no_event_is_missing_after_an_unsubscribe_and_an_immediate_subscribe(
    server: Server, publisher: Publisher
) -> None:
    count, each = 900, 30
    async with Client(url(server.port), transport="sse") as client:
        publishing = asyncio.create_task(publisher.publish("public.again", count))
        since: Cursor | str | None = "@1"
        for start in range(0, count, each):
            async with client.subscribe("public.again", since=since) as events:
                await read(events, range(start, start + each))
                since = events.cursor
        await publishing


async def test_no_event_is_missing_if_a_proxy_removes_the_header_with_the_cursors(
    server: Server, publisher: Publisher, proxy: Proxy
) -> None:
    proxy.strips = b"last-event-id"
    names = ["public.bare-1", "public.bare-2"]
    for name in names:
        await publisher.publish(name, 5)
    async with Client(url(proxy.port), transport="sse") as client:
        cursors = []
        for number, name in enumerate(names):
            async with client.subscribe(name, since="@1") as events:
                await read(events, range(2 + number))
                cursors.append(events.cursor)
        one, two = (
            client.subscribe(name, since=cursor)
            for name, cursor in zip(names, cursors, strict=True)
        )
        await read(one, range(2, 5))
        await read(two, range(3, 5))
        # Another topic opens another stream, which must resume these two from their cursors.
        async with client.subscribe("public.bare-3", last=1), client.subscribe("public.bare-4"):
            await publisher.publish(names[0], 2, "tick", 5)
            await publisher.publish(names[1], 2, "tick", 5)
            await read(one, range(5, 7))
            await read(two, range(5, 7))
            proxy.cut()
            await publisher.publish(names[0], 2, "tick", 7)
            await read(one, range(7, 9))
    without = [line for line in proxy.requests if "since=" not in line and "bare-" in line]
    assert len(without) == 2, "once per connection it notices, and then sends cursors in the URL"


async def check_too_many(server: Server, port: int, kind: str) -> None:
    """Follow more topics than fit into a URL: the newest ones are refused with the reason."""
    names = [f"public.{kind}-{number}-".ljust(200, "x") for number in range(90)]
    async with (
        asyncio.timeout(DEADLINE * 3),
        Client(url(port), transport="sse") as client,
        client.subscribe(names[0]) as first,
    ):
        others = [client.subscribe(name) for name in names[1:]]
        with pytest.raises(CommandRefused, match=r"too_many_topics: .*: follow fewer"):
            await anext(others[-1])
        results = await asyncio.gather(
            *(each._shared.wait_subscribed() for each in others), return_exceptions=True
        )
        kept = [each for each, error in zip(others, results, strict=True) if error is None]
        assert kept == others[: len(kept)], "the newest topics are refused"
        assert len(kept) >= 30
        script = (
            "from realtime import publish_many\n"
            f"publish_many([(name, 'tick', 7) for name in {names!r}])"
        )
        await asyncio.to_thread(server.run, script)
        for each in (first, *kept):
            await read(each, [7])


async def test_topics_that_do_not_fit_into_a_url_for_the_server_are_refused(server: Server) -> None:
    await check_too_many(server, server.port, "long")


async def test_topics_that_do_not_fit_into_a_url_for_a_proxy_are_refused(
    server: Server, tmp_path: Path
) -> None:
    with nginx(require(nginx_path(), GET_NGINX), tmp_path, [server.port]) as port:
        await check_too_many(server, port, "proxied")


# Without a server


@pytest.mark.parametrize("kind", ["call", "publish"])
def test_a_command_over_http_has_no_timeout_for_its_answer(kind: str) -> None:
    """As over a WebSocket; connecting and sending do have a timeout."""
    requests: list[httpx.Request] = []
    received: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json={"type": "ok", "id": 1})

    async def story() -> None:
        link = StreamLink(FakeClient(FakeServer())._address)
        link._http = httpx.AsyncClient(transport=httpx.MockTransport(answer), timeout=5)
        link._on_frame = received.append
        link.send({"type": kind, "id": 1, "topic": TOPIC})
        await asyncio.gather(*link._posts)
        await link.close()

    play(story())
    assert received == [{"type": "ok", "id": 1}]
    assert requests[0].url.path.endswith("/send")
    assert requests[0].extensions["timeout"] == {
        "connect": 10,
        "read": None,
        "write": 10,
        "pool": 10,
    }


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(texts, max_size=8), st.lists(st.integers(0, 300), max_size=8))
def test_a_stream_split_anywhere_yields_complete_frames(frames: list[str], cuts: list[int]) -> None:
    lines = [": padding", "retry: 1000", "id: e~x", ""]
    written = []
    for frame in frames:
        written += [*lines, "data: " + json.dumps({"type": frame}, ensure_ascii=False), ""]
    body = "".join(f"{line}\n" for line in written).encode()
    stream, received = EventStream(), []
    bounds = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(bounds):
        received += [json.loads(data)["type"] for data in stream.feed(body[start:end])]
    assert received == frames


def test_crlf_line_endings_are_accepted() -> None:
    assert list(EventStream().feed(b'data:{"type":"a"}\r\n\r\n')) == [b'{"type":"a"}']


def test_a_line_that_is_too_long_closes_the_link() -> None:
    stream = EventStream()
    with pytest.raises(LinkClosed, match="longer than"):
        for _ in range(40):
            list(stream.feed(b"x" * (MAX_BYTES // 32)))
