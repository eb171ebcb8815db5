"""Two sites that use one Redis for their wake-ups, with the same topics and the same user keys."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.layers.test_under_the_hub import CORE, PUBSUB, layer_settings
from tests.support.redis import RedisServer
from tests.support.server import Client, Server, connect

TOPICS = "orders.42", "user.1"


@pytest.fixture(
    params=[(PUBSUB, 1), (CORE, 0)],
    ids=["pubsub on different database numbers", "core in one database"],
)
def sites(
    redis_server: RedisServer, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[list[Server]]:
    """Two sites with a database and a SECRET_KEY each; their layers have the same prefix."""
    backend, number = request.param
    with ExitStack() as stack:
        sites = []
        for name, database in (("production", 0), ("staging", number)):
            url = f"{redis_server.url.removesuffix('/0')}/{database}"
            settings = layer_settings(backend, url) | {"SECRET_KEY": f"the key of {name}"}
            (tmp_path / name).mkdir()
            sites.append(stack.enter_context(Server(tmp_path / name, settings=settings)))
        yield sites


def announce(site: Server, data: str) -> None:
    """Publish an event without a log to each topic, from another process of a site."""
    site.run(
        "from realtime import publish\n"
        f"for topic in {TOPICS}: publish(topic, 'hello', {data!r}, ephemeral=True)"
    )


async def received(client: Client, count: int) -> set[tuple[str, str, str]]:
    events = await client.events(count)
    return {(event["topic"], event["event"], event["data"]) for event in events}


async def test_no_event_of_one_site_arrives_at_another_on_the_same_redis(
    sites: list[Server],
) -> None:
    """A layer delivers in order: what comes after the other site's events comes without them."""
    first, second = sites
    cookies = [await asyncio.to_thread(site.sign_in) for site in sites]
    async with (
        connect(first, additional_headers=cookies[0]) as follower,
        connect(first, additional_headers=cookies[0]) as typist,
        connect(second, additional_headers=cookies[1]) as stranger,
    ):
        assert follower.welcome["user"] == stranger.welcome["user"] == "1"
        for client in (follower, stranger):
            for topic in TOPICS:
                await client.subscribe(topic)
        await asyncio.to_thread(announce, first, "ours")
        assert await received(follower, 2) == {(topic, "hello", "ours") for topic in TOPICS}
        await typist.ask(type="publish", topic=TOPICS[0], event="typing", data="ours")
        await typist.ask(type="publish", topic=TOPICS[0], event="comment", data="ours")
        assert await received(follower, 2) == {
            (TOPICS[0], "typing", "ours"),
            (TOPICS[0], "comment", "ours"),
        }
        await asyncio.to_thread(announce, second, "theirs")
        assert await received(stranger, 2) == {(topic, "hello", "theirs") for topic in TOPICS}


async def test_events_of_a_process_with_the_previous_secret_key_are_found_in_the_log(
    tmp_path: Path,
) -> None:
    """While a new key is deployed, the old and the new processes have different groups."""
    rotated = {"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": ["old"]}
    with Server(tmp_path, settings=rotated) as server:
        older = Server(tmp_path, settings={"SECRET_KEY": "old"})
        async with connect(server) as client:
            await client.subscribe("public.news")
            await asyncio.to_thread(older.publish, "public.news", 3)
            assert [event["data"] for event in await client.events(3)] == [0, 1, 2]
