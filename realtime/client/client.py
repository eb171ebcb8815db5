"""The client: topics and commands over one connection, which reconnects when it breaks."""

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
from realtime.client.token import TokenSource
from realtime.client.topic import SharedSubscription, read_member
from realtime.client.websocket import WebSocketLink
from realtime.exceptions import CommandRefused, ConnectionEnded
from realtime.protocol.commands import parse_since
from realtime.protocol.encoders import encode_data
from realtime.protocol.events import Cursor, Member, check_event_name
from realtime.protocol.names import check_topic_name

__all__ = ["Client"]

MAX_QUEUE = 500  # default for max_queue of subscribe()
COMMAND_BYTES = 2**24  # maximum size of a command's data; the server's own limit is lower

logger = logging.getLogger("realtime.client")


class Client:
    """A client that follows topics, publishes client events and calls actions.

    Use it with ``async with``, which connects. It reconnects when the connection breaks, and
    belongs to one event loop.

    Args:
        url: the URL at which the app is mounted, such as ``https://shop.example/realtime/``.
        token: sent in the header ``Authorization: Bearer``, never in a URL. If it is a function or
            coroutine function, it is called again when the server refuses the token, for example
            because it expired.
        headers: additional headers of each request.
        cookies: cookies of each request, such as ``{"sessionid": "…"}``.
        transport: ``websocket`` or ``sse`` to use only that transport; ``auto`` to use a WebSocket,
            or an event stream while WebSockets are blocked.
        ssl: an SSL context, for certificates of a private authority.

    Attributes:
        user_id: the user that the server authenticated: the primary key as text, or None for an
            anonymous user.
        topics: the topics that the server suggests: the user's own topic and ``everyone``.

    Raises:
        ValueError: the URL, the token, a header or a cookie is not valid; the error says why.
    """

    def __init__(
        self,
        url: str,
        *,
        token: TokenSource | None = None,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        transport: Transport = "auto",
        ssl: SSLContext | None = None,
    ) -> None:
        if transport not in ("auto", "websocket", "sse"):
            raise ValueError(f"{transport!r} is not a transport: use auto, websocket or sse")
        self.user_id: str | None = None
        self.topics: list[str] = []
        self._address = Address.build(url, token, headers, cookies, ssl)
        self._transport: Transport = transport
        self._subscriptions: dict[str, SharedSubscription] = {}
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._end_error: Exception | None = None

    def __repr__(self) -> str:
        return f"<Client {self._address.url}>"

    @property
    def transport(self) -> str | None:
        """The current transport, ``websocket`` or ``sse``; None while disconnected."""
        return None if self._task is None else self._connector.transport

    # Opening and closing

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("this client has already been used; create another one")
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
        """Close the connection, and end all iterations.

        A command without an answer raises AnswerLost if it was sent, otherwise ConnectionEnded.
        """
        if self._task is None:
            return
        self._end_error = self._end_error or ConnectionEnded(1000, "this client was closed")
        for shared in list(self._subscriptions.values()):
            shared.unsubscribe()
        self._commands.close(self._end_error)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            await self._connector.run()
        except ConnectionEnded as error:
            self._fail(error)
        except Exception as error:
            logger.exception("the client failed")
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._end_error = error
        for shared in list(self._subscriptions.values()):
            shared.close(error)
        self._commands.close(error)

    def _make_link(self, name: str) -> Link:
        if name == "sse":
            return StreamLink(self._address)
        return WebSocketLink(self._address)

    def _check_open(self) -> None:
        if self._task is None:
            raise RuntimeError("this client is not connected: use it inside `async with`")
        if self._end_error is not None:
            raise self._end_error

    # Topics and commands

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
        """Subscribe to a topic; by default, only new events arrive.

        Args:
            topic: the topic's name.
            since: resume after this cursor (a composite cursor must contain the topic), or after a
                time: ``@`` and seconds since 1970. An empty text counts as None.
            last: start with this many of the newest events.
            on_reset: a function or coroutine function. The iteration calls it with an
                ``EventsLost`` at each point where events are missing that the log no longer has.
                Without ``on_reset``, the iteration raises the ``EventsLost``; it can be continued
                after that.
            on_members: a function or coroutine function. The iteration calls it with the first
                list of members, and again after each change; a slow reader receives only the
                newest list.
            max_queue: maximum number of unread events. If more arrive, the client unsubscribes
                until half of them have been read, and then resumes from the log.

        Raises:
            InvalidTopicName, InvalidCursor: the topic or the cursor is not valid.
            CommandRefused: this client already follows the topic.
            ConnectionEnded: the client was closed, or the server told it not to reconnect.
            ValueError: both ``since`` and ``last`` were given, or ``last`` or ``max_queue``
                is too small.
        """
        self._check_open()
        name = check_topic_name(str(topic))
        since = since or None  # an empty file or variable
        if since is not None and last is not None:
            raise ValueError("give since or last, not both")
        if max_queue < 1 or (last is not None and last < 0):
            raise ValueError("max_queue must be at least 1, and last at least 0")
        start: Frame = {}
        if since is not None:
            parsed = parse_since(str(since), name)
            # Only the topic's own part of a composite cursor is sent.
            start = {"since": str(parsed) if isinstance(parsed, Cursor) else str(since)}
        elif last is not None:
            start = {"last": last}
        existing = self._subscriptions.get(name)
        if existing is not None and existing.abandoned:
            existing.unsubscribe()
        elif existing is not None:
            reason = f"this client already follows {name}; share its events, or use another client"
            raise CommandRefused("already_subscribed", reason)
        wants_members = on_members is not None
        shared = SharedSubscription(
            name, start, max_queue, wants_members, self._commands, self._forget
        )
        self._subscriptions[name] = shared
        if self._link is not None:
            shared.up()
        return Subscription(shared, on_reset, on_members)

    async def publish(self, topic: str, event: str, data: Any = None) -> None:
        """Publish a client event, which the topic must allow.

        Raises:
            CommandRefused: the server refused the event; it was not published.
            AnswerLost: the connection broke; the event may have been published.
            ConnectionEnded: the event was not sent, because there is no connection.
            DataNotSerializable: the data has no JSON form.
        """
        check_event_name(event)
        encode_data(data, _reject_value, COMMAND_BYTES)  # raises with the path to a bad value
        await self._ask({"type": "publish", "topic": topic, "event": event, "data": data})

    async def call(self, topic: str, action: str, data: Any = None) -> Any:
        """Call an action of a topic and return its result.

        Raises:
            CommandRefused, AnswerLost, ConnectionEnded, DataNotSerializable: see ``publish()``.
        """
        encode_data(data, _reject_value, COMMAND_BYTES)
        frame = {"type": "call", "topic": topic, "action": action, "data": data}
        return (await self._ask(frame))["data"]

    async def members(self, topic: str) -> list[Member]:
        """Return the members of a topic, in the order in which they joined.

        The client does not have to follow the topic.

        Raises:
            CommandRefused: the client is not allowed to follow the topic; or the topic does not
                track presence; or it has more members than the server lists (with the code
                ``too_many_members``), call ``member_count()`` then.
            AnswerLost, ConnectionEnded: see ``publish()``.
        """
        answer = await self._ask({"type": "members", "topic": topic})
        if "count" in answer:
            reason = (
                f"{topic} has {answer['count']} members, more than the server lists; use "
                "member_count()"
            )
            raise CommandRefused("too_many_members", reason)
        return [read_member(fields) for fields in answer["members"]]

    async def member_count(self, topic: str) -> int:
        """Return the number of members of a topic.

        The client does not have to follow the topic.

        Raises:
            CommandRefused: the client is not allowed to follow the topic, or the topic does not
                track presence.
            AnswerLost, ConnectionEnded: see ``publish()``.
        """
        answer = await self._ask({"type": "members", "topic": topic})
        return int(answer.get("count", len(answer["members"])))

    async def _ask(self, frame: Frame) -> Frame:
        self._check_open()
        return await self._commands.ask({**frame, "topic": check_topic_name(str(frame["topic"]))})

    # Callbacks of the connector

    def up(self, link: Link) -> None:
        """Start to use a new connection; called by the connector."""
        self._link = link
        self._address.token.accepted()
        self._commands.up(link.send)
        for shared in list(self._subscriptions.values()):
            shared.up()

    def down(self) -> None:
        """Stop using the connection, which is closed or closing; called by the connector."""
        self._link = None
        for shared in self._subscriptions.values():
            shared.down()
        self._commands.down()

    def receive(self, frame: Frame) -> None:
        """Process a frame of the server; called by the connector."""
        if frame["type"] == "welcome":
            self.user_id, self.topics = frame.get("user"), list(frame.get("topics") or [])
        elif not self._commands.answer(frame):
            shared = self._subscriptions.get(str(frame.get("topic")))
            if shared is not None:
                shared.receive(frame)

    def renew_token(self) -> bool:
        """Ask for a new token, and return whether to reconnect; called by the connector."""
        return self._address.token.refused()

    def _forget(self, shared: SharedSubscription) -> None:
        if self._subscriptions.get(shared.topic) is shared:
            del self._subscriptions[shared.topic]


def _reject_value(value: Any) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
