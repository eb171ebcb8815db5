"""The frames that the server sends (wire protocol, version 1), with their codes and reasons.

``commands`` parses the frames of clients, ``dialogue`` tracks the conversation, and ``encoders``
builds the frames of events.
``docs/wire-protocol.md`` documents the protocol for authors of clients.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import IntEnum, StrEnum
from itertools import accumulate
from typing import Any

from realtime.exceptions import ProtocolError
from realtime.protocol.events import Cursor

__all__ = [
    "HEARTBEAT",
    "HEARTBEAT_SECONDS",
    "MAX_ERROR_CHARACTERS",
    "MAX_INTEGER",
    "MAX_NESTING",
    "MEMBERS_CHARACTERS",
    "SILENCE_SECONDS",
    "VERSION",
    "CloseCode",
    "ErrorCode",
    "Reset",
    "check_version",
    "cut_error",
    "escape_html",
    "frame",
    "members_frames",
    "nesting",
    "reset",
    "welcome",
]

VERSION = 1
HEARTBEAT_SECONDS = 25  # most proxies close a connection that is silent for 30 or 60 seconds
SILENCE_SECONDS = 35  # silence after which a client reconnects: a heartbeat interval and 10 s
MAX_NESTING = 100  # levels in an event's data; some parsers (.NET) stop at 64 to 128 by default
MAX_ERROR_CHARACTERS = 1_000  # enough for a person; a project's messages can quote a client's data
MEMBERS_CHARACTERS = 131_072  # of members in one frame; Daphne limits a message to 1 MiB
MAX_INTEGER = 2**53  # up to here, every JSON parser, even JavaScript's, reads integers exactly


class CloseCode(IntEnum):
    """Why the server closes a WebSocket; ``reason`` is sent in the ``closing`` frame.

    A client does not reconnect after 4400 to 4499; after any other code it does, with backoff.
    """

    reason: str

    def __new__(cls, value: int, reason: str = "") -> CloseCode:
        """Create a member from a code and its reason; ``CloseCode(4400)`` looks it up."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.reason = reason
        return member

    #: The client does not speak this protocol: it sent a binary frame or many bad frames in a row.
    BAD = 4400, "bad"
    #: The user signed out, or the session or token expired; sign in before reconnecting.
    SIGNED_OUT = 4401, "signed_out"
    #: The origin or the user is not allowed to connect.
    FORBIDDEN = 4403, "forbidden"
    #: The client requested a version of the protocol that this server does not support.
    VERSION = 4406, "version"
    #: The client kept sending after ``rate_limited`` errors.
    LIMIT = 4429, "limit"
    #: An error occurred on the server; the cause is in its error log.
    FAILED = 4500, "failed"
    #: The server restarts; reconnect after ``retry_after`` seconds.
    RESTART = 4512, "restart"
    #: The client reads more slowly than events arrive; it can resume from its cursors.
    SLOW = 4513, "slow"
    #: Too many clients connect at the same time; reconnect after ``retry_after`` seconds.
    BUSY = 4514, "busy"


class ErrorCode(StrEnum):
    """The machine-readable code of an ``error`` frame."""

    #: The frame is not JSON.
    BAD_JSON = "bad_json"
    #: The frame is JSON, but not a command: a field is missing or has the wrong type.
    BAD_FRAME = "bad_frame"
    #: The frame is larger than the server accepts.
    TOO_LARGE = "too_large"
    #: The command's type is unknown.
    UNKNOWN_TYPE = "unknown_type"
    #: The topic's name breaks the grammar.
    BAD_TOPIC = "bad_topic"
    #: ``since`` is neither a cursor nor a time.
    BAD_CURSOR = "bad_cursor"
    #: The data is too large or contains a value that cannot be sent.
    BAD_DATA = "bad_data"
    #: The connection already follows this topic; nothing changed.
    ALREADY_SUBSCRIBED = "already_subscribed"
    #: The connection already follows the maximum number of topics.
    TOO_MANY_TOPICS = "too_many_topics"
    #: The token is invalid or has expired.
    UNAUTHORIZED = "unauthorized"
    #: The topic does not exist, or the user is not allowed to do this.
    FORBIDDEN = "forbidden"
    #: The topic has no such action.
    UNKNOWN_ACTION = "unknown_action"
    #: The action rejected the data.
    INVALID = "invalid"
    #: This server or this topic does not support the command.
    UNSUPPORTED = "unsupported"
    #: The version in the URL is unknown.
    BAD_VERSION = "bad_version"
    #: An error occurred on the server while it ran the command.
    FAILED = "failed"
    #: Too many commands per second.
    RATE_LIMITED = "rate_limited"
    #: Too many commands are unanswered.
    BUSY = "busy"
    #: The event log cannot be reached now.
    UNAVAILABLE = "unavailable"

    @property
    def retry(self) -> bool:
        """Whether the same command can succeed a few seconds later."""
        return self in (ErrorCode.RATE_LIMITED, ErrorCode.BUSY, ErrorCode.UNAVAILABLE)


class Reset(StrEnum):
    """Why a ``reset`` frame was sent."""

    #: Events that the client has not received were trimmed from the log.
    TRIMMED = "trimmed"
    #: The log was restarted: deleted, or restored from a backup.
    RESTARTED = "restarted"


# The closing quote is optional, so that a text with an unclosed string takes linear time.
_NO_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[^"\[\]{}]+', re.DOTALL)


def nesting(text: str) -> int:
    """Return how deeply lists and objects are nested in a JSON text.

    A result above ``MAX_NESTING`` is exact; a lower one is an upper bound.
    """
    count = text.count("[") + text.count("{")
    if count <= MAX_NESTING:
        return count  # an upper bound, which is enough here
    brackets = _NO_BRACKET.sub("", text)
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0)


def escape_html(text: str) -> str:
    """Return a JSON text with ``<``, ``>`` and ``&`` as escapes, which decode to the same value.

    Some scripts insert what they receive into the page as HTML, such as htmx's ``sse-swap`` and
    Turbo's stream sources. A text without these characters cannot become an element there.
    """
    # In JSON these characters occur only inside strings, where an escape is always valid.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def frame(type: str, /, **fields: Any) -> str:
    """Return the text of a frame; fields that are None are left out.

    The text is ASCII, so it can always be sent, even with a lone surrogate from a client in it.
    """
    return _encode({"type": type, **{k: v for k, v in fields.items() if v is not None}})


def _encode(fields: dict[str, Any]) -> str:
    return json.dumps(fields, allow_nan=False, separators=(",", ":"))


HEARTBEAT = frame("heartbeat")


def cut_error(text: str) -> str:
    """Cut the text of an error to ``MAX_ERROR_CHARACTERS``, with an ellipsis at its end."""
    is_short = len(text) <= MAX_ERROR_CHARACTERS
    return text if is_short else text[: MAX_ERROR_CHARACTERS - 1] + "…"


def reset(topic: str, cursor: Cursor, reason: Reset) -> str:
    """Return the frame that announces missing events; it is the same for all clients."""
    return frame("reset", topic=topic, cursor=str(cursor), reason=reason)


def members_frames(
    topic: str,
    members: Sequence[str],
    version: int,
    id: int | None = None,
    *,
    count: int | None = None,
    max_characters: float = MEMBERS_CHARACTERS,
) -> list[str]:
    """Return the frames that list the members of a topic.

    A list that is too large for one frame is split; all frames but the last have ``"more": true``.

    Args:
        topic: the topic's name.
        members: the members as JSON texts, in the order in which they joined.
        version: the seq of the last join or leave that the list includes.
        id: the id of the command that this answers, if any.
        count: how many members there are if they are too many to be listed; ``members`` is empty.
        max_characters: the members of a frame exceed this size by at most one member.
    """
    parts: list[list[str]] = [[]]
    size = 0
    for member in members:
        if size > max_characters:
            parts.append([])
            size = 0
        parts[-1].append(member)
        size += len(member)
    frames = []
    for number, part in enumerate(parts, 1):
        more = True if number < len(parts) else None
        end = frame("members", id=id, topic=topic, version=version, count=count, more=more)
        frames.append(f'{end[:-1]},"members":[{",".join(part)}]}}')
    return frames


def welcome(connection: str, user: str | None, topics: Sequence[str]) -> str:
    """Return the first frame of a connection, which is sent again after an ``auth``.

    Args:
        connection: the public id of the connection, which is no secret and grants no rights.
        user: the user's primary key; None for an anonymous user.
        topics: suggested topics, which this user is allowed to follow.
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
    """Check the ``v`` parameter of the URL; None requests the server's preferred version.

    Raises:
        ProtocolError: the server does not support this version; close the connection with the
            error's ``close_code``.
    """
    if version not in (None, str(VERSION)):
        raise ProtocolError(
            ErrorCode.BAD_VERSION,
            f"this server supports version {VERSION} only; connect with ?v={VERSION}",
            close_code=CloseCode.VERSION,
        )
