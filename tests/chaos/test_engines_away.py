"""Redis hangs or PostgreSQL restarts under two nodes that both have members."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.chaos.clients import APPLICATION, ROOM, RoomClient, Site
from tests.chaos.conftest import Engine, on_redis
from tests.support.http import http_client
from tests.support.redis import RedisServer
from tests.support.server import Publisher, Server
from tests.support.services import PostgresServer
from tests.support.waiting import await_until

PAUSE_SECONDS = 30.0  # ten times as long as until a silent node expires


class Scene:
    """Two nodes and three clients, which have received five events."""

    def __init__(
        self, servers: list[Server], clients: list[RoomClient], publisher: Publisher
    ) -> None:
        self.servers = servers
        self.clients = clients
        self.publisher = publisher

    async def wait_for_event(self, seq: int) -> None:
        await asyncio.gather(*(client.wait_for_event(seq) for client in self.clients))

    async def wait_for_members(self) -> None:
        await asyncio.gather(
            *(client.wait_for_members("ann", "bob", "cid") for client in self.clients)
        )

    def check(self) -> None:
        for client in self.clients:
            assert (client.resets, client.leaves) == (0, [])
            assert client.seqs == list(range(1, client.seqs[-1] + 1))


async def make_scene(engine: Engine, folder: Path, stack: AsyncExitStack) -> Scene:
    servers = stack.enter_context(engine.servers(folder, 2, application=APPLICATION))
    site = Site(servers, stack)
    names = {"ann": servers[0], "bob": servers[1], "cid": servers[0]}
    clients = [await site.connect(name, server) for name, server in names.items()]
    publisher = Publisher(servers[0])
    stack.callback(publisher.close)
    scene = Scene(servers, clients, publisher)
    await publisher.publish(ROOM, 5)
    await scene.wait_for_event(5)
    await scene.wait_for_members()
    return scene


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_a_redis_that_hangs_for_long_removes_no_member_and_loses_no_event(
    redis_server: RedisServer, tmp_path: Path, stack: AsyncExitStack
) -> None:
    scene = await make_scene(on_redis(redis_server.url), tmp_path, stack)
    redis_server.pause()
    began = time.monotonic()
    try:
        async with http_client() as http:

            async def paused_long_enough() -> bool:
                for server in scene.servers:
                    answer = await http.get(f"{server.site}/elements/")
                    assert answer.status_code == 200, "this view needs no Redis"
                return time.monotonic() - began > PAUSE_SECONDS

            await await_until(paused_long_enough, "the pause is over", 3 * PAUSE_SECONDS)
    finally:
        redis_server.resume()
    await scene.publisher.publish(ROOM, 5, "tick", 5)
    await scene.wait_for_event(10)
    await scene.wait_for_members()
    scene.check()


async def test_a_postgresql_that_restarts_removes_no_member_and_loses_no_event(
    postgres_server: PostgresServer, tmp_path: Path, stack: AsyncExitStack
) -> None:
    scene = await make_scene(Engine("postgres", postgres_server.url), tmp_path, stack)
    for number in (1, 2):
        await asyncio.to_thread(postgres_server.stop)
        await asyncio.to_thread(postgres_server.start)
        await scene.publisher.publish(ROOM, 5, "tick", 5 * number)
        await scene.wait_for_event(5 * number + 5)
    await scene.wait_for_members()
    scene.check()
