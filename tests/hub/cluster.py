"""Several hubs over one store and one layer, on virtual time, and their visitors."""

import asyncio
import json
import random
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from realtime.hub.connection import Connection, Subscription
from realtime.hub.member_writer import STREAM_HOLD_SECONDS
from realtime.nodes import BEAT_SECONDS, EXPIRY_SECONDS
from realtime.protocol.names import presence_log
from realtime.stores.base import Appended, Node
from realtime.topics import resolve
from realtime.writers.asgi import AsgiWriter
from tests.hub.support import QuietHub
from tests.support.faults import FaultyLayer, SlowStore
from tests.support.virtual_time import VirtualTimeLoop

T = TypeVar("T")

ROOM = "room.lobby"
LOG = presence_log(ROOM)
EXPIRED_SECONDS = EXPIRY_SECONDS + 4 * BEAT_SECONDS  # after which a dead node is gone


@dataclass
class User:
    pk: int
    username: str = "somebody"
    is_authenticated = True


class SharedStore(SlowStore):
    """One node's store over the shared data, on the loop's clock; it can fail alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, first: "SharedStore | None") -> None:
        super().__init__()
        self.loop = loop
        if first is not None:
            self._lock, self._id = first._lock, first._id
            self._logs, self._nodes, self._members = first._logs, first._nodes, first._members

    def clock(self) -> float:
        return 1_000_000 + self.loop.time()

    async def abeat(self, node: Node, *, is_known: bool) -> bool:
        return await self._slowly(self.beat, node, is_known=is_known)

    async def achange_members(
        self, log: str, node: str, arrived: Mapping[str, str], left: Collection[str]
    ) -> Appended:
        return await self._slowly(self.change_members, log, node, arrived, left)


class LossyLayer(FaultyLayer):
    """Loses a share of all group messages."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = 0.0
        self.random = random.Random(7)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        for channel in self.groups[group]:
            if self.random.random() >= self.loss:
                self.queues[channel].put_nowait(message)


class Visitor:
    """A connection that keeps the member list as a client does, and checks each frame."""

    def __init__(self, hub: QuietHub, user: User | None, limit: int = 1_000_000) -> None:
        self.user = user
        self.frames: list[dict[str, Any]] = []
        self.members: dict[str, Any] = {}
        self.count: int | None = None
        self.expects_more = False
        self.version: int | None = None
        self.broken: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.connection = Connection(hub, user, AsgiWriter(self.send), limit, lambda code: None)

    async def send(self, message: Any) -> None:
        await self.gate.wait()
        frame = json.loads(message["text"])
        if frame["type"] == "heartbeat":
            return
        self.frames.append(frame)
        if frame["type"] == "members":
            known = self.members if self.expects_more else {}
            self.members = known | {member["id"]: member for member in frame["members"]}
            self.expects_more = frame.get("more", False)
            self.count = frame.get("count")
            if self.count is not None and self.members:
                self.broken.append(f"{frame} has both a number and a list")
        elif self.count is not None:
            self.broken.append(f"{frame} follows a number of members")
        elif self.version is None or frame["version"] != self.version + 1:
            self.broken.append(f"{frame} does not follow version {self.version}")
        elif frame["type"] == "join":
            self.members[frame["member"]["id"]] = frame["member"]
        else:
            del self.members[frame["member"]["id"]]
        self.version = frame["version"]

    async def enter(self, room: str = ROOM, hold: float = STREAM_HOLD_SECONDS) -> None:
        topic, connection = resolve(room), self.connection
        subscription = Subscription(connection, await connection.hub.follow(topic))
        live = await connection.hub.follow_presence(topic)
        presence = subscription.add_presence(topic, live, hold, connection.id)
        await presence.prepare()
        await subscription.start(None, None, True, lambda *_: None)
        presence.start()

    def received(self, kind: str) -> list[str]:
        return [frame["member"]["id"] for frame in self.frames if frame["type"] == kind]

    @property
    def counts(self) -> list[int]:
        """The numbers of members that arrived; 0 stands for a list."""
        return [frame.get("count", 0) for frame in self.frames if frame["type"] == "members"]

    @property
    def ids(self) -> set[str]:
        return set(self.members)


class Cluster:
    def __init__(self) -> None:
        self.loop = VirtualTimeLoop()
        self.layer = LossyLayer()
        self.stores: list[SharedStore] = []
        self.hubs: list[QuietHub] = []
        self.visitors: list[Visitor] = []

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)

    def open_node(self) -> QuietHub:
        async def make() -> QuietHub:
            self.stores.append(SharedStore(self.loop, self.stores[0] if self.stores else None))
            hub = QuietHub(self.stores[-1], self.layer)
            hub.start()
            return hub

        self.hubs.append(self.run(make()))
        return self.hubs[-1]

    def kill(self, hub: QuietHub) -> None:
        """End a node as SIGKILL does: without a message to the others."""

        async def end() -> None:
            for task in asyncio.all_tasks():
                if task in (hub._receiving, *hub.jobs.tasks):
                    task.cancel()
            hub.member_writer.close()
            for queue in self.layer.queues:
                if queue == hub._channel:
                    for members in self.layer.groups.values():
                        members.discard(queue)

        self.run(end())
        self.hubs.remove(hub)
        self.visitors = [v for v in self.visitors if v.connection.hub is not hub]

    def enter(self, hub: QuietHub, pk: int | None, **how: Any) -> Visitor:
        async def enter() -> Visitor:
            visitor = Visitor(hub, None if pk is None else User(pk), how.pop("limit", 1_000_000))
            self.visitors.append(visitor)
            await visitor.enter(**how)
            return visitor

        visitor = self.run(enter())
        self.advance(0.2)
        return visitor

    def leave(self, visitor: Visitor) -> None:
        async def end() -> None:
            visitor.connection.end()

        self.run(end())
        self.visitors.remove(visitor)

    @property
    def listed(self) -> set[str]:
        return set(self.stores[0].members(LOG).members)

    def check(self) -> None:
        broken = [fault for visitor in self.visitors for fault in visitor.broken]
        assert not broken, broken[0]

    def close(self) -> None:
        async def end() -> None:
            for hub in self.hubs:
                await hub.close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        self.run(end())
        self.loop.close()


def user(*pks: int) -> set[str]:
    return {f"user.{pk}" for pk in pks}
