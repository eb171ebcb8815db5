"""A hub on virtual time with its store, layer and clients, for the tests of this folder."""

import asyncio
import json
import math
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

from realtime.broadcast import Wakeup, group_name
from realtime.hub.connection import Connection, Subscription
from realtime.hub.hub import Hub
from realtime.hub.topic import LiveTopic
from realtime.protocol.events import Cursor, Draft, Event
from realtime.topics import resolve
from realtime.writers.asgi import AsgiWriter
from tests.support.faults import FaultyLayer, SlowStore, View
from tests.support.virtual_time import VirtualTimeLoop

T = TypeVar("T")

TOPIC = "public.property"
BUFFER_BYTES = 1024 * 1024


class QuietHub(Hub):
    """A hub without the jobs that need a database."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.jobs.relay.due = self.jobs.trim.due = math.inf

    async def announce(self, wakeup: Wakeup) -> None:
        await self.layer.group_send(group_name(wakeup.topic), wakeup.to_message())


class Client:
    """A connection whose socket can be stopped, and what its client saw of each topic."""

    def __init__(self, scene: "Scene", limit: int = BUFFER_BYTES) -> None:
        self.scene = scene
        self.views: dict[str, View] = {}
        self.frames: list[dict[str, Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed: list[int] = []
        self.most_unsent = 0
        self.connection = Connection(scene.hub, None, AsgiWriter(self.send), limit, self.close)

    @property
    def view(self) -> View:
        return self.views[TOPIC]

    async def send(self, message: Any) -> None:
        self.most_unsent = max(self.most_unsent, self.connection.writer.unsent)
        await self.gate.wait()
        frame = json.loads(message["text"])
        self.frames.append(frame)
        if "topic" not in frame:
            return
        try:
            self.views[frame["topic"]].take(message["text"])
        except AssertionError as broken:  # an exception would only end the writer
            self.scene.broken.append(broken)

    def close(self, code: Any) -> None:
        self.closed.append(int(code))
        self.connection.end()

    def seqs(self, topic: str = TOPIC) -> list[int]:
        """Return the numbers of the events that arrived."""
        return [f["seq"] for f in self.frames if f.get("topic") == topic and "seq" in f]

    def resets(self) -> list[str]:
        """Return the reasons of the resets that arrived."""
        return [f["reason"] for f in self.frames if f["type"] == "reset"]

    async def subscribe(
        self,
        since: Cursor | float | None = None,
        last: int | None = None,
        *,
        topic: str = TOPIC,
        history: bool = True,
    ) -> None:
        view = self.views[topic] = View(self.scene.truth)
        live = await self.connection.hub.follow(resolve(topic))
        subscription = Subscription(self.connection, live)
        try:
            await subscription.start(since, last, history, view.subscribed)
        except BaseException:
            subscription.end()
            raise


class Scene:
    """A hub, its store and layer, and clients; ``close()`` checks that nothing broke or is left."""

    def __init__(self, *, channel_delay: float = 0.0) -> None:
        self.loop = VirtualTimeLoop()
        self.layer = FaultyLayer()
        self.layer.channel_delay = channel_delay
        self.appended: dict[tuple[int, int], str] = {}
        self.broken: list[AssertionError] = []
        self.clients: list[Client] = []
        self.count = 0
        self.run(self._make())

    async def _make(self) -> None:
        self.store = SlowStore()
        self.hub = QuietHub(self.store, self.layer)
        self.hub.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)

    def truth(self, cursor: Cursor) -> str | None:
        return self.appended.get((cursor.seq, cursor.tag))  # a new epoch keeps both number and tag

    @property
    def head(self) -> Cursor:
        return self.store.heads([TOPIC])[TOPIC]

    @property
    def live(self) -> LiveTopic:
        return self.hub.topics[TOPIC]

    # Publishing

    def append(self, count: int = 1, *, topic: str = TOPIC, size: int = 0) -> Wakeup:
        """Append events; return their wake-up."""
        drafts = []
        for _ in range(count):
            self.count += 1
            drafts.append(Draft("tick", json.dumps(f"event {self.count}".ljust(size))))
        appended = self.store.append(topic, drafts)
        for event in appended.events:
            assert event.cursor is not None
            self.appended[event.cursor.seq, event.cursor.tag] = event.data
        return Wakeup.of(topic, appended)

    async def announce(self, wakeup: Wakeup, *fates: Collection[float]) -> None:
        """Broadcast a wake-up; a fate has the delay of each copy that arrives."""
        self.layer.fates.extend([tuple(fate) for fate in fates])
        await self.layer.group_send(group_name(wakeup.topic), wakeup.to_message())

    def publish(self, count: int = 1, *fates: Collection[float], **where: Any) -> None:
        """Append events one by one, and broadcast each."""

        async def publish() -> None:
            for index in range(count):
                await self.announce(self.append(**where), *fates[index : index + 1])

        self.run(publish())
        self.advance(0.001)

    def ephemeral(self, topic: str = TOPIC) -> None:
        self.run(self.announce(Wakeup(topic, None, (Event(topic, "typing", "1"),))))
        self.advance(0.001)

    # Clients

    def connect(self, limit: int = BUFFER_BYTES) -> Client:
        async def make() -> Client:
            return Client(self, limit)

        client = self.run(make())
        self.clients.append(client)
        return client

    def join(self, *args: Any, limit: int = BUFFER_BYTES, **kwargs: Any) -> Client:
        """Connect a client and subscribe it."""
        client = self.connect(limit)
        self.run(client.subscribe(*args, **kwargs))
        self.advance(0.001)
        return client

    def leave(self, client: Client) -> None:
        async def end() -> None:
            client.connection.end()

        self.run(end())
        if client in self.clients:
            self.clients.remove(client)

    def tasks(self) -> set[asyncio.Task[Any]]:
        """Return the tasks that run in addition to the hub's own."""
        return asyncio.all_tasks(self.loop) - {self.hub._receiving, self.hub.jobs._timer}

    def close(self) -> None:
        try:
            for client in list(self.clients):
                self.leave(client)
            self.run(self.hub.close())
            self.advance(0.01)
            left = asyncio.all_tasks(self.loop)
            assert not left, f"tasks are left: {left}"
            if self.broken:
                raise self.broken[0]
        finally:
            self.run(self._cancel_rest())
            self.loop.close()

    async def _cancel_rest(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
