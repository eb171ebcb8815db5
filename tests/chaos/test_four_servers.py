"""Four server processes, 200 clients, 20 topics, and 10,000 events from four publishers."""

import asyncio
import json
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

from tests.chaos.conftest import Engine
from tests.support.following import Follower, follow
from tests.support.server import DEADLINE

SERVERS, CLIENTS, TOPICS, PUBLISHERS, EVENTS = 4, 200, 20, 4, 10_000
PER_PUBLISHER = EVENTS // TOPICS // PUBLISHERS  # events in each topic
# Every publisher publishes to every topic, some events one by one and some together.
PUBLISH = f"""
import sys
from realtime import publish, publish_many
me = int(sys.argv[1])
for start in range(0, {PER_PUBLISHER}, 5):
    for topic in range({TOPICS}):
        name = f"long.t{{topic}}"
        publish(name, "tick", [me, start])
        publish_many([(name, "tick", [me, n]) for n in range(start + 1, start + 5)])
"""


def topic_of(client: int) -> str:
    return f"long.t{client // SERVERS % TOPICS}"


async def test_every_client_receives_every_event_once_and_in_order(
    engine: Engine, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        servers = stack.enter_context(engine.servers(tmp_path, SERVERS))
        followers = [
            await stack.enter_async_context(follow(servers[n % SERVERS], topic_of(n)))
            for n in range(CLIENTS)
        ]
        publishers = [
            servers[0].popen(f"import sys\nsys.argv = ['', '{n}']\n{PUBLISH}")
            for n in range(PUBLISHERS)
        ]
        async with asyncio.timeout(8 * DEADLINE):
            await asyncio.gather(*(_end(publisher) for publisher in publishers))
            expected = EVENTS // TOPICS
            await asyncio.gather(*(one.until(expected, 2 * DEADLINE) for one in followers))
        _check(followers, expected)


async def _end(publisher: subprocess.Popen[str]) -> None:
    _, errors = await asyncio.to_thread(publisher.communicate)
    assert publisher.returncode == 0, errors


def _check(followers: list[Follower], expected: int) -> None:
    """Compare what the clients received; each has checked that no event is missing."""
    views: dict[str, list[str]] = {}
    for follower in followers:
        assert follower.resets == []
        seen = [json.dumps(event["data"]) for event in follower.events]
        assert len(seen) == len(set(seen)) == expected
        assert seen == views.setdefault(follower.topic, seen), (
            "all clients of a topic see the same order"
        )
        for publisher in range(PUBLISHERS):
            own = [n for p, n in map(json.loads, seen) if p == publisher]
            assert own == list(range(PER_PUBLISHER)), "the events of one publisher keep their order"
    assert len(views) == TOPICS
