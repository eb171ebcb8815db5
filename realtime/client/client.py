"""The client: many topics, and commands, over one connection that it keeps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self

from realtime.client.commands import Commands
from realtime.client.connector import Connector, Transport
from realtime.client.links import Address, Frame, Link
from realtime.client.stream import StreamLink
from realtime.client.subscription import OnMembers, OnReset, Subscription
from realtime.client.topic import Following, read_member
from realtime.client.websocket import WebSocketLink
from realtime.exceptions import CommandRefused, ConnectionEnded
from realtime.protocol.commands import parse_since
from realtime.protocol.encoders import encode_data
from realtime.protocol.events import Cursor, Member, check_event_name
from realtime.protocol.names import check_topic_name

__all__ = ["Client"]

MAX_QUEUE = 500  # events that a topic's reader may be behind before the topic is left for a while
COMMAND_BYTES = 2**24  # of a command's data; the server's limit is lower, and its refusal says it

logger = logging.getLogger("realtime.client")


class Client:
    """Follows topics, publishes clients' events and calls actions.

    It connects at ``async with`` and keeps the connection; it belongs to one event loop.

    Args:
        url: where the app is mounted, such as ``https://shop.example/realtime/``.
        token: sent as ``Authorization: Bearer``, never in a URL.
        headers: more headers of each request.
        cookies: of each request, such as ``{"sessionid": "…"}``.
        transport: ``websocket`` or ``sse`` alone; ``auto`` uses a WebSocket, and an event stream
            while no WebSocket gets through.
        ssl: for a private authority's certificates.

    Attributes:
        user_id: whom the server takes us for: the user's primary key as text, None for nobody.
        topics: what the server offers: the user's own topic and ``everyone``.

    Raises:
        ValueError: the address, the token, a header or a cookie cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        transport: Transport = "auto",
        ssl: SSLContext | None = None,
    ) -> None:
        if transport not in ("auto", "websocket", "sse"):
            raise ValueError(f"{transport!r} is no transport: use auto, websocket or sse")
        self.user_id: str | None = None
        self.topics: list[str] = []
        self._address = Address.build(url, token, headers, cookies, ssl)
        self._transport: Transport = transport
        self._followings: dict[str, Following] = {}
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._over: Exception | None = None

    def __repr__(self) -> str:
        return f"<Client {self._address.url}>"

    @property
    def transport(self) -> str | None:
        """The transport in use, ``websocket`` or ``sse``; None while there is no connection."""
        return None if self._task is None else self._connector.transport

    # Its life

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("this client was used already; make another one")
        self._commands = Commands()
        self._connector = Connector(self._make_link, self._transport, self)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Disconnect; iterations end, and commands without an answer raise."""
        if self._task is None:
            return
        self._over = self._over or ConnectionEnded(1000, "this client was closed")
        for following in list(self._followings.values()):
            following.leave()
        self._commands.end(self._over)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            await self._connector.run()
        except ConnectionEnded as error:
            self._end(error)
        except Exception as error:
            logger.exception("the client failed")
            self._end(error)

    def _end(self, error: Exception) -> None:
        self._over = error
        for following in list(self._followings.values()):
            following.end(error)
        self._commands.end(error)

    def _make_link(self, name: str) -> Link:
        if name == "sse":
            return StreamLink(self._address)
        return WebSocketLink(self._address)

    def _check_open(self) -> None:
        if self._task is None:
            raise RuntimeError("this client is not connected: use it inside `async with`")
        if self._over is not None:
            raise self._over

    # What people do with it

    def subscribe(
        self,
        topic: str,
        *,
        since: Cursor | str | None = None,
        last: int | None = None,
        on_reset: OnReset | None = None,
        on_members: OnMembers | None = None,
        max_queue: int = MAX_QUEUE,
    ) -> Subscription:
        """Follow a topic; what comes from now on, unless ``since`` or ``last`` is given.

        Args:
            topic: the topic's name.
            since: go on after this cursor, which may be a composite one with a place of this topic,
                or from ``@`` and seconds since 1970 on.
            last: begin with so many of the newest events.
            on_reset: called with an ``EventsLost`` when events are missing that the log does not
                keep, in its place among the events; may be a coroutine function. Without it the
                iteration raises the error, and goes on when iterated over again.
            on_members: called with who is on the topic, at first and after each change, by the
                iteration as ``on_reset`` is; a reader that is behind is told the newest list alone.
            max_queue: events that wait at most; beyond it the topic is left until half of them
                were taken, and then read on from the log.

        Raises:
            InvalidTopicName, InvalidCursor: it cannot be understood.
            CommandRefused: this client follows the topic already.
            ConnectionEnded: the client is closed, or was told not to come back.
        """
        self._check_open()
        name = check_topic_name(str(topic))
        if since is not None and last is not None:
            raise ValueError("give since or last, not both")
        if max_queue < 1 or (last is not None and last < 0):
            raise ValueError("max_queue is from 1 on, last from 0 on")
        start: Frame = {}
        if since is not None:
            place = parse_since(str(since), name)
            # The topic's own cursor, where a composite one was given.
            start = {"since": str(place) if isinstance(place, Cursor) else str(since)}
        elif last is not None:
            start = {"last": last}
        before = self._followings.get(name)
        if before is not None and before.abandoned:
            before.leave()
        elif before is not None:
            reason = f"this client follows {name} already; use another client, or share the events"
            raise CommandRefused("already_subscribed", reason)
        wants_members = on_members is not None
        following = Following(name, start, max_queue, wants_members, self._commands, self._forget)
        self._followings[name] = following
        if self._link is not None:
            following.up()
        return Subscription(following, on_reset, on_members)

    async def publish(self, topic: str, event: str, data: Any = None) -> None:
        """Publish one of the events that the topic lets its clients publish.

        Raises:
            CommandRefused: the server refused it, and nothing was done.
            AnswerLost: the connection broke; it may have been published.
            ConnectionEnded: there was no connection, and it was not sent.
            DataNotSerializable: the data has no JSON form.
        """
        check_event_name(event)
        encode_data(data, _refuse, COMMAND_BYTES)  # its errors say where the fault is
        await self._ask({"type": "publish", "topic": topic, "event": event, "data": data})

    async def call(self, topic: str, action: str, data: Any = None) -> Any:
        """Run an action of the topic and return what it returned.

        Raises:
            CommandRefused, AnswerLost, ConnectionEnded, DataNotSerializable: as in ``publish()``.
        """
        encode_data(data, _refuse, COMMAND_BYTES)
        frame = {"type": "call", "topic": topic, "action": action, "data": data}
        return (await self._ask(frame))["data"]

    async def members(self, topic: str) -> list[Member]:
        """Return who is on a topic now, followed or not, in the order in which they came.

        Raises:
            CommandRefused: this client may not follow it, or it keeps no presence.
            AnswerLost, ConnectionEnded: as in ``publish()``.
        """
        answer = await self._ask({"type": "members", "topic": topic})
        return [read_member(fields) for fields in answer["members"]]

    async def _ask(self, frame: Frame) -> Frame:
        self._check_open()
        return await self._commands.ask({**frame, "topic": check_topic_name(str(frame["topic"]))})

    # What the connector tells

    def up(self, link: Link) -> None:
        """Begin to use a connection."""
        self._link = link
        self._commands.up(link.send)
        for following in list(self._followings.values()):
            following.up()

    def down(self) -> None:
        """Use it no more."""
        self._link = None
        for following in self._followings.values():
            following.down()
        self._commands.down()

    def hear(self, frame: Frame) -> None:
        """Take a frame."""
        if frame["type"] == "welcome":
            self.user_id, self.topics = frame.get("user"), list(frame.get("topics") or [])
        elif not self._commands.answer(frame):
            following = self._followings.get(str(frame.get("topic")))
            if following is not None:
                following.receive(frame)

    def _forget(self, following: Following) -> None:
        if self._followings.get(following.topic) is following:
            del self._followings[following.topic]


def _refuse(value: Any) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
