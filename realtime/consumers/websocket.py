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

from realtime import conf
from realtime.auth import origins, users
from realtime.consumers.handlers import (
    find_topic,
    greeting,
    run_call,
    run_members,
    run_publish,
)
from realtime.exceptions import ProtocolError, RealtimeError
from realtime.hub import Hub, get_hub
from realtime.hub.connection import Connection, Subscription
from realtime.hub.member_writer import STREAM_HOLD_SECONDS
from realtime.hub.presence import PresenceSubscription
from realtime.protocol.commands import (
    Auth,
    Call,
    Command,
    Members,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
)
from realtime.protocol.dialogue import Dialogue, forbidden
from realtime.protocol.encoders import Frame, Kind
from realtime.protocol.events import Cursor
from realtime.protocol.frames import CloseCode, check_version
from realtime.topics import Topic
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
        self.scope = scope
        await receive()  # websocket.connect
        if not self.is_allowed(send):
            # Before the accept, so that a foreign page learns nothing.
            await send({"type": "websocket.close", "code": int(CloseCode.FORBIDDEN)})
            return
        refused: ProtocolError | None = None
        try:
            self.identity = await self.identify()
        except ProtocolError as error:  # said after the accept, or nobody would hear of it
            refused, self.identity = error, users.Identity(None)
        await send({"type": "websocket.accept"})
        self.tasks: set[asyncio.Task[None]] = set()
        self.last_auth: asyncio.Task[None] | None = None
        self.last_of_topic: dict[str, asyncio.Task[None]] = {}
        self.closing: asyncio.Task[None] | None = None
        self.expiry = users.Expiry(users.Identity(None), lambda: None)
        self._task = asyncio.current_task()
        self._left = False
        limits = conf.get().limits
        self.dialogue = Dialogue(limits)
        self.connection = Connection(
            self.get_hub(), self.identity.user, writer_for(send), limits.buffer_bytes, self.close
        )
        try:
            if refused is not None:
                self.refuse(refused)
            elif self.greet():
                self.begin_expiry(self.identity)
                await self.converse(receive)
            if self.closing is not None:
                await asyncio.wait([self.closing])
        except asyncio.CancelledError:
            if not self._left:
                raise
        finally:
            self.end()

    def is_allowed(self, send: Send) -> bool:
        """Tell whether the page that asks may connect."""
        return origins.is_allowed(self.scope, is_secure(send))

    async def identify(self, token: str | None = None) -> users.Identity:
        """Return whose connection it is.

        Raises:
            ProtocolError: the token is refused.
        """
        return await users.identify(self.scope, token)

    def get_hub(self) -> Hub:
        """Return the hub that serves it."""
        return get_hub()

    def greet(self) -> bool:
        """Send the welcome; False if the client speaks another version."""
        query = parse_qs(self.scope.get("query_string", b"").decode("latin-1"))
        try:
            check_version(query.get("v", [None])[0])
        except ProtocolError as error:
            self.refuse(error)
            return False
        self.answer(greeting(self.connection.id, self.identity))
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

    def answer(self, text: str) -> None:
        """Write a frame that was asked for."""
        self.connection.answer(Frame(text))

    def refuse(self, error: ProtocolError) -> None:
        """Say what was wrong, and close where the error says so."""
        self.answer(self.dialogue.error(error))
        if error.close_code is not None:
            self.close(CloseCode(error.close_code))

    def close(self, code: CloseCode) -> None:
        """Say why, then close; only the first reason counts."""
        if self.closing is not None:
            return
        text = self.dialogue.closing(code)
        self.connection.push(Frame(text))
        self.closing = asyncio.get_running_loop().create_task(self._close(code))

    async def _close(self, code: CloseCode) -> None:
        await self.connection.writer.close(int(code))
        # A server whose send() waits for the client can neither tell a client that does not read
        # nor hear of its end. When the application leaves, the server cuts the connection.
        self._left = True
        if self._task is not None:
            self._task.cancel()

    def begin_expiry(self, identity: users.Identity) -> None:
        """Close when the token ends, and no more when the one before it does."""
        self.expiry.cancel()
        self.expiry = users.Expiry(identity, lambda: self.close(CloseCode.SIGNED_OUT))

    def end(self) -> None:
        """Give back all that the connection held."""
        self.expiry.cancel()
        for task in (*self.tasks, self.closing):
            if task is not None:
                task.cancel()
        self.connection.end()

    # Commands

    def begin(self, command: Command) -> None:
        """Run a command, after those of its topic that came before."""
        match command:
            case Ping():
                self.answer(self.dialogue.pong(command))
            case Auth():
                # What comes behind it runs as whom it names, and two do not overtake each other.
                self.last_auth = self._spawn(self._run_after(self.last_auth, None, command))
            case Call() | Members():
                self._spawn(self._run_after(self.last_auth, None, command))
            case _:
                before = self.last_of_topic.get(command.topic)
                task = self._spawn(self._run_after(self.last_auth, before, command))
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

    async def _run_after(
        self,
        auth: asyncio.Task[None] | None,
        before: asyncio.Task[None] | None,
        command: Command,
    ) -> None:
        """Run a command once the ``auth`` and the command of its topic before it are done."""
        if waiting := [task for task in (auth, before) if task is not None and not task.done()]:
            await asyncio.wait(waiting)
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
                    await run_publish(self.identity, command)
                    self.answer(self.dialogue.ok(command))
                case Call():
                    result = await run_call(self.identity, command)
                    self.answer(self.dialogue.result(command, result))
                case Members():
                    await self._members(command)
                case Auth():
                    await self._authenticate(command)
                case Ping():
                    pass  # answered at once, in its place
        except Exception as error:
            if not isinstance(error, RealtimeError):
                logger.exception("a client's %s failed", type(command).__name__.lower())
            self.answer(self.dialogue.refused(command, error))

    async def _members(self, command: Members) -> None:
        """Tell who is on a topic, followed or not."""
        roster = await run_members(self.identity, command)
        members = list(roster.members.values())
        for text in self.dialogue.members(command, members, roster.cursor.seq):
            self.answer(text)

    async def _subscribe(self, command: Subscribe) -> None:
        """Follow a topic; the answer comes right before the replay."""
        identity = self.identity
        topic = find_topic(command.topic, identity)
        if not await topic.may_subscribe(identity.user):
            raise forbidden()
        live = await self.connection.hub.follow(topic)
        subscription = Subscription(self.connection, live)
        if self.identity is not identity:  # it became somebody else, who has to be asked
            subscription.end()
            await self._subscribe(command)
            return

        is_announced = False

        # `start()` calls it as its last act but one, which cannot fail: one answer a command.
        def announce(cursor: Cursor, recovered: bool | None, replayed: int) -> None:
            nonlocal is_announced
            is_announced = True
            text = self.dialogue.subscribed(command, cursor, recovered=recovered, replayed=replayed)
            kind = Kind.RESET if recovered is False else Kind.OTHER
            self.connection.answer(Frame(text, (command.topic, cursor), kind))

        try:
            await self._attend(subscription, topic)
            await subscription.start(command.since, command.last, topic.history, announce)
        except BaseException:
            subscription.end()
            raise
        if not is_announced:
            raise forbidden()  # an `auth` in between made it somebody's who may not
        if self.identity is not identity:
            await self._attend_anew(subscription, topic)
        elif subscription.presence is not None:
            subscription.presence.begin()

    async def _authenticate(self, command: Auth) -> None:
        """Become who the token says, and leave the topics that this one may not follow.

        Until every topic was asked it stays who it was; then it changes in one turn of the loop,
        so that nothing which the new one may not see is behind the answer.
        """
        try:
            identity = await self.identify(command.token)
        except ProtocolError as error:
            error.close_code = None  # who it was before, it still is
            raise
        self.begin_expiry(identity)  # the old token may end while topics are asked: a new one came
        permitted = await self._ask_anew(identity)
        self.identity = identity
        self.connection.user = identity.user
        kept = {one: topic for one, topic in permitted.items() if topic and not one.ended}
        lost = [one for one in permitted if one not in kept and not one.ended]
        for subscription in lost:
            subscription.end()
        self.answer(self.dialogue.ok(command))
        self.answer(greeting(self.connection.id, identity))
        for subscription in lost:
            if subscription.position is not None:  # else its `subscribe` answers that it may not
                self.answer(self.dialogue.withdrawn(subscription.topic.name))
        # Those that are not answered yet are begun by their `subscribe`.
        attending = [one for one in kept if one.presence and one.position is not None]
        await asyncio.gather(*(self._attend_anew(one, kept[one]) for one in attending))

    async def _ask_anew(self, identity: users.Identity) -> dict[Subscription, Topic | None]:
        """Return the topic of each subscription, None where another identity may not follow it.

        They are asked all at once; those that begin meanwhile, by an earlier ``subscribe``, after.
        """
        permitted: dict[Subscription, Topic | None] = {}
        following = self.connection.subscriptions
        while asking := [one for one in following.values() if one not in permitted]:
            topics = await asyncio.gather(*(_permitted(one.topic.name, identity) for one in asking))
            permitted.update(zip(asking, topics, strict=True))
        return permitted

    async def _attend(
        self, subscription: Subscription, topic: Topic
    ) -> PresenceSubscription | None:
        """Prepare to be on a topic as who the connection is now; None where it has no presence."""
        if not topic.presence:
            return None
        live = await self.connection.hub.follow_presence(topic)
        attendance = subscription.attend(topic, live, STREAM_HOLD_SECONDS, self.connection.id)
        await attendance.prepare()
        return attendance

    async def _attend_anew(self, subscription: Subscription, topic: Topic) -> None:
        """Be on a topic as who the connection has become, instead of as whom it was.

        Its command is answered, so that a failure ends the connection: a client that comes back is
        told who is there, and one that stays would not know that it is told no more.
        """
        try:
            attendance = await self._attend(subscription, topic)
        except Exception as error:
            logger.error("telling who is on %s failed", topic, exc_info=error)
            self.close(CloseCode.FAILED)
            return
        if attendance is not None:  # which another one may have replaced; then this does nothing
            attendance.begin()

    def _unsubscribe(self, command: Unsubscribe) -> None:
        """Leave a topic, whether it was followed or not."""
        subscription = self.connection.subscriptions.get(command.topic)
        if subscription is not None:
            subscription.end()
        self.answer(self.dialogue.unsubscribed(command))


async def _permitted(name: str, identity: users.Identity) -> Topic | None:
    """Return a topic, if a client may follow it."""
    try:
        topic = find_topic(name, identity)
    except ProtocolError:
        return None
    return topic if await topic.may_subscribe(identity.user) else None
