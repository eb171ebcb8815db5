"""A fake server in memory, and fake links of the client to it, on virtual time."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from realtime.client import Client
from realtime.client.connector import Transport
from realtime.client.links import Frame, Link, LinkClosed, OnFrame
from realtime.protocol.events import Cursor
from tests.support.virtual_time import VirtualTimeLoop, passing

__all__ = ["TOPIC", "FakeClient", "FakeLink", "FakeServer", "passing", "play", "take"]

T = TypeVar("T")

TOPIC = "orders.42"
LATENCY = 0.01  # seconds each way


class FakeServer:
    """A server with logs in memory, which records the frames that clients send.

    Attributes:
        epoch: the epoch of all cursors.
        logs: the events of each topic.
        trimmed: how many events of each topic were trimmed.
        attempts: the time and the transport of each attempt to open a link.
        failures: for each transport, the errors of the next attempts; None succeeds.
        refusals: for each topic, the errors of the next subscribes.
        links: the links that were opened.
        sent: all frames that clients sent.
        answer: returns the answer to a command, or None for no answer.
    """

    def __init__(self) -> None:
        self.epoch = "e"
        self.logs: dict[str, list[Frame]] = defaultdict(list)
        self.trimmed: dict[str, int] = defaultdict(int)
        self.attempts: list[tuple[float, str]] = []
        self.failures: dict[str, deque[LinkClosed | None]] = defaultdict(deque)
        self.refusals: dict[str, deque[Frame]] = defaultdict(deque)
        self.links: list[FakeLink] = []
        self.sent: list[Frame] = []
        self.answer: Callable[[Frame], Frame | None] = lambda frame: {"type": "ok"}

    @property
    def link(self) -> "FakeLink":
        """The current link."""
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
        """Trim all events but the last."""
        self.trimmed[topic] = len(self.logs[topic]) - 1


class FakeLink:
    """A link to the fake server; frames arrive in order after ``LATENCY``, unless it was cut."""

    def __init__(self, server: FakeServer, name: str) -> None:
        self.server = server
        self._name = name
        self.topics: set[str] = set()
        self.is_closed = False
        # Timers with the same time run in any order, so queues keep the order of the frames.
        self.incoming: deque[Frame] = deque()
        self.outgoing: deque[Frame] = deque()

    @property
    def name(self) -> str:
        return self._name

    async def open(self, on_frame: OnFrame) -> None:
        loop = asyncio.get_running_loop()
        self.server.attempts.append((loop.time(), self.name))
        self._on_frame = on_frame
        self._ended: asyncio.Future[None] = loop.create_future()
        await asyncio.sleep(LATENCY)
        failures = self.server.failures[self.name]
        if failures and (failure := failures.popleft()) is not None:
            raise failure
        self.server.links.append(self)
        on_frame({"type": "welcome", "user": "7", "topics": ["user.7"]})

    async def run(self) -> None:
        await self._ended

    def cut(self, code: int = 1006, **options: Any) -> None:
        """Break the link; frames on their way are lost."""
        self.topics.clear()
        self.is_closed = True
        if not self._ended.done():
            self._ended.set_exception(LinkClosed(code, "it was cut", **options))

    def say(self, frame: Frame) -> None:
        self.incoming.append(frame)
        asyncio.get_running_loop().call_later(LATENCY, self._deliver)

    def _deliver(self) -> None:
        frame = self.incoming.popleft()
        if not self.is_closed:
            self._on_frame(frame)

    def send(self, frame: Frame) -> None:
        self.outgoing.append(frame)
        asyncio.get_running_loop().call_later(LATENCY, self._process)

    def _process(self) -> None:
        frame = self.outgoing.popleft()
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
        start, recovered = len(server.logs[topic]), None
        if "since" in frame:
            since = Cursor.parse(frame["since"])
            recovered = since.epoch == server.epoch and since.seq >= server.trimmed[topic]
            start = since.seq if recovered else start
        elif "last" in frame:
            start = max(server.trimmed[topic], start - frame["last"])
        answer = {"type": "subscribed", "id": id, "topic": topic, "recovered": recovered}
        self.say({**answer, "cursor": str(server.cursor(topic, start))})
        for event in server.logs[topic][start:]:
            self.say({**event, "cursor": str(server.cursor(topic, event["seq"]))})

    async def close(self) -> None:
        self.topics.clear()
        self.is_closed = True
        if self._ended.done() and not self._ended.cancelled():
            self._ended.exception()


class FakeClient(Client):
    """A client of the fake server."""

    def __init__(self, server: FakeServer, transport: Transport = "auto") -> None:
        super().__init__("http://nowhere.example/realtime/", transport=transport)
        self.server = server

    def _make_link(self, name: str) -> Link:
        return FakeLink(self.server, name)


def play(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on virtual time; fail if a task is left or an exception was not retrieved."""
    loop = VirtualTimeLoop()
    unhandled: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    try:
        result = loop.run_until_complete(coroutine)
        loop.run_until_complete(asyncio.sleep(0))
        assert not asyncio.all_tasks(loop), "tasks are left"
        assert not unhandled, unhandled
        return result
    finally:
        loop.close()


async def take(events: Any, count: int) -> list[Any]:
    """Return the data of the next ``count`` events."""
    return [(await anext(events)).data for _ in range(count)]
