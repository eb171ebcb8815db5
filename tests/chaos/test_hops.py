"""A client that changes its transport every few events, while servers restart."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets

from tests.consumers.contract import TRANSPORTS
from tests.support.server import Server

EVENTS = 5_000
PUBLISH = f"""
import sys
from realtime import publish_many
for start in range(0, {EVENTS}, 50):
    publish_many([("public.hops", "tick", n) for n in range(start, start + 50)])
    if start >= 500:
        sys.stdin.readline()  # the log keeps a thousand events: wait for the client
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, application="tests.consumers.application:application") as running:
        yield running


async def test_a_client_that_keeps_changing_its_transport_receives_every_event_once(
    server: Server,
) -> None:
    """It cycles through WebSocket, event stream, long poll and poll, over two restarts."""
    seen: list[int] = []
    cursor = "@0"
    hop = 0
    restarts: list[asyncio.Task[None]] = []
    publisher = server.popen(PUBLISH, stdin=subprocess.PIPE)
    assert publisher.stdin is not None
    try:
        while len(seen) < EVENTS:
            if len(restarts) < 2 and len(seen) > 1_500 * (len(restarts) + 1):
                restarts.append(asyncio.create_task(asyncio.to_thread(server.restart)))
            transport = TRANSPORTS[hop % 4]
            hop += 1
            try:
                async with transport.follow(server.site, "public.hops", cursor) as follower:
                    assert not follower.was_reset
                    for _ in range(min(7 + hop % 13, EVENTS - len(seen))):
                        event = await follower.event()
                        seen.append(event["seq"])
                        assert event["data"] == event["seq"] - 1
                        assert follower.cursor
                        cursor = follower.cursor
                        if len(seen) % 50 == 0:
                            publisher.stdin.write("\n")
                            publisher.stdin.flush()
            except TimeoutError:
                raise
            except (OSError, EOFError, httpx.TransportError, websockets.WebSocketException):
                assert restarts, "only a restart breaks a connection"
                await restarts[-1]
    finally:
        publisher.kill()
        publisher.communicate()
        await asyncio.gather(*restarts)
    assert len(restarts) == 2
    assert seen == list(range(1, EVENTS + 1))
