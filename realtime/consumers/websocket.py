"""The WebSocket transport: receive a client's commands, run them and answer.

``Dialogue`` holds the rules of the conversation; the consumer does what needs the hub, the
project's topics and the log.
Commands of one topic run in order; ``ping``, ``call`` and ``members`` neither wait for them nor
block them.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine, Mapping
from typing import Any
from urllib.parse import parse_qs

from channels.consumer import AsyncConsumer

from realtime import conf
from realtime.auth import origins, users
from realtime.auth.addresses import set_source
from realtime.consumers.handlers import (
    find_topic,
    log_failure,
    run_call,
    run_members,
    run_publish,
    welcome_for,
)
from realtime.consumers.http import HttpError
from realtime.consumers.languages import activate_language
from realtime.consumers.rate_limits import limit_request
from realtime.exceptions import ProtocolError
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
from realtime.protocol.frames import CloseCode, ErrorCode, check_version
from realtime.repeated_errors import log_error
from realtime.topics import Topic
from realtime.writers.asgi import Send
from realtime.writers.daphne import FrameGuard, is_secure, writer_for

__all__ = ["WebSocketConsumer"]

# Seconds after which a client that was refused with ``BUSY`` may reconnect; random, so that the
# reconnects are spread.
BUSY_RETRY = (2.0, 10.0)
# Frames that are handled before other clients get a turn; a command takes about 0.1 ms.
FRAMES_IN_A_ROW = 10
NO_HANDSHAKE = (
    "this WebSocket has no headers of a handshake, not even Host, so it comes from a test: connect "
    "with realtime.testing.RealtimeClient, which needs no headers, instead of "
    "channels.testing.WebsocketCommunicator"
)


class WebSocketConsumer(AsyncConsumer):
    """Serves one WebSocket; an instance lives as long as its connection.

    It replaces ``AsyncConsumer.__call__``, which joins the channel layer once per client and starts
    a task and a thread call for every message; the hub joins once per process.

    Attributes:
        identity: who the client is; an ``auth`` changes it.
        dialogue: the state of the conversation.
        connection: the client in the hub.
        guard: limits the client's frames on Daphne.
        tasks: the commands that are running.
        last_auth: the task of the last ``auth``, for which later commands wait.
        last_of_topic: by topic: the task of its last command, for which the next one waits.
        closing: the task that closes the socket, once ``close()`` was called.
        expiry: closes the connection when the client's token expires.
    """

    dialogue: Dialogue
    connection: Connection
    guard: FrameGuard

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Send) -> None:
        """Run the connection from the handshake to the disconnect."""
        self.scope = scope
        limits = conf.get().limits
        self.guard = FrameGuard(send, limits)
        await receive()  # websocket.connect
        if not self.is_allowed(send):
            if not origins.is_handshake(scope):
                raise RuntimeError(NO_HANDSHAKE)
            # Close before the accept, so that a foreign page learns nothing.
            await send({"type": "websocket.close", "code": int(CloseCode.FORBIDDEN)})
            return
        activate_language(scope)
        set_source(scope, id(self))
        refused: ProtocolError | None = None
        try:
            self.identity = await self.identify()
            await self.wait_for_turn()
        except ProtocolError as error:  # sent after the accept, when a client can read it
            refused, self.identity = error, users.Identity(None)
        await send({"type": "websocket.accept"})
        self.tasks: set[asyncio.Task[None]] = set()
        self.last_auth: asyncio.Task[None] | None = None
        self.last_of_topic: dict[str, asyncio.Task[None]] = {}
        self.closing: asyncio.Task[None] | None = None
        self.expiry = users.Expiry(users.Identity(None), lambda: None)
        self._task = asyncio.current_task()
        self._is_closed = False
        self.dialogue = Dialogue(limits)
        self.connection = Connection(
            self.get_hub(), self.identity.user, writer_for(send), limits.buffer_bytes, self.close
        )
        self.guard.begin(self.connection.writer)
        try:
            if refused is not None:
                self.refuse(refused)
            elif self.greet():
                self.begin_expiry(self.identity)
                await self.converse(receive)
            if self.closing is not None:
                await asyncio.wait([self.closing])
        except asyncio.CancelledError:
            if not self._is_closed:
                raise
        finally:
            self.end()

    def is_allowed(self, send: Send) -> bool:
        """Tell whether the page that opened the WebSocket may connect."""
        return origins.is_allowed(self.scope, is_secure(send))

    async def identify(self, token: str | None = None) -> users.Identity:
        """Return who the client is.

        Raises:
            ProtocolError: the token is refused, or authentication failed.
        """
        return await users.identify(self.scope, token)

    async def wait_for_turn(self) -> None:
        """Wait until the rate of the client's requests permits the handshake.

        Raises:
            ProtocolError: the wait would be too long.
        """
        try:
            delay = limit_request(self.scope, self.identity.user)
        except HttpError as error:
            reason = f"{error.reason}; connect again later"
            raise ProtocolError(ErrorCode.RATE_LIMITED, reason, close_code=CloseCode.BUSY) from None
        if delay:
            await asyncio.sleep(delay)

    def get_hub(self) -> Hub:
        """Return the hub of this process."""
        return get_hub()

    def greet(self) -> bool:
        """Send the welcome; return False if the client uses another protocol version."""
        query = parse_qs(self.scope.get("query_string", b"").decode("latin-1"))
        try:
            check_version(query.get("v", [None])[0])
        except ProtocolError as error:
            self.refuse(error)
            return False
        self.answer(welcome_for(self.connection.id, self.identity))
        return True

    async def converse(self, receive: Any) -> None:
        """Receive frames until the client disconnects."""
        loop = asyncio.get_running_loop()
        for number in itertools.count(1):
            self.guard.read_on()
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            if not number % FRAMES_IN_A_ROW:
                await asyncio.sleep(0)
            try:
                if (text := message.get("text")) is None:
                    self.dialogue.receive_bytes(message.get("bytes") or b"")
                elif (command := self.dialogue.receive_text(text, loop.time())) is not None:
                    self.begin(command)
            except ProtocolError as error:
                self.refuse(error)

    def answer(self, text: str) -> None:
        """Write a frame that answers the client."""
        self.connection.answer(Frame(text))

    def refuse(self, error: ProtocolError) -> None:
        """Send an error, and close if the error has a close code."""
        self.answer(self.dialogue.error(error))
        if error.close_code is not None:
            self.close(CloseCode(error.close_code))

    def close(self, code: CloseCode) -> None:
        """Send the reason, then close; later calls do nothing."""
        if self.closing is not None:
            return
        retry_after = round(random.uniform(*BUSY_RETRY), 1) if code is CloseCode.BUSY else None
        text = self.dialogue.closing(code, retry_after)
        self.connection.push(Frame(text))
        self.closing = asyncio.get_running_loop().create_task(self._close(code))

    async def _close(self, code: CloseCode) -> None:
        await self.connection.writer.close(int(code))
        # If the server's send() blocks because the client does not read, the server can neither
        # close nor report a disconnect. It cuts the connection when the application returns.
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()

    def begin_expiry(self, identity: users.Identity) -> None:
        """Close when this identity expires, instead of when the previous one does."""
        self.expiry.cancel()
        self.expiry = users.Expiry(identity, lambda: self.close(CloseCode.SIGNED_OUT))

    def end(self) -> None:
        """Stop the tasks and remove the connection from the hub."""
        self.guard.close()
        self.expiry.cancel()
        for task in (*self.tasks, self.closing):
            if task is not None:
                task.cancel()
        self.connection.end()

    # Commands

    def begin(self, command: Command) -> None:
        """Start a command, which runs after earlier commands of its topic."""
        match command:
            case Ping():
                self.answer(self.dialogue.pong(command))
            case Auth():
                # Later commands run with the new identity; several `auth` commands run in order.
                self.last_auth = self._spawn(self._run_after(self.last_auth, None, command))
            case Call() | Members():
                self._spawn(self._run_after(self.last_auth, None, command))
            case _:
                previous = self.last_of_topic.get(command.topic)
                task = self._spawn(self._run_after(self.last_auth, previous, command))
                self.last_of_topic[command.topic] = task
                task.add_done_callback(lambda done: self._forget(command.topic, done))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in a task, which is cancelled when the connection ends."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def _forget(self, topic: str, task: asyncio.Task[None]) -> None:
        """Forget the last command of a topic, unless another command followed it."""
        if self.last_of_topic.get(topic) is task:
            del self.last_of_topic[topic]

    async def _run_after(
        self,
        auth: asyncio.Task[None] | None,
        previous: asyncio.Task[None] | None,
        command: Command,
    ) -> None:
        """Run a command once the last ``auth`` and the previous command of its topic are done."""
        if waiting := [task for task in (auth, previous) if task is not None and not task.done()]:
            await asyncio.wait(waiting)
        await self.run(command)

    async def run(self, command: Command) -> None:
        """Run a command and answer it, even if it fails."""
        try:
            match command:
                case Subscribe():
                    await self._subscribe(command)  # which answers it, right before the replay
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
                    pass  # answered by begin()
        except Exception as error:
            self.answer(self.dialogue.refused(command, error))
            log_failure(command, error)  # last: the repr() of a topic's odd value can fail

    async def _members(self, command: Members) -> None:
        """Send the members of a topic, which the client need not follow."""
        member_list = await run_members(self.identity, command)
        members = list(member_list.members.values())
        version, count = member_list.cursor.seq, member_list.count
        for text in self.dialogue.members(command, members, version, count=count):
            self.answer(text)

    async def _subscribe(self, command: Subscribe) -> None:
        """Subscribe to a topic; the answer is sent right before the replay."""
        identity = self.identity
        topic = find_topic(command.topic, identity)
        if not await topic.may_subscribe(identity.user):
            raise forbidden()
        live = await self.connection.hub.follow(topic)
        subscription = Subscription(self.connection, live)
        if self.identity is not identity:  # an `auth` has run; check the new user's permission
            subscription.end()
            await self._subscribe(command)
            return

        is_announced = False

        # `start()` cannot fail after it has called this, so the command gets exactly one answer.
        def announce(cursor: Cursor, recovered: bool | None, replayed: int) -> None:
            nonlocal is_announced
            is_announced = True
            text = self.dialogue.subscribed(command, cursor, recovered=recovered, replayed=replayed)
            kind = Kind.RESET if recovered is False else Kind.OTHER
            self.connection.answer(Frame(text, (command.topic, cursor), kind))

        try:
            await self._prepare_presence(subscription, topic)
            await subscription.start(command.since, command.last, topic.history, announce)
        except BaseException:
            subscription.end()
            raise
        if not is_announced:
            raise forbidden()  # an `auth` has run, and the new user may not follow the topic
        if self.identity is not identity:
            await self._restart_presence(subscription, topic)
        elif subscription.presence is not None:
            subscription.presence.start()

    async def _authenticate(self, command: Auth) -> None:
        """Change the identity, and unsubscribe from the topics that the new user may not follow.

        The old identity stays until all permissions are known; then everything changes in one turn
        of the loop. So the new user may see every frame that follows the answer.
        """
        try:
            identity = await self.identify(command.token)
        except ProtocolError as error:
            error.close_code = None  # the connection goes on with its old identity
            raise
        self.begin_expiry(identity)  # now: the old token can expire while permissions are checked
        try:
            permitted = await self._check_permissions(identity)
        except ProtocolError:
            self.begin_expiry(self.identity)  # the connection goes on with its old identity
            raise
        self.identity = identity
        self.connection.user = identity.user
        kept = {one: topic for one, topic in permitted.items() if topic and not one.ended}
        lost = [one for one in permitted if one not in kept and not one.ended]
        for subscription in lost:
            subscription.end()
        self.answer(self.dialogue.ok(command))
        self.answer(welcome_for(self.connection.id, identity))
        for subscription in lost:
            if subscription.position is not None:  # else its `subscribe` answers with an error
                self.answer(self.dialogue.withdrawn(subscription.topic.name))
        # A `subscribe` that is not answered yet starts its presence itself.
        started = [one for one in kept if one.presence and one.position is not None]
        await asyncio.gather(*(self._restart_presence(one, kept[one]) for one in started))

    async def _check_permissions(
        self, identity: users.Identity
    ) -> dict[Subscription, Topic | None]:
        """Return the topic of each subscription; None if the identity may not follow it.

        All are checked concurrently, then those that an earlier ``subscribe`` has added since.
        """
        permitted: dict[Subscription, Topic | None] = {}
        subscriptions = self.connection.subscriptions
        while added := [one for one in subscriptions.values() if one not in permitted]:
            topics = await asyncio.gather(*(_permitted(one.topic.name, identity) for one in added))
            permitted.update(zip(added, topics, strict=True))
        return permitted

    async def _prepare_presence(
        self, subscription: Subscription, topic: Topic
    ) -> PresenceSubscription | None:
        """Prepare the presence of the current user; None if the topic keeps no presence."""
        if not topic.presence:
            return None
        live = await self.connection.hub.follow_presence(topic)
        presence = subscription.add_presence(topic, live, STREAM_HOLD_SECONDS, self.connection.id)
        await presence.prepare()
        return presence

    async def _restart_presence(self, subscription: Subscription, topic: Topic) -> None:
        """Replace the presence of the previous user by that of the current one.

        The command is answered already, so a failure closes the connection: the client reconnects
        and receives the members. If the client stayed connected, it would miss changes unnoticed.
        """
        try:
            presence = await self._prepare_presence(subscription, topic)
        except Exception as error:
            log_error((type(topic), "members"), error, "sending the members of %s failed", topic)
            self.close(CloseCode.FAILED)
            return
        if presence is not None:
            presence.start()  # does nothing if another `auth` has replaced it meanwhile

    def _unsubscribe(self, command: Unsubscribe) -> None:
        """Unsubscribe from a topic; answer even if the client did not follow the topic."""
        subscription = self.connection.subscriptions.get(command.topic)
        if subscription is not None:
            subscription.end()
        self.answer(self.dialogue.unsubscribed(command))


async def _permitted(name: str, identity: users.Identity) -> Topic | None:
    """Return a topic; None if the identity may not follow it."""
    try:
        topic = find_topic(name, identity)
    except ProtocolError as error:
        if ErrorCode(error.code).retry:
            raise
        return None
    return topic if await topic.may_subscribe(identity.user) else None
