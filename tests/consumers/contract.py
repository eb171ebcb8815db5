"""The contract of every transport: a client follows, is cut off, resumes, publishes and calls.

A test module provides the fixtures ``transport`` (one of ``TRANSPORTS``), ``server``, ``publisher``
and ``ada`` (the headers of a user).
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import httpx
import pytest

from tests.support.http import (
    Refused,
    Stream,
    get_poll,
    http_client,
    open_stream,
    post_command,
)
from tests.support.server import DEADLINE, Client, Publisher, Server, connect


class Follower(ABC):
    """A client that follows one topic.

    Attributes:
        name: the transport's.
        cursor: where it would resume.
        was_reset: whether it was reset.
        members: the names of the topic's members, by id.
        count: the number of members while they are too many to be listed.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        self.cursor: str | None = None
        self.was_reset = False
        self.members: dict[str, str] = {}
        self.count: int | None = None
        self._version = -1

    @classmethod
    @abstractmethod
    def follow(
        cls, site: str, topic: str, since: str | None = None, headers: Mapping[str, str] = {}
    ) -> contextlib.AbstractAsyncContextManager["Follower"]:
        """Follow a topic from a cursor; without one from now on.

        Raises:
            Refused: the topic is forbidden.
        """

    @abstractmethod
    async def event(self) -> dict[str, Any]:
        """Return the next event."""

    async def events(self, count: int) -> list[dict[str, Any]]:
        return [await self.event() for _ in range(count)]

    @abstractmethod
    async def cut(self) -> None:
        """Break the connection without closing it, as a network does."""

    def take(self, frame: dict[str, Any]) -> bool:
        """Record the content of a frame; return whether it is an event."""
        if frame["type"] == "reset" or frame.get("recovered") is False:
            self.was_reset = True
        if frame["type"] == "members":
            self.members = {member["id"]: member["info"]["name"] for member in frame["members"]}
            self.count = frame.get("count")
            self._version = frame["version"]
        elif frame["type"] in ("join", "leave"):
            assert frame["version"] == self._version + 1, frame
            assert self.count is None, frame
            self._version += 1
            self.members.pop(frame["member"]["id"], None)
            if frame["type"] == "join":
                self.members[frame["member"]["id"]] = frame["member"]["info"]["name"]
        return bool(frame["type"] == "event")

    @abstractmethod
    async def listen(self) -> None:
        """Receive the next frame or answer."""

    async def wait_for_members(self, *names: str) -> None:
        """Listen until exactly these are members of the topic."""
        async with asyncio.timeout(DEADLINE):
            while sorted(self.members.values()) != sorted(names):
                await self.listen()

    @classmethod
    async def command(
        cls, site: str, headers: Mapping[str, str] = {}, **command: Any
    ) -> dict[str, Any]:
        """Run a command and return its answer.

        Raises:
            Refused: the command is refused.
        """
        async with http_client() as client:
            return await post_command(client, site, headers, **command)


class WebSocketFollower(Follower):
    name = "websocket"

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client

    @classmethod
    @asynccontextmanager
    async def follow(
        cls, site: str, topic: str, since: str | None = None, headers: Mapping[str, str] = {}
    ) -> AsyncIterator["WebSocketFollower"]:
        async with connect(_Site(site), additional_headers=headers) as client:
            follower = cls(client)
            answer = await client.ask(type="subscribe", topic=topic, since=since)
            if answer["type"] == "error":
                raise Refused(0, answer)
            follower.cursor = answer["cursor"]
            follower.take(answer)
            yield follower

    async def event(self) -> dict[str, Any]:
        while True:
            frame = await self.client.receive()
            self.cursor = frame.get("cursor", self.cursor)
            if self.take(frame):
                return frame

    async def listen(self) -> None:
        self.take(await self.client.receive())

    async def cut(self) -> None:
        self.client.socket.transport.abort()

    @classmethod
    async def command(
        cls, site: str, headers: Mapping[str, str] = {}, **command: Any
    ) -> dict[str, Any]:
        async with connect(_Site(site), additional_headers=headers) as client:
            answer = await client.ask(**command)
        if answer["type"] == "error":
            raise Refused(0, answer)
        del answer["id"]
        return answer


class _Site(Server):
    """A server, or a proxy in front of one, for ``connect()``."""

    def __init__(self, site: str) -> None:
        self.port = int(site.rpartition(":")[2])


class SseFollower(Follower):
    name = "sse"

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    @classmethod
    @asynccontextmanager
    async def follow(
        cls, site: str, topic: str, since: str | None = None, headers: Mapping[str, str] = {}
    ) -> AsyncIterator["SseFollower"]:
        resume = {"Last-Event-ID": since} if since else {}
        async with open_stream(site, topic, {**headers, **resume}) as stream:
            follower = cls(stream)
            frame = await stream.receive()
            assert frame["type"] == "subscribed", frame
            follower.take(frame)
            follower.cursor = stream.last_id
            yield follower

    async def event(self) -> dict[str, Any]:
        while True:
            frame = await self.stream.receive()
            self.cursor = self.stream.last_id
            if self.take(frame):
                return frame

    async def listen(self) -> None:
        self.take(await self.stream.receive())

    async def cut(self) -> None:
        await self.stream._chunks.aclose()  # type: ignore[attr-defined]


class PollFollower(Follower):
    name = "poll"
    wait = 0

    def __init__(
        self, client: httpx.AsyncClient, site: str, topic: str, headers: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.client, self.site, self.topic, self.headers = client, site, topic, headers
        self.waiting: deque[dict[str, Any]] = deque()

    @classmethod
    @asynccontextmanager
    async def follow(
        cls, site: str, topic: str, since: str | None = None, headers: Mapping[str, str] = {}
    ) -> AsyncIterator["PollFollower"]:
        async with http_client() as client:
            follower = cls(client, site, topic, headers)
            follower.cursor = since
            await follower.poll(0)
            yield follower

    async def poll(self, wait: int) -> None:
        answer = await get_poll(
            self.client, self.site, self.topic, self.headers, since=self.cursor, wait=wait
        )
        self.was_reset = self.was_reset or answer["reset"] == [self.topic]
        for frame in answer["frames"]:
            self.take(frame)
        self.waiting.extend(answer["events"])
        self._after = answer["cursor"]
        if not self.waiting:
            self.cursor = self._after

    async def listen(self) -> None:
        await self.poll(self.wait)

    async def event(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE):
            while not self.waiting:
                await self.poll(self.wait)
        event = self.waiting.popleft()
        self.cursor = event["cursor"] if self.waiting else self._after
        return event

    async def cut(self) -> None:
        """Send a poll and close the connection before the answer."""
        url = httpx.URL(f"{self.site}/realtime/poll").copy_merge_params(
            {"topic": self.topic, "since": self.cursor or "", "wait": str(self.wait)}
        )
        _, writer = await asyncio.open_connection(url.host, url.port)
        lines = [f"GET {url.raw_path.decode()} HTTP/1.1", f"Host: {url.netloc.decode()}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await writer.drain()
        writer.transport.abort()


class LongPollFollower(PollFollower):
    name = "long poll"
    wait = 20


TRANSPORTS: list[type[Follower]] = [WebSocketFollower, SseFollower, LongPollFollower, PollFollower]


class TransportContract:
    """What every transport promises a client."""

    async def test_a_client_that_is_cut_off_resumes_without_a_gap(
        self, transport: type[Follower], server: Server, publisher: Publisher
    ) -> None:
        topic = f"public.{transport.__name__}"
        async with transport.follow(server.site, topic) as follower:
            await publisher.publish(topic, 10)
            seen = [event["data"] for event in await follower.events(4)]
            cursor = follower.cursor
            await follower.cut()
        await publisher.publish(topic, 5, "tick", 10)
        async with transport.follow(server.site, topic, cursor) as follower:
            seen += [event["data"] for event in await follower.events(11)]
            await publisher.publish(topic, 1, "live", 15)
            event = await follower.event()
            assert (event["event"], event["data"], event["seq"]) == ("live", 15, 16)
            assert not follower.was_reset
        assert seen == list(range(15))

    async def test_a_new_follower_receives_no_past_events(
        self, transport: type[Follower], server: Server, publisher: Publisher
    ) -> None:
        topic = f"public.new-{transport.__name__}"
        await publisher.publish(topic, 3)
        async with transport.follow(server.site, topic) as follower:
            await publisher.publish(topic, 1, "tick", 3)
            assert (await follower.event())["data"] == 3

    async def test_a_trimmed_log_resets_once_and_goes_on(
        self, transport: type[Follower], server: Server, publisher: Publisher
    ) -> None:
        topic = f"tiny.{transport.__name__}"
        async with transport.follow(server.site, topic) as follower:
            await publisher.publish(topic, 1)
            await follower.event()
            cursor = follower.cursor
        await publisher.publish(topic, 30)
        await asyncio.to_thread(
            server.run, "from realtime.retention import trim_all; print(trim_all())"
        )
        async with transport.follow(server.site, topic, cursor) as follower:
            assert follower.was_reset
            cursor = follower.cursor
        async with transport.follow(server.site, topic, cursor) as follower:
            assert not follower.was_reset, "it is reset only once"
            await publisher.publish(topic, 1, "after")
            event = await follower.event()
            assert (event["event"], event["seq"]) == ("after", 32)

    async def test_a_forbidden_topic_and_an_unknown_one_look_the_same(
        self, transport: type[Follower], server: Server, ada: dict[str, str]
    ) -> None:
        bodies = []
        for topic in ("private.1", "nothing.here", "crash.1"):
            with pytest.raises(Refused, match="forbidden") as refused:
                async with transport.follow(server.site, topic, None, ada):
                    pass
            bodies.append({**refused.value.body, "id": 0})
        assert bodies == [bodies[0]] * 3

    async def test_a_client_publishes_and_calls_as_its_own_user(
        self, transport: type[Follower], server: Server, ada: dict[str, str]
    ) -> None:
        topic = "orders.42"
        async with transport.follow(server.site, topic, None, ada) as follower:
            publish = {"type": "publish", "topic": topic, "event": "comment", "data": "hello"}
            answer = await transport.command(server.site, ada, **publish)
            assert answer == {"type": "ok"}
            event = await follower.event()
            assert (event["event"], event["data"]) == ("comment", "hello")
        call = {"type": "call", "topic": topic, "action": "rename", "data": "Blue"}
        answer = await transport.command(server.site, ada, **call)
        assert answer == {"type": "result", "data": {"pk": 42, "name": "Blue", "by": "ada"}}
        for command, code in [
            ({**publish, "event": "shipped"}, "forbidden"),
            ({**publish, "topic": "private.1"}, "forbidden"),
            ({**call, "action": "delete"}, "unknown_action"),
            ({**call, "action": "boom", "data": "denied"}, "forbidden"),
            ({**call, "action": "boom", "data": "invalid"}, "invalid"),
            ({**call, "action": "boom", "data": "fault"}, "failed"),
        ]:
            with pytest.raises(Refused) as refused:
                await transport.command(server.site, ada, **command)
            assert refused.value.code == code
        with pytest.raises(Refused, match="forbidden"):
            await transport.command(server.site, **publish)

    async def test_members_come_and_go(
        self, transport: type[Follower], server: Server, ada: dict[str, str]
    ) -> None:
        topic, bob = f"room.{transport.__name__}", server.sign_in("bob")
        ask = {"type": "members", "topic": topic}
        async with transport.follow(server.site, topic, None, ada) as follower:
            await follower.wait_for_members("ada")
            async with transport.follow(server.site, topic, None, bob) as other:
                await follower.wait_for_members("ada", "bob")
                await other.wait_for_members("ada", "bob")
                answer = await transport.command(server.site, ada, **ask)
                assert [member["info"]["name"] for member in answer["members"]] == ["ada", "bob"]
                assert answer["version"] == follower._version
            await follower.wait_for_members("ada")
            assert not follower.was_reset
        with pytest.raises(Refused, match="unsupported"):
            await transport.command(server.site, ada, **{**ask, "topic": "public.x"})
        with pytest.raises(Refused, match="forbidden"):
            await transport.command(server.site, ada, **{**ask, "topic": "private.1"})
