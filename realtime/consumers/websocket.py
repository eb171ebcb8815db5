"""The WebSocket transport: one client's frames in, commands run, frames out.

The rules of the conversation are ``Dialogue``'s; here is what needs the hub, the project's topics
and the log.
Commands of one topic run in order; a ``ping`` and a ``call`` wait for nothing and block nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any
from urllib.parse import parse_qs

from channels.consumer import AsyncConsumer
from django.core.exceptions import PermissionDenied, ValidationError

from realtime import conf
from realtime.auth import origins, users
from realtime.commands import Auth, Call, Command, Members, Ping, Publish, Subscribe, Unsubscribe
from realtime.dialogue import Dialogue, forbidden
from realtime.events import Cursor, Draft
from realtime.exceptions import InvalidTopicName, ProtocolError, RealtimeError
from realtime.frames import CloseCode, ErrorCode, check_version, welcome
from realtime.hub import get_hub
from realtime.hub.connection import Connection, Subscription
from realtime.publishing import encode, publish_draft
from realtime.topics import Topic, find, run_user_code, user_topic
from realtime.writers.asgi import Send
from realtime.writers.daphne import is_secure, writer_for

__all__ = ["WebSocketConsumer"]

logger = logging.getLogger("realtime")


class WebSocketConsumer(AsyncConsumer):
    """Serves one WebSocket; an instance lives as long as its connection.

    ``AsyncConsumer.__call__`` would join the channel layer once per client and make a task and a
    visit to a thread of every message; the hub joins once per process, so both are replaced.
    """

    dialogue: Dialogue
    connection: Connection

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Send) -> None:
        """Run the connection from handshake to end."""
        self.scope = dict(scope)
        await receive()  # websocket.connect
        if not origins.is_allowed(scope, is_secure(send)):
            # Before the accept, so that a foreign page learns nothing.
            await send({"type": "websocket.close", "code": int(CloseCode.FORBIDDEN)})
            return
        user = await users.user_of(scope)
        await send({"type": "websocket.accept"})
        self.tasks: set[asyncio.Task[None]] = set()
        self.last_of_topic: dict[str, asyncio.Task[None]] = {}
        self.closing: asyncio.Task[None] | None = None
        self._task = asyncio.current_task()
        self._left = False
        limits = conf.get().limits
        self.dialogue = Dialogue(limits)
        self.connection = Connection(
            get_hub(), user, writer_for(send), limits.buffer_bytes, self.close
        )
        try:
            if self.greet():
                await self.converse(receive)
            if self.closing is not None:
                await asyncio.wait([self.closing])
        except asyncio.CancelledError:
            if not self._left:
                raise
        finally:
            self.end()

    def greet(self) -> bool:
        """Send the welcome; False if the client speaks another version."""
        query = parse_qs(self.scope.get("query_string", b"").decode("latin-1"))
        try:
            check_version(query.get("v", [None])[0])
        except ProtocolError as error:
            self.refuse(error)
            return False
        user = self.connection.user
        signed_in = user is not None and user.is_authenticated
        key = str(user.pk) if signed_in else None
        topics = [str(user_topic(user)), "everyone"] if signed_in else []
        self.connection.answer(welcome(self.connection.id, key, topics))
        return True

    async def converse(self, receive: Any) -> None:
        """Take frames until the client is gone."""
        loop = asyncio.get_running_loop()
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                if (text := message.get("text")) is None:
                    self.dialogue.receive_bytes(message.get("bytes") or b"")
                elif (command := self.dialogue.receive_text(text, loop.time())) is not None:
                    self.begin(command)
            except ProtocolError as error:
                self.refuse(error)

    def refuse(self, error: ProtocolError) -> None:
        """Say what was wrong, and close where the error says so."""
        self.connection.answer(self.dialogue.error(error))
        if error.close_code is not None:
            self.close(CloseCode(error.close_code))

    def close(self, code: CloseCode) -> None:
        """Say why, then close; only the first reason counts."""
        if self.closing is not None:
            return
        text = self.dialogue.closing(code)
        self.connection.push(text, len(text))
        self.closing = asyncio.get_running_loop().create_task(self._close(code))

    async def _close(self, code: CloseCode) -> None:
        await self.connection.writer.close(int(code))
        # A server whose send() waits for the client can neither tell a client that does not read
        # nor hear of its end. When the application leaves, the server cuts the connection.
        self._left = True
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """Give back all that the connection held."""
        for task in (*self.tasks, self.closing):
            if task is not None:
                task.cancel()
        self.connection.end()

    # Commands

    def begin(self, command: Command) -> None:
        """Run a command, after those of its topic that came before."""
        match command:
            case Ping():
                self.connection.answer(self.dialogue.pong(command))
            case Call() | Auth() | Members():
                self._spawn(self.run(command))
            case _:
                before = self.last_of_topic.get(command.topic)
                task = self._spawn(self._run_after(before, command))
                self.last_of_topic[command.topic] = task
                task.add_done_callback(lambda done: self._forget(command.topic, done))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine that ends with the connection at the latest."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def _forget(self, topic: str, task: asyncio.Task[None]) -> None:
        """Let the topic's last command go, unless another came behind it."""
        if self.last_of_topic.get(topic) is task:
            del self.last_of_topic[topic]

    async def _run_after(self, before: asyncio.Task[None] | None, command: Command) -> None:
        """Run a command once the one before it is done."""
        if before is not None:
            await asyncio.wait([before])
        await self.run(command)

    async def run(self, command: Command) -> None:
        """Run a command and answer it, whatever happens."""
        try:
            match command:
                case Subscribe():
                    await self._subscribe(command)  # answers itself, right before the replay
                case Unsubscribe():
                    self._unsubscribe(command)
                case Publish():
                    await self._publish(command)
                    self.connection.answer(self.dialogue.ok(command))
                case Call():
                    result = encode(await self._call(command))
                    self.connection.answer(self.dialogue.result(command, result))
                case _:
                    reason = "this server keeps no presence and takes no tokens"
                    raise ProtocolError(ErrorCode.UNSUPPORTED, reason, id=command.id)
        except Exception as error:
            if not isinstance(error, RealtimeError):
                logger.exception("a client's %s failed", type(command).__name__.lower())
            self.connection.answer(self.dialogue.refused(command, error))

    def _topic(self, name: str) -> Topic:
        """Return the topic of a name; refused alike if it does not exist or is not allowed."""
        try:
            topic = find(name)
        except InvalidTopicName:
            topic = None
        if topic is None:
            raise forbidden()
        return topic

    async def _subscribe(self, command: Subscribe) -> None:
        """Follow a topic; the answer comes right before the replay."""
        topic = self._topic(command.topic)
        if not await topic.may_subscribe(self.connection.user):
            raise forbidden()
        live = await self.connection.hub.follow(topic)
        subscription = Subscription(self.connection, live)

        # `start()` calls it as its last act but one, which cannot fail: one answer a command.
        def announce(cursor: Cursor, recovered: bool | None, replayed: int) -> None:
            text = self.dialogue.subscribed(command, cursor, recovered=recovered, replayed=replayed)
            self.connection.answer(text)

        try:
            await subscription.start(command.since, command.last, topic.history, announce)
        except BaseException:
            subscription.end()
            raise

    def _unsubscribe(self, command: Unsubscribe) -> None:
        """Leave a topic, whether it was followed or not."""
        subscription = self.connection.subscriptions.get(command.topic)
        if subscription is not None:
            subscription.end()
        self.connection.answer(self.dialogue.unsubscribed(command))

    async def _publish(self, command: Publish) -> None:
        """Publish a client's event, if the topic and its authoriser let it."""
        topic = self._topic(command.topic)
        if not await topic.may_publish(self.connection.user, command.event):
            raise forbidden()
        ephemeral = command.event in topic.client_events
        draft = Draft(command.event, encode(command.data))
        await publish_draft(topic, draft, ephemeral=ephemeral)

    async def _call(self, command: Call) -> Any:
        """Return what an action returned; its refusals become the protocol's."""
        topic = self._topic(command.topic)
        user = self.connection.user
        if not await topic.may_subscribe(user):
            raise forbidden()
        method = topic.get_action(command.action)
        if method is None:
            raise ProtocolError(ErrorCode.UNKNOWN_ACTION, "this topic has no such action")
        try:
            return await run_user_code(method, user, command.data)
        except PermissionDenied as error:
            raise forbidden() from error
        except ValidationError as error:
            raise ProtocolError(ErrorCode.INVALID, "; ".join(error.messages)) from error
