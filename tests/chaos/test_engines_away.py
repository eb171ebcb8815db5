"""The engine hangs or restarts under two nodes, with members on both and events on the way."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.chaos.conftest import Engine, on_redis
from tests.chaos.guests import APPLICATION, ROOM, Guest, House
from tests.support.http import http_client
from tests.support.redis import RedisServer
from tests.support.server import Publisher, Server
from tests.support.services import PostgresServer
from tests.support.waiting import await_until

PAUSE_SECONDS = 30.0  # ten times as long as a node may be silent


class Scene:
    """Two nodes and three guests, who have seen five events."""

    def __init__(self, servers: list[Server], guests: list[Guest], publisher: Publisher) -> None:
        self.servers = servers
        self.guests = guests
        self.publisher = publisher

    async def until(self, seq: int) -> None:
        await asyncio.gather(*(guest.until(seq) for guest in self.guests))

    async def see_each_other(self) -> None:
        await asyncio.gather(*(guest.sees("ann", "bob", "cid") for guest in self.guests))

    def check(self) -> None:
        for guest in self.guests:
            assert (guest.resets, guest.leaves) == (0, [])
            assert guest.seqs == list(range(1, guest.seqs[-1] + 1))


async def play(engine: Engine, folder: Path, stack: AsyncExitStack) -> Scene:
    servers = stack.enter_context(engine.servers(folder, 2, application=APPLICATION))
    house = House(servers, stack)
    names = {"ann": servers[0], "bob": servers[1], "cid": servers[0]}
    guests = [await house.guest(name, server) for name, server in names.items()]
    publisher = Publisher(servers[0])
    stack.callback(publisher.close)
    scene = Scene(servers, guests, publisher)
    await publisher.publish(ROOM, 5)
    await scene.until(5)
    await scene.see_each_other()
    return scene


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_a_redis_that_hangs_for_long_empties_no_list_and_costs_no_event(
    redis_server: RedisServer, tmp_path: Path, stack: AsyncExitStack
) -> None:
    scene = await play(on_redis(redis_server.url), tmp_path, stack)
    redis_server.pause()
    began = time.monotonic()
    try:
        async with http_client() as http:

            async def paused_long_enough() -> bool:
                for server in scene.servers:
                    answer = await http.get(f"{server.site}/elements/")
                    assert answer.status_code == 200, "a view that needs no Redis"
                return time.monotonic() - began > PAUSE_SECONDS

            await await_until(paused_long_enough, "the pause is over", 3 * PAUSE_SECONDS)
    finally:
        redis_server.resume()
    await scene.publisher.publish(ROOM, 5, "tick", 5)
    await scene.until(10)
    await scene.see_each_other()
    scene.check()


async def test_a_postgresql_that_restarts_empties_no_list_and_costs_no_event(
    postgres_server: PostgresServer, tmp_path: Path, stack: AsyncExitStack
) -> None:
    scene = await play(Engine("postgres", postgres_server.url), tmp_path, stack)
    for number in (1, 2):
        await asyncio.to_thread(postgres_server.stop)
        await asyncio.to_thread(postgres_server.start)
        await scene.publisher.publish(ROOM, 5, "tick", 5 * number)
        await scene.until(5 * number + 5)
    await scene.see_each_other()
    scene.check()
