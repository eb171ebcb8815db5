"""A client that follows one topic and checks each frame against the promise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from realtime.protocol.events import Cursor
from tests.support.server import Client, Server, connect
from tests.support.waiting import await_until


class Follower:
    """Follows a topic and checks that each event follows the previous one or a reset.

    Attributes:
        topic: the topic's name.
        position: the cursor of the last event or reset.
        resets: the reasons of the resets.
        events: the frames of the events since the subscription.
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
                assert cursor.epoch == self.position.epoch, "a new epoch without a reset"
                assert cursor.seq == self.position.seq + 1, f"{cursor} after {self.position}"
                self.events.append(frame)
            self.position = cursor

    async def until(self, seq: int, timeout: float = 30.0) -> None:
        """Wait until the event with this number has arrived."""
        await await_until(
            lambda: self._alive() and self.position.seq >= seq,
            f"{self.topic} has reached {seq}; it is at {self.position}",
            timeout,
        )

    async def until_reset(self, count: int = 1, timeout: float = 30.0) -> None:
        """Wait until the client was reset `count` times."""
        await await_until(
            lambda: self._alive() and len(self.resets) >= count, "the client was reset", timeout
        )

    def _alive(self) -> bool:
        if self._task.done():
            self._task.result()
            raise AssertionError("the connection was closed")
        return True

    async def stop(self) -> None:
        """Stop following, and raise the first error that was found."""
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
