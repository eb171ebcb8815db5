"""The documented settings of each layer, on a site that is idle for minutes."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

from tests.layers.test_under_the_hub import (
    CORE,
    DATABASE,
    PUBSUB,
    TOPIC,
    UNCHECKED,
    layer_settings,
)
from tests.support.following import follow
from tests.support.redis import RedisServer
from tests.support.server import Publisher, Server
from tests.support.waiting import await_until

MINUTES = 3


async def test_every_layer_delivers_after_minutes_without_messages(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        sites = []
        for number, layer in enumerate((PUBSUB, CORE, DATABASE)):
            url = "" if layer == DATABASE else f"{redis_server.url[:-1]}{number}"
            folder = tmp_path / str(number)
            folder.mkdir()
            settings = layer_settings(layer, url)
            server = stack.enter_context(Server(folder, application=UNCHECKED, settings=settings))
            follower = await stack.enter_async_context(follow(server, TOPIC))
            publisher = Publisher(server)
            stack.callback(publisher.close)
            await publisher.publish(TOPIC, 5)
            await follower.until(5)
            sites.append((server, follower, publisher))
        end = time.monotonic() + MINUTES * 60
        await await_until(
            lambda: time.monotonic() >= end, "the idle time is over", MINUTES * 60 + 30
        )
        for server, follower, publisher in sites:
            await publisher.publish(TOPIC, 20)
            await follower.until(25)
            assert follower.resets == []
            log = await asyncio.to_thread(server.log.read_text)
            assert "Traceback" not in log
            assert "layer fails" not in log
