"""The event stream against a real Daphne: it is opened again and again, and proxies are in the way."""

import asyncio
from collections.abc import Iterable, Iterator

import pytest

from realtime.client import Client, Cursor, Subscription
from tests.support.server import DEADLINE, Publisher, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("streams")) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(server: Server) -> Iterator[Publisher]:
    running = Publisher(server)
    yield running
    running.close()


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
