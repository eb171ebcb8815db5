"""The server's frames of the wire protocol, version 1, with the words and codes that they use.

``commands`` reads the client's frames, ``dialogue`` holds the conversation that both make,
``encoders`` writes the frame of an event, and ``docs/wire-protocol.md`` describes all of it for
authors of clients.
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
    "MAX_INTEGER",
    "MAX_NESTING",
    "MEMBERS_CHARACTERS",
    "SILENCE_SECONDS",
    "VERSION",
    "CloseCode",
    "ErrorCode",
    "Reset",
    "check_version",
    "frame",
    "members_frames",
    "nesting",
    "reset",
    "welcome",
]

VERSION = 1
HEARTBEAT_SECONDS = 25  # most proxies cut a connection that is silent for 30 or 60 seconds
SILENCE_SECONDS = 35  # a client that hears nothing for so long reconnects: a heartbeat and a grace
MAX_NESTING = 100  # levels of an event's data; the shallowest common parser (.NET) reads 64 to 128
MEMBERS_CHARACTERS = 131_072  # of a list of members in one frame; Daphne sends no megabyte at once
MAX_INTEGER = 2**53  # what every JSON parser reads exactly, JavaScript's included


class CloseCode(IntEnum):
    """Why the server closes a WebSocket; ``reason`` is the word in the ``closing`` frame.

    A client does not come back after 4400-4499, and does, with backoff, after everything else.
    """

    reason: str

    def __new__(cls, value: int, reason: str = "") -> CloseCode:
        """Make a member of a number and its reason; ``CloseCode(4400)`` finds it again."""
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
    #: The token is not valid, or not any more.
    UNAUTHORIZED = "unauthorized"
    #: The topic does not exist or the user may not do this.
    FORBIDDEN = "forbidden"
    #: The topic has no such action.
    UNKNOWN_ACTION = "unknown_action"
    #: The action refused the data.
    INVALID = "invalid"
    #: This server, or the topic, does not offer the command.
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


# The closing quote is optional so that a text of unclosed strings takes linear time.
_NO_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[^"\[\]{}]+', re.DOTALL)


def nesting(text: str) -> int:
    """Return how deep lists and objects are nested in JSON text."""
    count = text.count("[") + text.count("{")
    if count <= MAX_NESTING:
        return count  # no need to know better
    brackets = _NO_BRACKET.sub("", text)
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0)


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


def members_frames(
    topic: str,
    members: Sequence[str],
    version: int,
    id: int | None = None,
    *,
    max_characters: float = MEMBERS_CHARACTERS,
) -> list[str]:
    """Return the frames that tell who is on a topic.

    Several where one would be too large for a server; all but the last have ``more``.

    Args:
        topic: the topic's name.
        members: their JSON texts, in the order in which they came.
        version: the number of the last join or leave that the list has.
        id: of the command that asked.
        max_characters: of the members of one frame, and one member more.
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
        end = frame("members", id=id, topic=topic, version=version, more=more)
        frames.append(f'{end[:-1]},"members":[{",".join(part)}]}}')
    return frames


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
