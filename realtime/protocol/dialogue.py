"""The conversation with one client, without I/O.

A ``Dialogue`` takes the text of each frame that arrives and returns a command, or raises
``ProtocolError``; it returns the text of each frame that answers.
It owns what the conversation knows: the topics, the commands without an answer, the rate, whether
the end was announced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from realtime.exceptions import (
    InvalidData,
    InvalidTopicName,
    PresenceDisabled,
    ProtocolError,
    PublishError,
    StoreError,
    UnknownTopic,
)
from realtime.protocol.commands import (
    Auth,
    Call,
    Command,
    Members,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
    parse,
)
from realtime.protocol.events import Cursor
from realtime.protocol.frames import MEMBERS_CHARACTERS, CloseCode, ErrorCode, frame, members_frames

__all__ = ["BAD_FRAMES", "Bucket", "Dialogue", "Limits", "forbidden", "refusal"]

BAD_FRAMES = 10  # in a row: a person typing is still answered, a broken program is not


class Limits(Protocol):
    """The limits that a dialogue keeps, all of one connection."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame that a client sends."""

    @property
    def topics(self) -> int:
        """Topics that are followed at a time."""

    @property
    def commands_per_second(self) -> int:
        """Commands a second in the long run."""

    @property
    def commands_burst(self) -> int:
        """Commands at once after a pause."""

    @property
    def pending(self) -> int:
        """Commands without an answer, other than subscribe and unsubscribe."""


def forbidden(id: int | None = None) -> ProtocolError:
    """Return the one refusal, whether the topic is unknown or the user may not follow it."""
    reason = "this topic does not exist, or you may not do this with it"
    return ProtocolError(ErrorCode.FORBIDDEN, reason, id=id)


def refusal(error: Exception, id: int | None = None) -> ProtocolError:
    """Say why a command failed in the protocol's words, and give nothing else away."""
    match error:
        case ProtocolError():
            error.id = id if error.id is None else error.id
            return error
        case UnknownTopic() | InvalidTopicName():
            return forbidden(id)
        case PresenceDisabled():
            reason = "this topic does not tell who is on it"
            return ProtocolError(ErrorCode.UNSUPPORTED, reason, id=id)
        case InvalidData():
            return ProtocolError(ErrorCode.BAD_DATA, str(error), id=id)
        case StoreError() | PublishError():
            reason = "the server cannot reach its log now; try again in a few seconds"
            return ProtocolError(ErrorCode.UNAVAILABLE, reason, id=id)
        case _:
            reason = "the server failed to run this command; its log says why"
            return ProtocolError(ErrorCode.FAILED, reason, id=id)


class Bucket:
    """A token bucket; full at first."""

    __slots__ = ("burst", "filled", "level", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self.level = burst
        self.filled = 0.0

    def take(self, now: float) -> bool:
        """Take a token if one is there; ``now`` is any clock in seconds that does not go back."""
        return self.reserve(now, 0.0) <= 0.0

    def reserve(self, now: float, patience: float) -> float:
        """Return in how many seconds a token is there, and take it if that is soon enough.

        Args:
            now: any clock in seconds that does not go back.
            patience: seconds until a token that is taken has to be there; it is lent till then.
        """
        self.level = min(self.burst, self.level + max(0.0, now - self.filled) * self.rate)
        self.filled = max(self.filled, now)
        wait = max(0.0, 1 - self.level) / self.rate
        if wait <= patience:
            self.level -= 1
        return wait


class Dialogue:
    """The conversation with one client; not thread-safe, it belongs to one event loop.

    Every command that ``receive_text()`` returns is answered once: by ``subscribed()``,
    ``unsubscribed()``, ``ok()``, ``result()``, ``members()`` or ``pong()``, or by ``refused()``.

    Attributes:
        is_closing: the end was announced or decided; what the client still sends is passed over.
    """

    __slots__ = (
        "_bad_frames",
        "_commands",
        "_open_following",
        "_open_others",
        "_pending",
        "_refusals",
        "_subscribed",
        "is_closing",
        "limits",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.is_closing = False
        self._pending: dict[str, Subscribe] = {}
        self._subscribed: set[str] = set()
        # Following is bounded by the topics, so that a page that subscribes to all of them at once
        # is not refused; it is counted only against leaving and joining in a circle.
        self._open_following = 0
        self._open_others = 0
        self._bad_frames = 0
        self._commands = Bucket(limits.commands_per_second, limits.commands_burst)
        # As much again is refused politely; who sends twice the rate for long is not listening.
        self._refusals = Bucket(limits.commands_per_second, limits.commands_burst)

    @property
    def topics(self) -> frozenset[str]:
        """The topics that are followed or will be once their subscribe is answered."""
        return frozenset(self._subscribed.union(self._pending))

    def receive_text(self, text: str, now: float) -> Command | None:
        """Take a text frame; return its command, or None if it came after the end.

        Args:
            text: the frame as it came.
            now: seconds on any clock that does not go back.

        Raises:
            ProtocolError: send ``error(…)`` of it; then, if it has a ``close_code``, send
                ``closing(…)`` of that and close with it.
        """
        if self.is_closing:
            return None
        try:
            command = self._receive(text, now)
        except ProtocolError as error:
            self.is_closing = error.close_code is not None
            raise
        return command

    def receive_bytes(self, data: bytes) -> None:
        """Take a binary frame, which ends the conversation.

        Raises:
            ProtocolError: as in ``receive_text()``.
        """
        if not self.is_closing:
            self.is_closing = True
            reason = "send JSON in text frames; binary frames are not part of this protocol"
            raise ProtocolError(ErrorCode.BAD_FRAME, reason, close_code=CloseCode.BAD)

    def _receive(self, text: str, now: float) -> Command:
        try:
            command = parse(text, self.limits.frame_bytes)
        except ProtocolError as error:
            self._check_rate(now, error.id)
            self._count_bad(error)
            raise
        self._check_rate(now, command.id)
        self._bad_frames = 0
        self._begin(command)
        return command

    def _check_rate(self, now: float, id: int | None) -> None:
        if self._commands.take(now):
            return
        reason = (
            f"this connection may send {self.limits.commands_per_second} commands a second "
            f"and {self.limits.commands_burst} at once; send this one again later"
        )
        close_code = None if self._refusals.take(now) else CloseCode.LIMIT
        raise ProtocolError(ErrorCode.RATE_LIMITED, reason, close_code=close_code, id=id)

    def _count_bad(self, error: ProtocolError) -> None:
        if error.id is not None:
            return  # who numbers its commands hears of it, and its rate bounds the rest
        if error.code not in (ErrorCode.BAD_JSON, ErrorCode.BAD_FRAME, ErrorCode.TOO_LARGE):
            self._bad_frames = 0
            return
        self._bad_frames += 1
        if self._bad_frames >= BAD_FRAMES:
            error.close_code = CloseCode.BAD

    def _begin(self, command: Command) -> None:
        """Note a command that waits for its answer, or refuse it."""
        busy = ProtocolError(
            ErrorCode.BUSY,
            "too many commands of this connection have no answer yet; wait for some",
            id=command.id,
        )
        match command:
            case Ping():
                return
            case Subscribe() | Unsubscribe():
                if self._open_following >= self.limits.pending + 2 * self.limits.topics:
                    raise busy
                self._follow(command)
                self._open_following += 1
            case _:
                if self._open_others >= self.limits.pending:
                    raise busy
                self._open_others += 1

    def _follow(self, command: Subscribe | Unsubscribe) -> None:
        # The topics change when a command arrives, not when it is answered, so that a client may
        # send subscribe, unsubscribe and subscribe again without waiting in between.
        topic = command.topic
        if isinstance(command, Unsubscribe):
            self._pending.pop(topic, None)
            self._subscribed.discard(topic)
            return
        if topic in self._subscribed or topic in self._pending:
            reason = f"this connection follows {topic} already; unsubscribe first to resume anew"
            raise ProtocolError(ErrorCode.ALREADY_SUBSCRIBED, reason, id=command.id)
        if len(self._subscribed) + len(self._pending) >= self.limits.topics:
            reason = f"this connection follows {self.limits.topics} topics, which is the limit"
            raise ProtocolError(ErrorCode.TOO_MANY_TOPICS, reason, id=command.id)
        self._pending[topic] = command

    def _end(self, command: Command) -> None:
        match command:
            case Ping():
                pass
            case Subscribe() | Unsubscribe():
                self._open_following -= 1
            case _:
                self._open_others -= 1

    # Answers

    def subscribed(
        self,
        command: Subscribe,
        cursor: Cursor,
        *,
        recovered: bool | None = None,
        replayed: int = 0,
    ) -> str:
        """Answer a subscribe that succeeded; the replay, if there is one, comes after this frame.

        Args:
            command: the subscribe.
            cursor: where the replay begins; with ``recovered=False``, where the log stands.
            recovered: whether nothing after ``since`` is missing; left out unless it was sent.
            replayed: how many events follow that are older than the subscription.
        """
        self._end(command)
        if self._pending.get(command.topic) is command:
            del self._pending[command.topic]
            self._subscribed.add(command.topic)
        return frame(
            "subscribed",
            id=command.id,
            topic=command.topic,
            cursor=str(cursor),
            recovered=None if command.since is None else recovered,
            replayed=replayed,
        )

    def unsubscribed(self, command: Unsubscribe) -> str:
        """Answer an unsubscribe."""
        self._end(command)
        return frame("unsubscribed", id=command.id, topic=command.topic, reason="asked")

    def ok(self, command: Publish | Auth) -> str:
        """Answer a command that has nothing to return."""
        self._end(command)
        return frame("ok", id=command.id)

    def result(self, command: Call, data: str) -> str:
        """Answer a call with the JSON text of what the action returned."""
        self._end(command)
        return f'{frame("result", id=command.id)[:-1]},"data":{data}}}'

    def members(
        self,
        command: Members,
        members: Sequence[str],
        version: int,
        *,
        max_characters: float = MEMBERS_CHARACTERS,
    ) -> list[str]:
        """Answer with who is on a topic, in the frames of ``members_frames()``."""
        self._end(command)
        id, most = command.id, max_characters
        return members_frames(command.topic, members, version, id, max_characters=most)

    def pong(self, command: Ping) -> str:
        """Answer a ping."""
        return frame("pong", id=command.id)

    def refused(self, command: Command, error: Exception) -> str:
        """Answer a command that failed, with what ``refusal()`` makes of the error."""
        self._end(command)
        if isinstance(command, Subscribe) and self._pending.get(command.topic) is command:
            del self._pending[command.topic]
        return self.error(refusal(error, command.id))

    # Frames that nobody asked for

    def withdrawn(self, topic: str, reason: str = "forbidden") -> str:
        """Tell that the server ended a subscription."""
        self._subscribed.discard(topic)
        return frame("unsubscribed", topic=topic, reason=reason)

    def error(self, error: ProtocolError) -> str:
        """Return the frame of an error that ``receive_text()`` or ``check_version()`` raised."""
        code = ErrorCode(error.code)
        return frame("error", id=error.id, code=code, message=error.reason, retry=code.retry)

    def closing(self, code: CloseCode, retry_after: float | None = None) -> str:
        """Announce a close; what the client sends from now on is passed over.

        Args:
            code: the code that the socket is closed with next.
            retry_after: seconds to wait before coming back, another one for every client.
        """
        self.is_closing = True
        return frame("closing", reason=code.reason, retry_after=retry_after)
