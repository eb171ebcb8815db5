"""The state of the conversation with one client, without I/O.

A ``Dialogue`` parses each text frame that the client sends into a command, or raises
``ProtocolError``; for each answer it returns the text of the frame to send.
It tracks the subscribed topics, the unanswered commands, the rate limit, and whether the
connection is about to be closed.
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
from realtime.protocol.frames import (
    MEMBERS_CHARACTERS,
    CloseCode,
    ErrorCode,
    cut_error,
    frame,
    members_frames,
)

__all__ = ["BAD_FRAMES", "Bucket", "Dialogue", "Limits", "forbidden", "refusal", "unavailable"]

# Bad frames in a row after which the connection is closed: a person who types frames at a console
# stays below it, a broken client does not.
BAD_FRAMES = 10


class Limits(Protocol):
    """The limits that a dialogue enforces for one connection."""

    @property
    def frame_bytes(self) -> int:
        """Maximum size in bytes of a frame that the client sends."""

    @property
    def topics(self) -> int:
        """Maximum number of topics followed at the same time."""

    @property
    def commands_per_second(self) -> int:
        """Maximum number of commands per second, on average."""

    @property
    def commands_burst(self) -> int:
        """Maximum number of commands in a burst after a pause."""

    @property
    def publish_bytes_per_second(self) -> int:
        """Maximum number of bytes published per second, on average."""

    @property
    def publish_bytes_burst(self) -> int:
        """Maximum number of bytes published in a burst after a pause."""

    @property
    def pending(self) -> int:
        """Maximum number of unanswered commands other than subscribe and unsubscribe."""


def forbidden(id: int | None = None) -> ProtocolError:
    """Return the error for an unknown or forbidden topic; a client cannot tell which it is."""
    reason = "this topic does not exist, or you may not do this with it"
    return ProtocolError(ErrorCode.FORBIDDEN, reason, id=id)


def unavailable() -> ProtocolError:
    """Return the error for a command whose permission could not be checked now."""
    reason = "the server cannot check your permission now; try again in a few seconds"
    return ProtocolError(ErrorCode.UNAVAILABLE, reason)


def refusal(error: Exception, id: int | None = None) -> ProtocolError:
    """Return the protocol error for an exception; it reveals no details of the server."""
    match error:
        case ProtocolError():
            error.id = id if error.id is None else error.id
            return error
        case UnknownTopic() | InvalidTopicName():
            return forbidden(id)
        case PresenceDisabled():
            reason = "this topic does not track presence"
            return ProtocolError(ErrorCode.UNSUPPORTED, reason, id=id)
        case InvalidData():
            return ProtocolError(ErrorCode.BAD_DATA, str(error), id=id)
        case StoreError() | PublishError():
            reason = "the server cannot reach its event log now; try again in a few seconds"
            return ProtocolError(ErrorCode.UNAVAILABLE, reason, id=id)
        case _:
            reason = "the server failed to run this command; its log says why"
            return ProtocolError(ErrorCode.FAILED, reason, id=id)


class Bucket:
    """A token bucket, which starts full.

    Args:
        rate: tokens added per second.
        burst: capacity, in tokens.
    """

    __slots__ = ("burst", "filled", "level", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self.level = burst
        self.filled = 0.0

    def take(self, now: float, amount: float = 1) -> bool:
        """Take tokens if they are available; ``now`` is a monotonic time in seconds."""
        return self.reserve(now, 0.0, amount) <= 0.0

    def reserve(self, now: float, patience: float, amount: float = 1) -> float:
        """Return the seconds until tokens are available; take them if the caller can wait for them.

        Args:
            now: monotonic time in seconds.
            patience: maximum wait in seconds. If the wait is longer, no token is taken.
            amount: number of tokens. More than ``burst`` count as ``burst``, because a bucket never
                has more.
        """
        amount = min(amount, self.burst)
        self.level = min(self.burst, self.level + max(0.0, now - self.filled) * self.rate)
        self.filled = max(self.filled, now)
        wait = max(0.0, amount - self.level) / self.rate
        if wait <= patience:
            self.level -= amount
        return wait


class Dialogue:
    """The state of the conversation with one client; not thread-safe.

    Answer each command from ``receive_text()`` exactly once: with ``subscribed()``,
    ``unsubscribed()``, ``ok()``, ``result()``, ``members()``, ``pong()`` or ``refused()``.

    Attributes:
        is_closing: True once the connection must be closed or the close was announced; further
            frames are ignored.
        limits: the limits of this connection.
    """

    __slots__ = (
        "_bad_frames",
        "_commands",
        "_pending",
        "_published",
        "_refusals",
        "_subscribed",
        "_unanswered_others",
        "_unanswered_subscribes",
        "is_closing",
        "limits",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.is_closing = False
        self._pending: dict[str, Subscribe] = {}
        self._subscribed: set[str] = set()
        # Subscribes and unsubscribes are counted separately, so that a page can subscribe to all
        # its topics at once. Their limit only stops a client that sends them in a loop.
        self._unanswered_subscribes = 0  # includes unsubscribes
        self._unanswered_others = 0
        self._bad_frames = 0
        self._commands = Bucket(limits.commands_per_second, limits.commands_burst)
        # Commands over the rate limit take tokens from a second bucket of the same size. A client
        # that empties this one too sends at more than twice the rate and ignores the errors, so its
        # connection is closed.
        self._refusals = Bucket(limits.commands_per_second, limits.commands_burst)
        self._published: Bucket | None = None  # of bytes; made for the first publish

    @property
    def topics(self) -> frozenset[str]:
        """The topics that the client follows, or will follow once its subscribe is answered."""
        return frozenset(self._subscribed.union(self._pending))

    def receive_text(self, text: str, now: float) -> Command | None:
        """Parse a text frame and return its command; None if the connection is closing.

        Args:
            text: the frame.
            now: monotonic time in seconds.

        Raises:
            ProtocolError: the frame is refused. Send ``error()`` with it; if it has a
                ``close_code``, then send ``closing()`` and close the connection with that code.
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
        """Refuse a binary frame; do nothing if the connection is closing.

        Raises:
            ProtocolError: handle it like an error of ``receive_text()``; it has a ``close_code``.
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
        if isinstance(command, Publish):
            self._check_bytes(text, now, command.id)
        self._track(command)
        return command

    def _check_rate(self, now: float, id: int | None) -> None:
        if self._commands.take(now):
            return
        reason = (
            f"this connection may send {self.limits.commands_per_second} commands a second "
            f"and {self.limits.commands_burst} at once; send this one again later"
        )
        raise self._rate_limited(reason, now, id)

    def _check_bytes(self, text: str, now: float, id: int | None) -> None:
        limits = self.limits
        if self._published is None:
            self._published = Bucket(limits.publish_bytes_per_second, limits.publish_bytes_burst)
        if self._published.take(now, len(text.encode("utf-8", "surrogatepass"))):
            return
        reason = (
            f"this connection may publish {limits.publish_bytes_per_second} bytes a second and "
            f"{limits.publish_bytes_burst} at once; send this one again later"
        )
        raise self._rate_limited(reason, now, id)

    def _rate_limited(self, reason: str, now: float, id: int | None) -> ProtocolError:
        close_code = None if self._refusals.take(now) else CloseCode.LIMIT
        return ProtocolError(ErrorCode.RATE_LIMITED, reason, close_code=close_code, id=id)

    def _count_bad(self, error: ProtocolError) -> None:
        if error.id is not None:
            return  # the client can match the error by its id, and the rate limit applies
        if error.code not in (ErrorCode.BAD_JSON, ErrorCode.BAD_FRAME, ErrorCode.TOO_LARGE):
            self._bad_frames = 0
            return
        self._bad_frames += 1
        if self._bad_frames >= BAD_FRAMES:
            error.close_code = CloseCode.BAD

    def _track(self, command: Command) -> None:
        """Count a command as unanswered; refuse it if there are too many."""
        busy = ProtocolError(
            ErrorCode.BUSY,
            "too many commands of this connection have no answer yet; wait for some answers",
            id=command.id,
        )
        match command:
            case Ping():
                return
            case Subscribe() | Unsubscribe():
                if self._unanswered_subscribes >= self.limits.pending + 2 * self.limits.topics:
                    raise busy
                self._update_topics(command)
                self._unanswered_subscribes += 1
            case _:
                if self._unanswered_others >= self.limits.pending:
                    raise busy
                self._unanswered_others += 1

    def _update_topics(self, command: Subscribe | Unsubscribe) -> None:
        # The topics change when a command arrives, not when it is answered, so a client can send
        # subscribe, unsubscribe and subscribe without waiting for the answers.
        topic = command.topic
        if isinstance(command, Unsubscribe):
            self._pending.pop(topic, None)
            self._subscribed.discard(topic)
            return
        if topic in self._subscribed or topic in self._pending:
            reason = f"this connection already follows {topic}; unsubscribe before you resume"
            raise ProtocolError(ErrorCode.ALREADY_SUBSCRIBED, reason, id=command.id)
        if len(self._subscribed) + len(self._pending) >= self.limits.topics:
            reason = (
                f"this connection already follows {self.limits.topics} topics, which is the limit; "
                "unsubscribe from one first, or follow one topic for the whole list of objects"
            )
            raise ProtocolError(ErrorCode.TOO_MANY_TOPICS, reason, id=command.id)
        self._pending[topic] = command

    def _untrack(self, command: Command) -> None:
        match command:
            case Ping():
                pass
            case Subscribe() | Unsubscribe():
                self._unanswered_subscribes -= 1
            case _:
                self._unanswered_others -= 1

    # Answers

    def subscribed(
        self,
        command: Subscribe,
        cursor: Cursor,
        *,
        recovered: bool | None = None,
        replayed: int = 0,
    ) -> str:
        """Answer a subscribe that succeeded; send the replay, if any, after this frame.

        Args:
            command: the subscribe.
            cursor: the cursor at which the replay starts; with ``recovered=False``, the head.
            recovered: True if no event after ``since`` is missing; ignored if the command has no
                ``since``.
            replayed: number of events in the replay.
        """
        self._untrack(command)
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
        self._untrack(command)
        return frame("unsubscribed", id=command.id, topic=command.topic, reason="asked")

    def ok(self, command: Publish | Auth) -> str:
        """Answer a command that succeeded and has no result."""
        self._untrack(command)
        return frame("ok", id=command.id)

    def result(self, command: Call, data: str) -> str:
        """Answer a call with the action's result as JSON text."""
        self._untrack(command)
        return f'{frame("result", id=command.id)[:-1]},"data":{data}}}'

    def members(
        self,
        command: Members,
        members: Sequence[str],
        version: int,
        *,
        count: int | None = None,
        max_characters: float = MEMBERS_CHARACTERS,
    ) -> list[str]:
        """Answer with the members of a topic; see ``members_frames()``."""
        self._untrack(command)
        return members_frames(
            command.topic, members, version, command.id, count=count, max_characters=max_characters
        )

    def pong(self, command: Ping) -> str:
        """Answer a ping."""
        return frame("pong", id=command.id)

    def refused(self, command: Command, error: Exception) -> str:
        """Answer a command that failed, with the ``refusal()`` of the error."""
        self._untrack(command)
        if isinstance(command, Subscribe) and self._pending.get(command.topic) is command:
            del self._pending[command.topic]
        return self.error(refusal(error, command.id))

    # Frames that are not answers

    def withdrawn(self, topic: str, reason: str = "forbidden") -> str:
        """Return the frame that announces that the server ended a subscription."""
        self._subscribed.discard(topic)
        return frame("unsubscribed", topic=topic, reason=reason)

    def error(self, error: ProtocolError) -> str:
        """Return the frame for an error of ``receive_text()`` or ``check_version()``."""
        code, message = ErrorCode(error.code), cut_error(error.reason)
        return frame("error", id=error.id, code=code, message=message, retry=code.retry)

    def closing(self, code: CloseCode, retry_after: float | None = None) -> str:
        """Announce a close; further frames of the client are ignored.

        Args:
            code: the code with which the connection will be closed.
            retry_after: seconds after which the client may reconnect, randomised per client.
        """
        self.is_closing = True
        return frame("closing", reason=code.reason, retry_after=retry_after)
