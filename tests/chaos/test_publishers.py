"""A publisher is killed between the commit, the append and the wake-up, on every engine."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.chaos.conftest import Engine
from tests.support.following import follow
from tests.support.server import Publisher
from tests.test_outbox import BETWEEN_APPEND_AND_WAKE_UP, BETWEEN_COMMIT_AND_APPEND, KILLED

TOPIC = "public.news"  # the topic of KILLED


@pytest.mark.parametrize(
    "where", [BETWEEN_COMMIT_AND_APPEND, BETWEEN_APPEND_AND_WAKE_UP], ids=["append", "wake-up"]
)
async def test_events_of_a_killed_publisher_arrive_once_and_in_order(
    engine: Engine, tmp_path: Path, where: str
) -> None:
    async with AsyncExitStack() as stack:
        servers = stack.enter_context(engine.servers(tmp_path, 2))
        followers = [await stack.enter_async_context(follow(each, TOPIC)) for each in servers]
        publisher = Publisher(servers[0])
        stack.callback(publisher.close)
        await publisher.publish(TOPIC, 2)
        script = KILLED.format(where=where)
        await asyncio.to_thread(servers[1].run, script, -signal.SIGKILL)
        await publisher.publish(TOPIC, 3, "after")
        for follower in followers:
            await follower.until(25)
            assert follower.resets == []
            names = [event["event"] for event in follower.events]
            assert [name for name in names if name.startswith("e")] == [f"e{n}" for n in range(20)]
            assert sorted(names) == sorted(
                ["tick"] * 2 + [f"e{n}" for n in range(20)] + ["after"] * 3
            )
