"""A test client without a server, which follows topics as a browser does."""

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

TIMEOUT_SECONDS = 5.0  # an answer takes milliseconds; only a failing test waits this long


class RealtimeClient:
    """A client that follows topics as a user's browser does, through the real consumer and hub.

    It connects in a ``with`` block, or with ``TestCase.enterContext()``.
    It needs neither a server nor a port. Tests need no sleeps: each method waits for its answer or
    its event.
    Permission methods and actions run in the thread of the test, inside its transaction.
    For coroutines, each method has an async version with the prefix ``a``; use ``async with``.

    Args:
        user: the user of the browser; None for an anonymous user.
        timeout: seconds to wait before failing the test.

    Attributes:
        user: the user of the browser.
        timeout: seconds to wait before failing the test.
        user_id: the user's primary key as text; None for an anonymous user.
        topics: the topics that the server suggested: the user's own topic and ``everyone``.
        close_code: the code with which the connection was closed; None while it is open.
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
            raise RuntimeError("this client is already connected; create another one")
        self._environment = environment = Environment.acquire()
        self.close_code, self._reason = None, ""
        self._frames.clear()
        self._inbox: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self._inbox.put_nowait({"type": "websocket.connect"})
        try:
            self._served: Future[None] = environment.server.start(self._serve)
            self._served.add_done_callback(lambda _: environment.executor.wake())
            welcome = self.receive_frame("welcome")
        except BaseException:
            self._disconnect()
            raise
        self.user_id, self.topics = welcome["user"], welcome["topics"]
        return self

    async def _serve(self) -> None:
        assert self._environment is not None
        consumer = KnownUserConsumer(self._user_or_anonymous(), self._environment.server.hub)
        scope = {
            "type": "websocket",
            "path": "/realtime/ws",
            "query_string": b"v=1",
            "headers": [],
            "subprotocols": [],
        }
        # In this context, sync_to_async() runs its function in the test's thread.
        context = ThreadSensitiveContext()
        executors: MutableMapping[Any, Any] = SyncToAsync.context_to_thread_executor
        executors[context] = self._environment.executor
        async with context:
            try:
                await consumer(scope, self._inbox.get, self._receive)
            finally:
                if self.close_code is None:
                    self.close_code = 1006

    def _user_or_anonymous(self) -> Any:
        if self.user is None and apps.is_installed("django.contrib.auth"):
            from django.contrib.auth.models import AnonymousUser

            return AnonymousUser()
        return self.user

    async def _receive(self, message: MutableMapping[str, Any]) -> None:
        """Process what the consumer sends; runs on the hub's event loop."""
        assert self._environment is not None
        if message["type"] == "websocket.send":
            frame = json.loads(message["text"])
            if frame["type"] == "closing":
                self._reason = frame["reason"]
            self._frames.append(frame)
        elif message["type"] == "websocket.close":
            self.close_code = message.get("code", 1000)
        self._environment.executor.wake()

    def _disconnect(self) -> None:
        """Disconnect as a browser does; if the consumer failed, raise its exception."""
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
            environment.release()

    # A context manager is the only way to connect: if a test forgot to disconnect, later tests
    # would also use the store in memory.

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
        """Subscribe to a topic and return the answer; ``receive_event()`` returns its events.

        Args:
            topic: a ``Topic`` or a topic's name.
            since: resume after this cursor, or after a time: ``@`` and seconds since 1970.
            last: start with this many of the newest events.

        Returns:
            The ``subscribed`` frame, with ``cursor``, ``replayed`` and, after ``since``,
            ``recovered``.

        Raises:
            CommandRefused: the topic does not exist, or the user is not allowed to follow it.
        """
        start = {"since": None if since is None else str(since), "last": last}
        fields = {key: value for key, value in start.items() if value is not None}
        return self._ask({"type": "subscribe", "topic": str(topic), **fields})

    def unsubscribe(self, topic: Topic | str) -> None:
        """Unsubscribe from a topic."""
        self._ask({"type": "unsubscribe", "topic": str(topic)})

    def publish(self, topic: Topic | str, event: str, data: Any = None) -> None:
        """Publish a client event.

        Raises:
            CommandRefused: it is not a client event of the topic, or the user is not allowed to
                publish it.
        """
        self._ask({"type": "publish", "topic": str(topic), "event": event, "data": data})

    def call(self, topic: Topic | str, action: str, data: Any = None) -> Any:
        """Call an action of a topic and return its result.

        Raises:
            CommandRefused: the action does not exist, the user is not allowed to call it, or it
                rejected the data.
        """
        frame = {"type": "call", "topic": str(topic), "action": action, "data": data}
        return self._ask(frame)["data"]

    def members(self, topic: Topic | str) -> list[Member]:
        """Return the members of a topic, in the order in which they joined.

        The client does not have to follow the topic. A member that leaves is removed at once;
        outside of a test, that takes a few seconds.

        Raises:
            CommandRefused: the user is not allowed to follow the topic; or the topic does not track
                presence; or it has more than ``LIMITS["members"]`` members (with the code
                ``too_many_members``).
        """
        self._connected().server.write_members()
        answer = self._ask({"type": "members", "topic": str(topic)})
        if "count" in answer:
            reason = f"{topic} has {answer['count']} members, more than LIMITS['members']"
            raise CommandRefused("too_many_members", reason)
        members = answer["members"]
        while answer.get("more"):
            answer = self._answer_to(answer["id"], "the other members")
            members += answer["members"]
        return [Member(**fields) for fields in members]

    def _ask(self, frame: Frame) -> Frame:
        """Send a command and return its answer.

        Raises:
            CommandRefused: the answer is an error.
        """
        id = next(self._ids)
        # The server reads the id of a frame that is too large only if it is the first field.
        self.send_frame({"id": id, **frame})
        answer = self._answer_to(id, f"an answer to {frame['type']}")
        if answer["type"] == "error":
            raise CommandRefused(answer["code"], answer["message"], answer.get("retry", False))
        return answer

    def _answer_to(self, id: int, what: str) -> Frame:
        return self._wait(lambda: self._pop(lambda frame: frame.get("id") == id), what)

    # Frames and events

    def receive_event(self) -> Event:
        """Return the next event of all subscribed topics, in the order of arrival.

        Raises:
            AssertionError: no event arrived.
            ConnectionEnded: no event arrived, and the connection is closed.
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
        """Assert that no event has arrived that the test has not received yet.

        Raises:
            AssertionError: such an event has arrived; the message shows it.
        """
        self._ask({"type": "ping"})  # events published before the ping arrive before its answer
        if event := next((frame for frame in self._frames if frame["type"] == "event"), None):
            raise AssertionError(f"no event should have arrived, but this one did: {event}")

    def send_frame(self, frame: Frame) -> None:
        """Send a raw frame of the wire protocol.

        Raises:
            ConnectionEnded: the connection is closed.
        """
        environment = self._connected()
        if self.close_code is not None:
            raise ConnectionEnded(self.close_code, self._reason)
        message = {"type": "websocket.receive", "text": json.dumps(frame, cls=DjangoJSONEncoder)}
        environment.server.call(self._inbox.put_nowait, message)

    def receive_frame(self, type: str | None = None) -> Frame:
        """Return the next frame, or the next frame of a type such as ``reset``.

        Frames of other types are kept.

        Raises:
            AssertionError: no such frame arrived.
            ConnectionEnded: no such frame arrived, and the connection is closed.
        """
        return self._wait(
            lambda: self._pop(lambda frame: type in (None, frame["type"])),
            f"a frame {type}" if type else "a frame",
        )

    def _pop(self, matches: Callable[[Frame], bool]) -> Frame | None:
        for frame in self._frames:
            if matches(frame):
                self._frames.remove(frame)
                return frame
        return None

    def _connected(self) -> Environment:
        if self._environment is None:
            raise RuntimeError("this client is not connected: use it inside `with`")
        return self._environment

    def _wait(self, poll: Callable[[], T | None], what: str) -> T:
        """Run the calls that the consumer submits to this thread until ``poll()`` has a result."""
        environment = self._connected()
        refuse_event_loop("the method of the same name with the prefix a")
        environment.commits.run_hooks()
        deadline = time.monotonic() + self.timeout
        while True:
            has_ended = self._served.done()  # before polling, so that a last frame is not missed
            found = poll()
            if found is not None:
                return found
            if has_ended:
                self._served.result()
                raise ConnectionEnded(self.close_code or 1006, self._reason)
            if not environment.executor.run_next(deadline):
                raise AssertionError(
                    f"{what} did not arrive within {self.timeout:g} seconds; "
                    f"unread frames: {list(self._frames) or 'none'}"
                )

    # The async versions run in the thread in which Django runs synchronous code.

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
        """Async version of ``subscribe()``."""
        return await sync_to_async(self.subscribe)(topic, since=since, last=last)

    async def aunsubscribe(self, topic: Topic | str) -> None:
        """Async version of ``unsubscribe()``."""
        await sync_to_async(self.unsubscribe)(topic)

    async def apublish(self, topic: Topic | str, event: str, data: Any = None) -> None:
        """Async version of ``publish()``."""
        await sync_to_async(self.publish)(topic, event, data)

    async def acall(self, topic: Topic | str, action: str, data: Any = None) -> Any:
        """Async version of ``call()``."""
        return await sync_to_async(self.call)(topic, action, data)

    async def amembers(self, topic: Topic | str) -> list[Member]:
        """Async version of ``members()``."""
        return await sync_to_async(self.members)(topic)

    async def areceive_event(self) -> Event:
        """Async version of ``receive_event()``."""
        return await sync_to_async(self.receive_event)()

    async def aassert_no_event(self) -> None:
        """Async version of ``assert_no_event()``."""
        await sync_to_async(self.assert_no_event)()

    async def asend_frame(self, frame: Frame) -> None:
        """Async version of ``send_frame()``."""
        await sync_to_async(self.send_frame)(frame)

    async def areceive_frame(self, type: str | None = None) -> Frame:
        """Async version of ``receive_frame()``."""
        return await sync_to_async(self.receive_frame)(type)


class KnownUserConsumer(WebSocketConsumer):
    """The WebSocket consumer for a user that is given instead of authenticated."""

    def __init__(self, user: Any, hub: Hub) -> None:
        super().__init__()
        self._user = user
        self._hub = hub

    def is_allowed(self, send: Send) -> bool:
        """Allow every connection, as there is no origin or host to check."""
        return True

    async def identify(self, token: str | None = None) -> Identity:
        """Return the identity of the given user, or of the user of a token."""
        return Identity(self._user) if token is None else await super().identify(token)

    async def wait_for_turn(self) -> None:
        """Connect at once: the clients of a test share no rate limit."""

    def get_hub(self) -> Hub:
        """Return the hub of the environment."""
        return self._hub
