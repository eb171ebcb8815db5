"""A server that exists in memory, and the client's links to it, on virtual time."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from realtime.client import Client
from realtime.client.connector import Transport
from realtime.client.links import Frame, Hear, Link, LinkClosed
from realtime.protocol.events import Cursor
from tests.support.virtual_time import VirtualTimeLoop, passing

__all__ = ["TOPIC", "FakeClient", "FakeLink", "FakeServer", "passing", "play", "take"]

T = TypeVar("T")

TOPIC = "orders.42"
LATENCY = 0.01  # seconds each way


class FakeServer:
    """Logs in memory, and what the links to them were asked.

    Attributes:
        attempts: when each link was opened, and over which transport.
        fates: by transport, what the next attempts end with; None opens.
        refusals: by topic, the errors that the next subscribes get.
        sent: every frame that arrived.
        holding: frames wait, and are lost if the link is cut before.
    """

    def __init__(self) -> None:
        self.epoch = "e"
        self.logs: dict[str, list[Frame]] = defaultdict(list)
        self.trimmed: dict[str, int] = defaultdict(int)
        self.attempts: list[tuple[float, str]] = []
        self.fates: dict[str, deque[LinkClosed | None]] = defaultdict(deque)
        self.refusals: dict[str, deque[Frame]] = defaultdict(deque)
        self.links: list[FakeLink] = []
        self.sent: list[Frame] = []
        self.answer: Callable[[Frame], Frame | None] = lambda frame: {"type": "ok"}

    @property
    def link(self) -> "FakeLink":
        """The link in use."""
        return self.links[-1]

    def cursor(self, topic: str, seq: int | None = None) -> Cursor:
        return Cursor(self.epoch, len(self.logs[topic]) if seq is None else seq, 0)

    def publish(self, topic: str = TOPIC, count: int = 1) -> None:
        for _ in range(count):
            log = self.logs[topic]
            seq = len(log) + 1
            event = {"type": "event", "topic": topic, "event": "tick", "data": seq, "seq": seq}
            log.append(event)
            for link in self.links:
                if topic in link.topics:
                    link.say({**event, "cursor": str(self.cursor(topic))})

    def trim(self, topic: str = TOPIC) -> None:
        """Forget all events but the last."""
        self.trimmed[topic] = len(self.logs[topic]) - 1


class FakeLink:
    """A link to it; frames arrive in order, ``LATENCY`` later, unless it was cut."""

    def __init__(self, server: FakeServer, name: str) -> None:
        self.server = server
        self._name = name
        self.topics: set[str] = set()
        self.is_closed = False
        # Timers of one moment have no order, so what they bring is in queues.
        self.coming: deque[Frame] = deque()
        self.going: deque[Frame] = deque()

    @property
    def name(self) -> str:
        return self._name

    async def open(self, hear: Hear) -> None:
        loop = asyncio.get_running_loop()
        self.server.attempts.append((loop.time(), self.name))
        self._hear = hear
        self._ended: asyncio.Future[None] = loop.create_future()
        await asyncio.sleep(LATENCY)
        fates = self.server.fates[self.name]
        if fates and (fate := fates.popleft()) is not None:
            raise fate
        self.server.links.append(self)
        hear({"type": "welcome", "user": "7", "topics": ["user.7"]})

    async def run(self) -> None:
        await self._ended

    def cut(self, code: int = 1006, **options: Any) -> None:
        """End it; what is on its way is lost."""
        self.topics.clear()
        self.is_closed = True
        if not self._ended.done():
            self._ended.set_exception(LinkClosed(code, "it was cut", **options))

    def say(self, frame: Frame) -> None:
        self.coming.append(frame)
        asyncio.get_running_loop().call_later(LATENCY, self._arrive)

    def _arrive(self) -> None:
        frame = self.coming.popleft()
        if not self.is_closed:
            self._hear(frame)

    def send(self, frame: Frame) -> None:
        self.going.append(frame)
        asyncio.get_running_loop().call_later(LATENCY, self._take)

    def _take(self) -> None:
        frame = self.going.popleft()
        if self.is_closed:
            return
        self.server.sent.append(frame)
        topic = frame["topic"]
        match frame["type"]:
            case "subscribe":
                self._subscribe(topic, frame)
            case "unsubscribe":
                self.topics.discard(topic)
                self.say({"type": "unsubscribed", "topic": topic, "id": frame["id"]})
            case _:
                if (answer := self.server.answer(frame)) is not None:
                    self.say({**answer, "id": frame["id"]})

    def _subscribe(self, topic: str, frame: Frame) -> None:
        server, id = self.server, frame["id"]
        if server.refusals[topic]:
            self.say({"type": "error", "id": id, **server.refusals[topic].popleft()})
            return
        assert topic not in self.topics, "subscribed twice"
        self.topics.add(topic)
        place, recovered = len(server.logs[topic]), None
        if "since" in frame:
            since = Cursor.parse(frame["since"])
            recovered = since.epoch == server.epoch and since.seq >= server.trimmed[topic]
            place = since.seq if recovered else place
        elif "last" in frame:
            place = max(server.trimmed[topic], place - frame["last"])
        answer = {"type": "subscribed", "id": id, "topic": topic, "recovered": recovered}
        self.say({**answer, "cursor": str(server.cursor(topic, place))})
        for event in server.logs[topic][place:]:
            self.say({**event, "cursor": str(server.cursor(topic, event["seq"]))})

    async def close(self) -> None:
        self.topics.clear()
        self.is_closed = True
        if self._ended.done() and not self._ended.cancelled():
            self._ended.exception()


class FakeClient(Client):
    """A client of the server in memory."""

    def __init__(self, server: FakeServer, transport: Transport = "auto") -> None:
        super().__init__("http://nowhere.example/realtime/", transport=transport)
        self.server = server

    def _make_link(self, name: str) -> Link:
        return FakeLink(self.server, name)


def play(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on virtual time; no task may be left, and no exception unheard."""
    loop = VirtualTimeLoop()
    unheard: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    try:
        result = loop.run_until_complete(coroutine)
        loop.run_until_complete(asyncio.sleep(0))
        assert not asyncio.all_tasks(loop), "tasks are left"
        assert not unheard, unheard
        return result
    finally:
        loop.close()


async def take(events: Any, count: int) -> list[Any]:
    """Return the data of the next events."""
    return [(await anext(events)).data for _ in range(count)]
