"""A client that follows one topic all the while and checks each frame against the promise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from realtime.protocol.events import Cursor
from tests.support.server import Client, Server, connect
from tests.support.waiting import await_until


class Follower:
    """Follows a topic: every event continues the one before, or a reset says where to go on.

    Attributes:
        position: the cursor of the last event or reset.
        resets: how often it was reset.
        events: the frames since the subscription.
    """

    def __init__(self, client: Client, topic: str, head: str) -> None:
        self.topic = topic
        self.position = Cursor.parse(head)
        self.resets: list[str] = []
        self.events: list[dict[str, Any]] = []
        self._client = client
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            frame = await self._client.frame()
            if frame["type"] == "heartbeat":
                continue
            assert frame["topic"] == self.topic, frame
            cursor = Cursor.parse(frame["cursor"])
            if frame["type"] == "reset":
                self.resets.append(frame["reason"])
            else:
                assert frame["type"] == "event", frame
                assert cursor.epoch == self.position.epoch, "a new life of the log without a reset"
                assert cursor.seq == self.position.seq + 1, f"{cursor} after {self.position}"
                self.events.append(frame)
            self.position = cursor

    async def until(self, seq: int, timeout: float = 30.0) -> None:
        """Wait until the event with this number has come."""
        await await_until(
            lambda: self._alive() and self.position.seq >= seq,
            f"{self.topic} comes to {seq}; it is at {self.position}",
            timeout,
        )

    async def until_reset(self, count: int = 1, timeout: float = 30.0) -> None:
        """Wait until it was reset so often."""
        await await_until(
            lambda: self._alive() and len(self.resets) >= count, "the client is reset", timeout
        )

    def _alive(self) -> bool:
        if self._task.done():
            self._task.result()
            raise AssertionError("the connection was closed")
        return True

    async def stop(self) -> None:
        """Stop following, and raise what was wrong."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self._task.cancelled():
            self._task.result()


@asynccontextmanager
async def follow(server: Server, topic: str) -> AsyncIterator[Follower]:
    """Follow a topic from its head over a WebSocket."""
    async with connect(server) as client:
        answer = await client.subscribe(topic)
        follower = Follower(client, topic, answer["cursor"])
        try:
            yield follower
        finally:
            await follower.stop()
