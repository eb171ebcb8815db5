"""Parse the frames that clients send (wire protocol, version 1) into commands."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from realtime.exceptions import (
    InvalidCursor,
    InvalidEventName,
    InvalidTopicName,
    ProtocolError,
    shorten,
)
from realtime.protocol.cursors import CompositeCursor, is_composite
from realtime.protocol.events import Cursor, check_event_name
from realtime.protocol.frames import MAX_INTEGER, MAX_NESTING, ErrorCode, nesting
from realtime.protocol.names import check_topic_name

__all__ = [
    "Auth",
    "Call",
    "Command",
    "Members",
    "Ping",
    "Publish",
    "Subscribe",
    "Unsubscribe",
    "parse",
    "parse_since",
]

_LEADING_ID = re.compile(r'\s*\{\s*"id"\s*:\s*(-?(?:0|[1-9][0-9]{0,15}))\s*,')
_TIMESTAMP = re.compile(r"@([0-9]{1,12}(?:\.[0-9]{1,9})?)")


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Follow a topic.

    Attributes:
        since: resume after this cursor, or after this time in seconds since 1970.
        last: start with this many of the newest events; never together with ``since``.
    """

    id: int | None
    topic: str
    since: Cursor | float | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Unsubscribe from a topic; the answer is ``unsubscribed``, even without a subscription."""

    id: int | None
    topic: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish a client event; ``data`` is decoded JSON, nested at most ``MAX_NESTING`` levels."""

    id: int | None
    topic: str
    event: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class Call:
    """Call an action of a topic; whether the topic has the action is not checked here."""

    id: int | None
    topic: str
    action: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class Members:
    """List the members of a topic."""

    id: int | None
    topic: str


@dataclass(frozen=True, slots=True)
class Auth:
    """Authenticate with a token, which is a secret and therefore left out of ``repr()``."""

    id: int | None
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ping:
    """Request a ``pong``."""

    id: int | None = None


Command: TypeAlias = Subscribe | Unsubscribe | Publish | Call | Members | Auth | Ping


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("out of range")
    return number


def _reject_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(parse_float=_parse_float, parse_constant=_reject_constant)


def parse_since(text: str, topic: str | None = None) -> Cursor | float:
    """Parse a ``since``: a cursor, or ``@`` and a time in seconds since 1970.

    Args:
        text: the text that the client sent.
        topic: the topic to follow; if given, a composite cursor that contains it is accepted too.

    Raises:
        InvalidCursor: the text is neither, or is a composite cursor without this topic.
    """
    if timestamp := _TIMESTAMP.fullmatch(text):
        return float(timestamp[1])
    if topic is None or not is_composite(text):
        return Cursor.parse(text)
    cursor = CompositeCursor(text).get(topic)
    if cursor is None:
        raise InvalidCursor(text, topic)
    return cursor


def _bad_frame(reason: str, id: int | None = None) -> ProtocolError:
    return ProtocolError(ErrorCode.BAD_FRAME, reason, id=id)


def parse(text: str, max_bytes: int) -> Command:
    """Parse one frame of a client.

    Args:
        text: the frame.
        max_bytes: the maximum size of a frame in UTF-8.

    Raises:
        ProtocolError: the frame is not a valid command; the error says what to send instead.
    """
    if len(text) > max_bytes or len(text.encode("utf-8", "surrogatepass")) > max_bytes:
        reason = f"send frames of at most {max_bytes} bytes"
        raise ProtocolError(ErrorCode.TOO_LARGE, reason, id=_leading_id(text))
    if nesting(text) > MAX_NESTING + 1:
        reason = f"send data that is nested at most {MAX_NESTING} levels deep"
        raise _bad_frame(reason, _leading_id(text))
    try:
        fields = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ProtocolError(
            ErrorCode.BAD_JSON, f"send one JSON object per frame: {error}"
        ) from None
    except (ValueError, RecursionError):
        reason = "send one JSON object per frame: a number in it is out of range"
        raise ProtocolError(ErrorCode.BAD_JSON, reason) from None
    if not isinstance(fields, dict):
        raise _bad_frame(
            'send a JSON object such as {"type":"subscribe","id":1,"topic":"orders.42"}'
        )
    received = _Fields(fields)
    type_ = received.text("type", "the name of a command")
    if (parse_command := _PARSERS.get(type_)) is None:
        reason = f"{shorten(type_)} is not a command; send one of {', '.join(_PARSERS)}"
        raise ProtocolError(ErrorCode.UNKNOWN_TYPE, reason, id=received.id)
    return parse_command(received)


def _leading_id(text: str) -> int | None:
    """Return the id of a frame that is rejected unparsed, if the id is its first field."""
    match = _LEADING_ID.match(text)
    return None if match is None or abs(int(match[1])) > MAX_INTEGER else int(match[1])


class _Fields:
    """The fields of a frame; each method checks a field's type.

    A null counts as absent; so does an empty string where it has no meaning, as in a URL.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields
        self.id: int | None = None  # used by the error if the id itself is invalid
        self.id = self.integer("id", -MAX_INTEGER)

    def integer(self, key: str, minimum: int) -> int | None:
        value = self._fields.get(key)
        if value is None or value == "":
            return None
        if type(value) is not int or not minimum <= value <= MAX_INTEGER:
            raise _bad_frame(
                f"{key} must be a whole number from {minimum} to {MAX_INTEGER}", self.id
            )
        return value

    def optional_text(self, key: str, meaning: str) -> str | None:
        value = self._fields.get(key)
        if value is not None and not isinstance(value, str):
            raise _bad_frame(f"{key} must be a string: {meaning}", self.id)
        return value

    def text(self, key: str, meaning: str) -> str:
        value = self.optional_text(key, meaning)
        if not value:
            raise _bad_frame(f"{key} is missing: send {meaning} as a string", self.id)
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
            raise _bad_frame(str(error), self.id) from None

    def since(self, topic: str) -> Cursor | float | None:
        text = self.optional_text("since", "a cursor, or @ and seconds since 1970")
        if not text:
            return None
        try:
            return parse_since(text, topic)
        except InvalidCursor as error:
            reason = (
                f"{shorten(text)} is neither a cursor as the server gave it nor @ and seconds "
                "since 1970; you are not subscribed: fetch the state and subscribe without since"
            )
            if error.topic:
                reason = f"{error}; you are not subscribed"
            raise ProtocolError(ErrorCode.BAD_CURSOR, reason, id=self.id) from None

    @property
    def data(self) -> Any:
        return self._fields.get("data")


def _subscribe(fields: _Fields) -> Subscribe:
    topic = fields.topic()
    since, last = fields.since(topic), fields.integer("last", 0)
    if since is not None and last is not None:
        raise _bad_frame("send since or last, not both", fields.id)
    return Subscribe(fields.id, topic, since, last)


def _publish(fields: _Fields) -> Publish:
    return Publish(fields.id, fields.topic(), fields.event(), fields.data)


def _call(fields: _Fields) -> Call:
    return Call(
        fields.id, fields.topic(), fields.text("action", "the name of an action"), fields.data
    )


_PARSERS: dict[str, Callable[[_Fields], Command]] = {
    "subscribe": _subscribe,
    "unsubscribe": lambda fields: Unsubscribe(fields.id, fields.topic()),
    "publish": _publish,
    "call": _call,
    "members": lambda fields: Members(fields.id, fields.topic()),
    "auth": lambda fields: Auth(fields.id, fields.text("token", "a token")),
    "ping": lambda fields: Ping(fields.id),
}
