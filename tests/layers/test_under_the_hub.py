"""The hub on each channel layer: events arrive live and in order."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.following import Follower, follow
from tests.support.http import http_client
from tests.support.redis import RedisServer
from tests.support.server import Publisher, Server
from tests.support.waiting import await_until

TOPIC = "public.news"
UNCHECKED = "tests.layers.unchecked:application"

PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
CORE = "channels_redis.core.RedisChannelLayer"
DATABASE = "realtime.layers.database.DatabaseChannelLayer"
MEMORY = "channels.layers.InMemoryChannelLayer"


def layer_settings(backend: str, url: str = "", prefix: str = "mysite") -> dict[str, Any]:
    """Return settings as docs/redis.md shows them."""
    config: dict[str, Any] = {}
    if url:
        config["prefix"] = prefix
        config["hosts"] = [url if backend == PUBSUB else {"address": url, "socket_timeout": None}]
    return {"CHANNEL_LAYERS": {"default": {"BACKEND": backend, "CONFIG": config}}}


@pytest.fixture(params=[PUBSUB, CORE, DATABASE], ids=["pubsub", "core", "database"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings of each layer that several processes can share."""
    url = "" if request.param == DATABASE else request.getfixturevalue("redis_server").url
    return layer_settings(request.param, url)


@pytest.fixture
def servers(tmp_path: Path, settings: dict[str, Any]) -> Iterator[list[Server]]:
    """Two servers that get events only through the layer."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(Server(tmp_path, application=UNCHECKED, settings=settings))
            for _ in range(2)
        ]


async def test_events_of_another_process_arrive_through_the_layer(
    servers: list[Server],
) -> None:
    async with AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(follow(server, TOPIC)) for server in servers * 2
        ]
        publisher = Publisher(servers[0])
        stack.callback(publisher.close)
        await publisher.publish(TOPIC, 200)
        await wait_for_all(followers, 200)
        await publisher.publish(TOPIC, 50)
        await wait_for_all(followers, 250)
        for follower in followers:
            assert follower.resets == []
    for server in servers:
        assert "Traceback" not in server.log.read_text()
        assert "layer fails" not in server.log.read_text()


async def wait_for_all(followers: list[Follower], seq: int) -> None:
    await asyncio.gather(*(follower.until(seq) for follower in followers))


async def test_the_in_memory_layer_carries_the_events_of_its_own_process(tmp_path: Path) -> None:
    settings = layer_settings(MEMORY)
    with Server(tmp_path, application=UNCHECKED, settings=settings) as server:
        async with follow(server, TOPIC) as follower, http_client() as http:
            for number in range(1, 21):
                kind = ("sync", "async", "atomic")[number % 3]
                await http.get(f"{server.site}/publish/{kind}/")
                await follower.until(number)
            assert follower.resets == []


async def test_events_of_another_process_are_found_with_the_in_memory_layer(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, settings=layer_settings(MEMORY)) as server:
        async with follow(server, TOPIC) as follower:
            await asyncio.to_thread(server.publish, TOPIC, 20)
            await follower.until(20)
            assert follower.resets == []


@pytest.mark.parametrize("backend", [PUBSUB, CORE], ids=["pubsub", "core"])
async def test_broken_connections_of_the_layer_lose_no_event(
    redis_server: RedisServer, tmp_path: Path, backend: str
) -> None:
    with Server(tmp_path, settings=layer_settings(backend, redis_server.url)) as server:
        async with follow(server, TOPIC) as follower, AsyncExitStack() as stack:
            publisher = Publisher(server)
            stack.callback(publisher.close)
            await publisher.publish(TOPIC, 5)
            await follower.until(5)
            for number in range(1, 4):
                kind = "pubsub" if backend == PUBSUB else "normal"
                await await_until(
                    lambda kind=kind: asyncio.to_thread(redis_server.cut, kind),
                    "a connection was cut",
                )
                await publisher.publish(TOPIC, 20)
                await follower.until(5 + 20 * number)
            assert follower.resets == []


async def test_a_layer_works_again_after_its_redis_was_away(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = layer_settings(PUBSUB, redis_server.url)
    with Server(tmp_path, settings=settings) as server:
        async with follow(server, TOPIC) as follower, AsyncExitStack() as stack:
            publisher = Publisher(server)
            stack.callback(publisher.close)
            await publisher.publish(TOPIC, 5)
            await follower.until(5)
            redis_server.kill9()
            await publisher.publish(TOPIC, 20)
            await follower.until(25)
            redis_server.start()
            await await_until(
                lambda: redis_server.client.pubsub_channels(), "the hub listens again", 30
            )
            await publisher.publish(TOPIC, 20)
            await follower.until(45)
            assert follower.resets == []
