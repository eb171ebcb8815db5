"""The event stream against a real Daphne: opened again and again, with proxies in the way."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest

from realtime.client import Client, CommandRefused, Cursor, Subscription
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
    """Take events, which have to be these; a hole is told at once."""
    async with asyncio.timeout(DEADLINE * 3):
        for number in numbers:
            assert (await anext(events)).data == number


async def test_a_slow_reader_of_a_stream_gets_every_event(
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


async def test_a_topic_that_is_left_and_followed_again_at_once_has_no_hole(
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


async def test_a_proxy_that_takes_the_header_with_the_places_off_makes_no_hole(
    server: Server, publisher: Publisher, proxy: Proxy
) -> None:
    proxy.strips = b"last-event-id"
    names = ["public.bare-1", "public.bare-2"]
    for name in names:
        await publisher.publish(name, 5)
    async with Client(url(proxy.port), transport="sse") as client:
        places = []
        for number, name in enumerate(names):
            async with client.subscribe(name, since="@1") as events:
                await read(events, range(2 + number))
                places.append(events.cursor)
        one, two = (
            client.subscribe(name, since=place) for name, place in zip(names, places, strict=True)
        )
        await read(one, range(2, 5))
        await read(two, range(3, 5))
        # Another topic makes another stream, which has to go on where those are.
        async with client.subscribe("public.bare-3", last=1), client.subscribe("public.bare-4"):
            await publisher.publish(names[0], 2, "tick", 5)
            await publisher.publish(names[1], 2, "tick", 5)
            await read(one, range(5, 7))
            await read(two, range(5, 7))
            proxy.cut()
            await publisher.publish(names[0], 2, "tick", 7)
            await read(one, range(7, 9))
    lost = [line for line in proxy.requests if "since=" not in line and "bare-" in line]
    assert len(lost) == 2, "once a connection it finds out, and asks with the places in the URL"


async def check_too_many(server: Server, port: int, kind: str) -> None:
    """Follow more than fits into a URL: who came first goes on, and the others hear why."""
    names = [f"public.{kind}-{number}-".ljust(200, "x") for number in range(90)]
    async with (
        asyncio.timeout(DEADLINE * 3),
        Client(url(port), transport="sse") as client,
        client.subscribe(names[0]) as first,
    ):
        others = [client.subscribe(name) for name in names[1:]]
        with pytest.raises(CommandRefused, match=r"too_many_topics: .*: follow fewer"):
            await anext(others[-1])
        begun = await asyncio.gather(
            *(each._following.begun() for each in others), return_exceptions=True
        )
        kept = [each for each, error in zip(others, begun, strict=True) if error is None]
        assert kept == others[: len(kept)], "those that were asked for last are left out"
        assert len(kept) >= 30
        script = (
            "from realtime import publish_many\n"
            f"publish_many([(name, 'tick', 7) for name in {names!r}])"
        )
        await asyncio.to_thread(server.run, script)
        for each in (first, *kept):
            await read(each, [7])


async def test_topics_that_do_not_fit_into_the_servers_url_are_refused(server: Server) -> None:
    await check_too_many(server, server.port, "long")


async def test_topics_that_do_not_fit_into_a_proxys_url_are_refused(
    server: Server, tmp_path: Path
) -> None:
    with nginx(require(nginx_path(), GET_NGINX), tmp_path, [server.port]) as port:
        await check_too_many(server, port, "proxied")
