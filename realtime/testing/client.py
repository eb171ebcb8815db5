"""A client without a server: it follows topics as a browser does, in the test's own process."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.apps import apps
from django.core.serializers.json import DjangoJSONEncoder

from realtime.auth.users import Identity
from realtime.consumers.websocket import WebSocketConsumer
from realtime.exceptions import CommandRefused, ConnectionEnded
from realtime.protocol.events import Cursor, Event, Member
from realtime.publishing import encode
from realtime.testing.environment import Environment, refuse_event_loop

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser

    from realtime.hub import Hub
    from realtime.topics import Topic
    from realtime.writers.asgi import Send

__all__ = ["KnownUserConsumer", "RealtimeClient"]

T = TypeVar("T")

Frame = dict[str, Any]

TIMEOUT_SECONDS = 5.0  # for an answer that takes milliseconds; a failing test is told this late


class RealtimeClient:
    """Follows topics as a user's browser does, through the real consumer and hub.

    It is connected inside ``with``, or by ``TestCase.enterContext()``.
    It needs no server, no port and no waiting: what was published has been delivered by the time
    that one looks.
    Authorisers and actions run in the thread of the test, inside its transaction.
    Each method has a twin for coroutines with an ``a`` in front, and so has ``with``.

    Args:
        user: whose browser it is; nobody's if None.
        timeout: seconds after which what is waited for is taken not to come.

    Attributes:
        user_id: the user's primary key as text, None for nobody.
        topics: what the server offered at the beginning: the user's own topic and ``everyone``.
        close_code: with which the connection was closed; None while it is open.
    """

    def __init__(
        self,
        user: AbstractBaseUser | AnonymousUser | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self.user = user
        self.timeout = timeout
        self.user_id: str | None = None
        self.topics: list[str] = []
        self.close_code: int | None = None
        self._reason = ""
        self._frames: deque[Frame] = deque()
        self._ids = itertools.count(1)
        self._environment: Environment | None = None

    # The connection

    def _connect(self) -> Self:
        refuse_event_loop("async with RealtimeClient(user)")
        if self._environment is not None:
            raise RuntimeError("this client is connected already; make another one")
        self._environment = environment = Environment.enter()
        self.close_code, self._reason = None, ""
        self._frames.clear()
        self._inbox: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._inbox.put_nowait({"type": "websocket.connect"})
        try:
            self._served: Future[None] = environment.server.start(self._serve)
            self._served.add_done_callback(lambda _: environment.errands.wake())
            welcome = self.receive_frame("welcome")
        except BaseException:
            self._disconnect()
            raise
        self.user_id, self.topics = welcome["user"], welcome["topics"]
        return self

    async def _serve(self) -> None:
        assert self._environment is not None
        consumer = KnownUserConsumer(self._user_or_nobody(), self._environment.server.hub)
        scope = {
            "type": "websocket",
            "path": "/realtime/ws",
            "query_string": b"v=1",
            "headers": [],
            "subprotocols": [],
        }
        # The thread in which sync_to_async() runs, here and in the tasks that begin here.
        context = ThreadSensitiveContext()
        executors: MutableMapping[Any, Any] = SyncToAsync.context_to_thread_executor
        executors[context] = self._environment.errands
        async with context:
            try:
                await consumer(scope, self._inbox.get, self._take)
            finally:
                if self.close_code is None:
                    self.close_code = 1006

    def _user_or_nobody(self) -> Any:
        if self.user is None and apps.is_installed("django.contrib.auth"):
            from django.contrib.auth.models import AnonymousUser

            return AnonymousUser()
        return self.user

    async def _take(self, message: MutableMapping[str, Any]) -> None:
        """Take what the consumer sends; on the hub's loop."""
        assert self._environment is not None
        if message["type"] == "websocket.send":
            frame = json.loads(message["text"])
            if frame["type"] == "closing":
                self._reason = frame["reason"]
            self._frames.append(frame)
        elif message["type"] == "websocket.close":
            self.close_code = message.get("code", 1000)
        self._environment.errands.wake()

    def _disconnect(self) -> None:
        """Leave, as a browser leaves a page; raises what the server side failed with, if it did."""
        environment = self._environment
        if environment is None:
            return
        try:
            if (served := getattr(self, "_served", None)) is not None:
                message = {"type": "websocket.disconnect", "code": 1001}
                environment.server.call(self._inbox.put_nowait, message)
                self._wait(lambda: served.done() or None, "the end of the connection")
                served.result()
        finally:
            self._environment = None
            environment.leave()

    # There is no other way to connect: a client that is not left would keep the project's store
    # away from the tests that come after it.

    def __enter__(self) -> Self:
        return self._connect()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._disconnect()

    # Commands

    def subscribe(
        self,
        topic: Topic | str,
        *,
        since: Cursor | str | None = None,
        last: int | None = None,
    ) -> Frame:
        """Follow a topic and return the answer; its events come by ``receive_event()``.

        Args:
            topic: a ``Topic`` or a topic's name.
            since: resume after this cursor, or ``@`` and seconds since 1970.
            last: begin with so many of the newest events.

        Returns:
            The frame ``subscribed``, with ``cursor``, ``replayed`` and maybe ``recovered``.

        Raises:
            CommandRefused: the user may not follow it, or there is no such topic.
        """
        start = {"since": None if since is None else str(since), "last": last}
        fields = {key: value for key, value in start.items() if value is not None}
        return self._ask({"type": "subscribe", "topic": str(topic), **fields})

    def unsubscribe(self, topic: Topic | str) -> None:
        """Follow a topic no more."""
        self._ask({"type": "unsubscribe", "topic": str(topic)})

    def publish(self, topic: Topic | str, event: str, data: Any = None) -> None:
        """Publish one of a topic's client events.

        Raises:
            CommandRefused: it is no client event, or this user may not publish it.
        """
        self._ask({"type": "publish", "topic": str(topic), "event": event, "data": data})

    def call(self, topic: Topic | str, action: str, data: Any = None) -> Any:
        """Run an action of a topic and return its result.

        Raises:
            CommandRefused: the user may not, there is no such action, or it refused the data.
        """
        frame = {"type": "call", "topic": str(topic), "action": action, "data": data}
        return self._ask(frame)["data"]

    def members(self, topic: Topic | str) -> list[Member]:
        """Return who is on a topic now, followed or not, in the order in which they came.

        Who has left is gone at once; outside of a test that takes a few seconds.

        Raises:
            CommandRefused: the user may not follow it, or it keeps no presence.
        """
        self._open().server.write_members()
        answer = self._ask({"type": "members", "topic": str(topic)})
        told = answer["members"]
        while answer.get("more"):
            answer = self._answer_to(answer["id"], "the other members")
            told += answer["members"]
        return [Member(**one) for one in told]

    def _ask(self, frame: Frame) -> Frame:
        """Send a command and return its answer.

        Raises:
            CommandRefused: the answer is an error.
        """
        id = next(self._ids)
        self.send_frame({"id": id, **frame})  # first, where it is read however large the rest is
        answer = self._answer_to(id, f"an answer to {frame['type']}")
        if answer["type"] == "error":
            raise CommandRefused(answer["code"], answer["message"], answer.get("retry", False))
        return answer

    def _answer_to(self, id: int, what: str) -> Frame:
        return self._wait(lambda: self._pop(lambda one: one.get("id") == id), what)

    # Frames and events

    def receive_event(self) -> Event:
        """Return the next event of the topics that are followed, in the order of arrival.

        Raises:
            AssertionError: none came.
            ConnectionEnded: none came, and the connection is closed.
        """
        frame = self.receive_frame("event")
        cursor = frame.get("cursor")
        return Event(
            topic=frame["topic"],
            name=frame["event"],
            json=encode(frame["data"]),
            cursor=None if cursor is None else Cursor.parse(cursor),
            time=frame.get("time"),
            origin=frame.get("origin"),
        )

    def assert_no_event(self) -> None:
        """Assert that no event has come but those that were received.

        Raises:
            AssertionError: one has; the text shows it.
        """
        self._ask({"type": "ping"})  # what was published before comes before the answer
        if event := next((one for one in self._frames if one["type"] == "event"), None):
            raise AssertionError(f"no event should have come; this one did: {event}")

    def send_frame(self, frame: Frame) -> None:
        """Send a frame of the wire protocol as it is.

        Raises:
            ConnectionEnded: the connection is closed.
        """
        environment = self._open()
        if self.close_code is not None:
            raise ConnectionEnded(self.close_code, self._reason)
        message = {"type": "websocket.receive", "text": json.dumps(frame, cls=DjangoJSONEncoder)}
        environment.server.call(self._inbox.put_nowait, message)

    def receive_frame(self, type: str | None = None) -> Frame:
        """Return the next frame, or the next of a type such as ``reset``; others stay.

        Raises:
            AssertionError: none came.
            ConnectionEnded: none came, and the connection is closed.
        """
        return self._wait(
            lambda: self._pop(lambda one: type in (None, one["type"])), f"a frame {type or ''}"
        )

    def _pop(self, is_wanted: Callable[[Frame], bool]) -> Frame | None:
        for frame in self._frames:
            if is_wanted(frame):
                self._frames.remove(frame)
                return frame
        return None

    def _open(self) -> Environment:
        if self._environment is None:
            raise RuntimeError("this client is not connected: use it inside `with`")
        return self._environment

    def _wait(self, look: Callable[[], T | None], what: str) -> T:
        """Run errands until there is what is wanted."""
        environment = self._open()
        refuse_event_loop("the method of the same name with an a in front")
        environment.commits.settle()
        deadline = time.monotonic() + self.timeout
        while True:
            ended = self._served.done()  # asked before looking: nothing comes behind it
            found = look()
            if found is not None:
                return found
            if ended:
                self._served.result()
                raise ConnectionEnded(self.close_code or 1006, self._reason)
            if not environment.errands.wait(deadline):
                raise AssertionError(
                    f"{what.strip()} did not come within {self.timeout:g} seconds; "
                    f"unread are {list(self._frames) or 'no other frames'}"
                )

    # For coroutines: the same in the thread where Django's synchronous code runs.

    async def __aenter__(self) -> Self:
        return await sync_to_async(self._connect)()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await sync_to_async(self._disconnect)()

    async def asubscribe(
        self,
        topic: Topic | str,
        *,
        since: Cursor | str | None = None,
        last: int | None = None,
    ) -> Frame:
        """Do as ``subscribe()`` does."""
        return await sync_to_async(self.subscribe)(topic, since=since, last=last)

    async def aunsubscribe(self, topic: Topic | str) -> None:
        """Do as ``unsubscribe()`` does."""
        await sync_to_async(self.unsubscribe)(topic)

    async def apublish(self, topic: Topic | str, event: str, data: Any = None) -> None:
        """Do as ``publish()`` does."""
        await sync_to_async(self.publish)(topic, event, data)

    async def acall(self, topic: Topic | str, action: str, data: Any = None) -> Any:
        """Do as ``call()`` does."""
        return await sync_to_async(self.call)(topic, action, data)

    async def amembers(self, topic: Topic | str) -> list[Member]:
        """Do as ``members()`` does."""
        return await sync_to_async(self.members)(topic)

    async def areceive_event(self) -> Event:
        """Do as ``receive_event()`` does."""
        return await sync_to_async(self.receive_event)()

    async def aassert_no_event(self) -> None:
        """Do as ``assert_no_event()`` does."""
        await sync_to_async(self.assert_no_event)()

    async def asend_frame(self, frame: Frame) -> None:
        """Do as ``send_frame()`` does."""
        await sync_to_async(self.send_frame)(frame)

    async def areceive_frame(self, type: str | None = None) -> Frame:
        """Do as ``receive_frame()`` does."""
        return await sync_to_async(self.receive_frame)(type)


class KnownUserConsumer(WebSocketConsumer):
    """The WebSocket consumer, for a user who is known already."""

    def __init__(self, user: Any, hub: Hub) -> None:
        super().__init__()
        self._user = user
        self._hub = hub

    def is_allowed(self, send: Send) -> bool:
        """Let it in: there is no page, and no host that it asked for."""
        return True

    async def identify(self, token: str | None = None) -> Identity:
        """Return who it is."""
        return Identity(self._user) if token is None else await super().identify(token)

    def get_hub(self) -> Hub:
        """Return the hub of the environment."""
        return self._hub
