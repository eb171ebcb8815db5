"""Clients of several nodes that check each event and each member."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from tests.support.server import DEADLINE, Client, Server, connect
from tests.support.waiting import await_until

APPLICATION = "tests.chaos.application:application"
ROOM = "room.hall"


class RoomClient:
    """Follows a topic with presence, checks each frame, and reconnects when it is disconnected.

    Attributes:
        server: where it connects next.
        cursor: where it resumes.
        seqs: of the events since the last reset.
        members: names by member id.
        joins, leaves: names of the members that joined and left.
        resets: how often it was reset.
        subscribed: set once it has subscribed for the first time.
    """

    def __init__(self, server: Server, headers: Mapping[str, str], topic: str = ROOM) -> None:
        self.server = server
        self.headers = headers
        self.topic = topic
        self.cursor: str | None = None
        self.seqs: list[int] = []
        self.members: dict[str, str] = {}
        self.joins: list[str] = []
        self.leaves: list[str] = []
        self.resets = 0
        self.subscribed = asyncio.Event()
        self._version = -1
        self._task = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        while True:
            try:
                async with connect(self.server, additional_headers=self.headers) as client:
                    await self._follow(client)
            except (OSError, EOFError, TimeoutError):
                pass
            except Exception as error:
                if "websockets" not in type(error).__module__:
                    raise
            await asyncio.sleep(0)

    async def _follow(self, client: Client) -> None:
        await client.send(type="subscribe", id=1, topic=self.topic, since=self.cursor)
        while True:
            frame = await client.frame()
            if frame.get("topic") == self.topic:
                self._take(frame)

    def _take(self, frame: dict[str, Any]) -> None:
        kind = frame["type"]
        if kind == "subscribed":
            self.resets += frame.get("recovered") is False
            self.cursor = frame["cursor"]
            self.subscribed.set()
        elif kind == "reset":
            self.resets += 1
            self.seqs, self.cursor = [], frame["cursor"]
        elif kind == "event":
            assert not self.seqs or frame["seq"] == self.seqs[-1] + 1, (self.seqs[-1:], frame)
            self.seqs.append(frame["seq"])
            self.cursor = frame["cursor"]
        elif kind == "members":
            self.members = {one["id"]: one["info"]["name"] for one in frame["members"]}
            self._version = frame["version"]
        elif kind in ("join", "leave"):
            assert frame["version"] == self._version + 1, (self._version, frame)
            self._version += 1
            id_, name = frame["member"]["id"], frame["member"]["info"]["name"]
            if kind == "join":
                self.members[id_] = name
                self.joins.append(name)
            else:
                del self.members[id_]
                self.leaves.append(name)
        else:
            raise AssertionError(frame)

    @property
    def names(self) -> list[str]:
        return sorted(self.members.values())

    async def wait_for_members(self, *names: str) -> None:
        """Wait until exactly these are members."""
        await await_until(
            lambda: self._alive() and self.names == sorted(names),
            f"{names} are the members",
            2 * DEADLINE,
        )

    async def wait_for_event(self, seq: int) -> None:
        """Wait until the event with this number is the newest one."""
        await await_until(
            lambda: self._alive() and self.seqs[-1:] == [seq],
            f"event {seq} has arrived",
            2 * DEADLINE,
        )

    def _alive(self) -> bool:
        if self._task.done():
            self._task.result()
        return True

    async def leave(self) -> None:
        """Disconnect, and raise the first error that was found."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self._task.cancelled():
            self._task.result()


class Site:
    """Nodes on one engine, and their clients."""

    def __init__(self, servers: list[Server], stack: AsyncExitStack) -> None:
        self.servers = servers
        self._stack = stack
        self._headers: dict[str, Mapping[str, str]] = {}

    async def connect(self, name: str, server: Server) -> RoomClient:
        """Connect a client, signed in under a name, and wait until it has subscribed."""
        if name not in self._headers:
            self._headers[name] = await asyncio.to_thread(self.servers[0].sign_in, name)
        client = RoomClient(server, self._headers[name])
        self._stack.push_async_callback(client.leave)
        async with asyncio.timeout(DEADLINE):
            await client.subscribed.wait()
        return client
