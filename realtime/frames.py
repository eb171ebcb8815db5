"""The frames of the wire protocol, version 1: what they say, how they are read and written.

``parse()`` reads a client's frame into a command; ``frame()`` writes one of the server's.
``realtime.dialogue`` holds the conversation that they make, ``realtime.encoders`` the frame of an
event, and ``docs/wire-protocol.md`` says it all for the client's programmer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from itertools import accumulate
from typing import Any, TypeAlias

from realtime.events import Cursor, check_event_name
from realtime.exceptions import (
    InvalidCursor,
    InvalidEventName,
    InvalidTopicName,
    ProtocolError,
    shorten,
)
from realtime.names import check_topic_name

__all__ = [
    "HEARTBEAT",
    "HEARTBEAT_SECONDS",
    "MAX_INTEGER",
    "MAX_NESTING",
    "SILENCE_SECONDS",
    "VERSION",
    "Auth",
    "Call",
    "CloseCode",
    "Command",
    "ErrorCode",
    "Members",
    "Ping",
    "Publish",
    "Reset",
    "Subscribe",
    "Unsubscribe",
    "check_version",
    "frame",
    "nesting",
    "parse",
    "reset",
    "welcome",
]

VERSION = 1
HEARTBEAT_SECONDS = 25  # most proxies cut a connection that is silent for 30 or 60 seconds
SILENCE_SECONDS = 35  # a client that hears nothing for so long reconnects: a heartbeat and a grace
MAX_NESTING = 100  # levels of an event's data; the shallowest common parser (.NET) reads 64 to 128
MAX_INTEGER = 2**53  # what every JSON parser reads exactly, JavaScript's included


class CloseCode(IntEnum):
    """Why the server closes a WebSocket; ``reason`` is the word in the ``closing`` frame.

    A client does not come back after 4400-4499, and does, with backoff, after everything else.
    """

    reason: str

    def __new__(cls, value: int, reason: str) -> CloseCode:
        """Make a member of a number and its reason."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.reason = reason
        return member

    #: The client does not speak this protocol: a binary frame, or only bad frames in a row.
    BAD = 4400, "bad"
    #: The user signed out, or the session or token expired: sign in first.
    SIGNED_OUT = 4401, "signed_out"
    #: The origin or the user is refused altogether.
    FORBIDDEN = 4403, "forbidden"
    #: The client asked for a version of the protocol that this server does not speak.
    VERSION = 4406, "version"
    #: The client went on sending although it was told to slow down.
    LIMIT = 4429, "limit"
    #: Something failed in the server; its log says what.
    FAILED = 4500, "failed"
    #: The server restarts; come back after ``retry_after`` seconds.
    RESTART = 4512, "restart"
    #: The client reads slower than events come; it resumes with its cursors.
    SLOW = 4513, "slow"


class ErrorCode(StrEnum):
    """What an ``error`` frame says to a program."""

    #: The frame is not JSON.
    BAD_JSON = "bad_json"
    #: The frame is JSON, but not a command: a field is missing or is of another type.
    BAD_FRAME = "bad_frame"
    #: The frame is larger than the server reads.
    TOO_LARGE = "too_large"
    #: The command's type is unknown.
    UNKNOWN_TYPE = "unknown_type"
    #: The topic's name breaks the grammar.
    BAD_TOPIC = "bad_topic"
    #: ``since`` is neither a cursor nor a moment.
    BAD_CURSOR = "bad_cursor"
    #: The data is too large or has a value that cannot be sent.
    BAD_DATA = "bad_data"
    #: The connection follows this topic already; nothing changed.
    ALREADY_SUBSCRIBED = "already_subscribed"
    #: The connection follows as many topics as it may.
    TOO_MANY_TOPICS = "too_many_topics"
    #: The topic does not exist or the user may not do this.
    FORBIDDEN = "forbidden"
    #: The topic has no such action.
    UNKNOWN_ACTION = "unknown_action"
    #: The action refused the data.
    INVALID = "invalid"
    #: This server does not offer the command.
    UNSUPPORTED = "unsupported"
    #: The version in the URL is unknown.
    BAD_VERSION = "bad_version"
    #: Something failed in the server while it ran the command.
    FAILED = "failed"
    #: Too many commands a second.
    RATE_LIMITED = "rate_limited"
    #: Too many commands without an answer yet.
    BUSY = "busy"
    #: The log cannot be reached now.
    UNAVAILABLE = "unavailable"

    @property
    def retry(self) -> bool:
        """May the same command succeed a little later?"""
        return self in (ErrorCode.RATE_LIMITED, ErrorCode.BUSY, ErrorCode.UNAVAILABLE)


class Reset(StrEnum):
    """Why a ``reset`` frame was sent."""

    #: The client was behind and what it lacks was trimmed.
    TRIMMED = "trimmed"
    #: The log was restarted: deleted, or restored from a backup.
    RESTARTED = "restarted"


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Follow a topic.

    Attributes:
        since: resume after this cursor, or send what came after this moment (seconds since 1970).
        last: send so many of the newest events first; never together with ``since``.
    """

    id: int | None
    topic: str
    since: Cursor | float | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Follow a topic no more; says ``unsubscribed`` also where it was not followed."""

    id: int | None
    topic: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish a client event; ``data`` is decoded and nested no deeper than ``MAX_NESTING``."""

    id: int | None
    topic: str
    event: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class Call:
    """Call an action of a topic; ``data`` as in ``Publish``, ``action`` is not checked further."""

    id: int | None
    topic: str
    action: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class Members:
    """Ask who is on a topic."""

    id: int | None
    topic: str


@dataclass(frozen=True, slots=True)
class Auth:
    """Present a token, which is a secret and stays out of ``repr``."""

    id: int | None
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a ``pong``."""

    id: int | None = None


Command: TypeAlias = Subscribe | Unsubscribe | Publish | Call | Members | Auth | Ping


# Frames that the server sends


def frame(type: str, /, **fields: Any) -> str:
    """Return the text of a frame; fields that are None are left out.

    The text is ASCII, so that nothing a client sent (a lone surrogate) makes it unsendable.
    """
    return _encode({"type": type, **{k: v for k, v in fields.items() if v is not None}})


def _encode(fields: dict[str, Any]) -> str:
    return json.dumps(fields, allow_nan=False, separators=(",", ":"))


HEARTBEAT = frame("heartbeat")


def reset(topic: str, cursor: Cursor, reason: Reset) -> str:
    """Return the frame that tells of a hole in a topic, the same for all who have it."""
    return frame("reset", topic=topic, cursor=str(cursor), reason=reason)


def welcome(connection: str, user: str | None, topics: Sequence[str]) -> str:
    """Return the first frame, which comes again after an ``auth``.

    Args:
        connection: a public name of the connection that gives no rights.
        user: the user's primary key, or None for an anonymous user.
        topics: the topics that the client may want to follow without being told of them.
    """
    return _encode(
        {
            "type": "welcome",
            "connection": connection,
            "user": user,
            "topics": list(topics),
            "heartbeat": HEARTBEAT_SECONDS,
            "version": VERSION,
        }
    )


def check_version(version: str | None) -> None:
    """Check the ``v`` of the URL; None is a client that leaves the choice to the server.

    Raises:
        ProtocolError: it is not a version that this server speaks; close with its code.
    """
    if version not in (None, str(VERSION)):
        raise ProtocolError(
            ErrorCode.BAD_VERSION,
            f"this server speaks version {VERSION}; connect with ?v={VERSION}",
            close_code=CloseCode.VERSION,
        )


# Frames that the client sends

# The closing quote is optional so that a text of unclosed strings takes linear time.
_NO_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[^"\[\]{}]+', re.DOTALL)
_MOMENT = re.compile(r"@([0-9]{1,12}(?:\.[0-9]{1,9})?)")


def nesting(text: str) -> int:
    """Return how deep lists and objects are nested in JSON text."""
    count = text.count("[") + text.count("{")
    if count <= MAX_NESTING:
        return count  # no need to know better
    brackets = _NO_BRACKET.sub("", text)
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("out of range")
    return number


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)


def _bad(reason: str, id: int | None = None) -> ProtocolError:
    return ProtocolError(ErrorCode.BAD_FRAME, reason, id=id)


def parse(text: str, max_bytes: int) -> Command:
    """Read one frame of a client.

    Raises:
        ProtocolError: it is not a command; the error says what to send instead.
    """
    if len(text) > max_bytes or len(text.encode("utf-8", "surrogatepass")) > max_bytes:
        raise ProtocolError(ErrorCode.TOO_LARGE, f"send frames of at most {max_bytes} bytes")
    if nesting(text) > MAX_NESTING + 1:
        raise _bad(f"send data that is nested at most {MAX_NESTING} levels deep")
    try:
        fields = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ProtocolError(ErrorCode.BAD_JSON, f"send one JSON object a frame: {error}") from None
    except (ValueError, RecursionError):
        reason = "send one JSON object a frame: a number in it is out of range"
        raise ProtocolError(ErrorCode.BAD_JSON, reason) from None
    if not isinstance(fields, dict):
        raise _bad('send a JSON object such as {"type":"subscribe","id":1,"topic":"orders.42"}')
    received = _Fields(fields)
    type_ = received.text("type", "the name of a command")
    if (read := _READERS.get(type_)) is None:
        reason = f"{shorten(type_)} is not a command; send one of {', '.join(_READERS)}"
        raise ProtocolError(ErrorCode.UNKNOWN_TYPE, reason, id=received.id)
    return read(received)


class _Fields:
    """The fields of a frame, read by the kind of value that each must have; null is absence."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields
        self.id: int | None = None  # until it is known, an error cannot carry it
        self.id = self.integer("id", -MAX_INTEGER)

    def integer(self, key: str, minimum: int) -> int | None:
        value = self._fields.get(key)
        if value is None:
            return None
        if type(value) is not int or not minimum <= value <= MAX_INTEGER:
            raise _bad(f"{key} must be a whole number from {minimum} to {MAX_INTEGER}", self.id)
        return value

    def optional_text(self, key: str, meaning: str) -> str | None:
        value = self._fields.get(key)
        if value is not None and not isinstance(value, str):
            raise _bad(f"{key} must be a string: {meaning}", self.id)
        return value

    def text(self, key: str, meaning: str) -> str:
        value = self.optional_text(key, meaning)
        if not value:
            raise _bad(f"{key} is missing: send {meaning} as a string", self.id)
        return value

    def topic(self) -> str:
        name = self.text("topic", "the name of a topic")
        try:
            return check_topic_name(name)
        except InvalidTopicName as error:
            raise ProtocolError(ErrorCode.BAD_TOPIC, str(error), id=self.id) from None

    def event(self) -> str:
        name = self.text("event", "the name of an event")
        try:
            return check_event_name(name)
        except InvalidEventName as error:
            raise _bad(str(error), self.id) from None

    def since(self) -> Cursor | float | None:
        text = self.optional_text("since", "a cursor, or @ and seconds since 1970")
        if text is None:
            return None
        if moment := _MOMENT.fullmatch(text):
            return float(moment[1])
        try:
            return Cursor.parse(text)
        except InvalidCursor:
            reason = (
                f"{shorten(text)} is neither a cursor as the server gave it nor @ and seconds "
                "since 1970; nothing is subscribed: fetch the state and subscribe without since"
            )
            raise ProtocolError(ErrorCode.BAD_CURSOR, reason, id=self.id) from None

    @property
    def data(self) -> Any:
        return self._fields.get("data")


def _subscribe(fields: _Fields) -> Subscribe:
    topic, since, last = fields.topic(), fields.since(), fields.integer("last", 0)
    if since is not None and last is not None:
        raise _bad("send since or last, not both", fields.id)
    return Subscribe(fields.id, topic, since, last)


def _publish(fields: _Fields) -> Publish:
    return Publish(fields.id, fields.topic(), fields.event(), fields.data)


def _call(fields: _Fields) -> Call:
    return Call(fields.id, fields.topic(), fields.text("action", "its name"), fields.data)


_READERS: dict[str, Callable[[_Fields], Command]] = {
    "subscribe": _subscribe,
    "unsubscribe": lambda fields: Unsubscribe(fields.id, fields.topic()),
    "publish": _publish,
    "call": _call,
    "members": lambda fields: Members(fields.id, fields.topic()),
    "auth": lambda fields: Auth(fields.id, fields.text("token", "a token")),
    "ping": lambda fields: Ping(fields.id),
}
