"""The values that the whole package works with: events, cursors and members."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from realtime.exceptions import InvalidCursor, InvalidEventName

__all__ = ["Cursor", "Draft", "Event", "Member", "check_event_name"]

_CURSOR = re.compile(r"([A-Za-z0-9_-]{1,32})\.(0|[1-9][0-9]{0,17})\.([0-9a-f]{8})")
_EVENT_NAME = re.compile(r"[A-Za-z0-9_~@+:.-]{1,100}")


def check_event_name(name: object) -> str:
    """Return the name if it is a valid event name.

    An event name has 1 to 100 of the characters ``A-Z a-z 0-9 _ ~ @ + : . -``, the same as in a
    topic name. Such a name is safe in a line of an event stream and as the type of a DOM event.

    Raises:
        InvalidEventName: it is not a valid event name; the error lists the allowed characters.
    """
    if not isinstance(name, str) or _EVENT_NAME.fullmatch(name) is None:
        raise InvalidEventName(
            str(name), "use 1 to 100 of the characters A-Z a-z 0-9 _ ~ @ + : . -"
        )
    return name


@dataclass(frozen=True, slots=True)
class Cursor:
    """A point in a topic's log: directly after the event that it names.

    On the wire it is one opaque string, ``str(cursor)``, which only this class parses.

    Attributes:
        epoch: identifies one life of the log, from its start to its next restart; 1 to 32
            URL-safe characters.
        seq: the event's number in the log, counted from 1; 0 is the start of the log.
        tag: 32 random bits of the event. A cursor whose tag differs from the tag in the log was
            forged, or its event was lost when a backup was restored.
    """

    epoch: str
    seq: int
    tag: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}.{self.tag:08x}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Parse the text that ``str(cursor)`` returned.

        Raises:
            InvalidCursor: the text is not a cursor.
        """
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise InvalidCursor(text)
        return cls(match[1], int(match[2]), int(match[3], 16))


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that has not been appended to a log yet.

    Attributes:
        name: the event's name.
        json: its data, encoded as JSON.
        origin: hash that identifies the page that caused the event, so that this page ignores the
            event; or None.
        id: makes the append idempotent: a store that has already appended this id does not append
            it again. None if the append is never retried.
    """

    name: str
    json: str
    origin: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """An event that was published to a topic.

    Attributes:
        topic: the topic's name.
        name: the event's name, such as ``shipped``.
        json: the data as the JSON text that every client receives.
        cursor: the event's cursor in the topic's log; None for an ephemeral event.
        time: seconds since 1970 on the store's clock; never decreases within a topic.
        origin: hash that identifies the page that caused the event, so that this page ignores the
            event; or None.
    """

    topic: str
    name: str
    json: str
    cursor: Cursor | None = None
    time: float | None = None
    origin: str | None = None

    @property
    def data(self) -> Any:
        """The data as clients see it; each access decodes ``json`` again."""
        return json.loads(self.json)

    @property
    def seq(self) -> int | None:
        """The event's number in its topic's log; None for an ephemeral event."""
        return None if self.cursor is None else self.cursor.seq


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a topic: a user or a visitor who is subscribed to it.

    Attributes:
        id: for a user, the name of the user's own topic, such as ``user.7``; for a visitor who is
            not signed in, ``connection.`` and the public id of the connection, which is no secret.
        user: the user's primary key as text; None for a visitor.
        info: the result of ``Topic.member_info()``, as decoded JSON.
    """

    id: str
    user: str | None
    info: Any
