"""The values that everything here is about: an event, its cursor, and who is on a topic."""

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

    An event name is 1 to 100 of the characters ``A-Z a-z 0-9 _ ~ @ + : . -``, the characters
    of a topic name, so that it can stand in a stream's line and in a DOM event's type.

    Raises:
        InvalidEventName: it is not.
    """
    if not isinstance(name, str) or _EVENT_NAME.fullmatch(name) is None:
        raise InvalidEventName(
            str(name), "use 1 to 100 of the characters A-Z a-z 0-9 _ ~ @ + : . -"
        )
    return name


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a topic's log: just after the event that it names.

    On the wire it is one opaque string, ``str(cursor)``; nothing but this class reads it.

    Attributes:
        epoch: one life of the log; 1 to 32 URL-safe characters.
        seq: the event's number in the log; 0 is the beginning, before the first event.
        tag: 32 random bits of the event, so that a cursor from before a restored backup or an
            invented one does not pass for another event with the same number.
    """

    epoch: str
    seq: int
    tag: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}.{self.tag:08x}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read a cursor that ``str(cursor)`` wrote.

        Raises:
            InvalidCursor: the text is something else.
        """
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise InvalidCursor(text)
        return cls(match[1], int(match[2]), int(match[3], 16))


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that has no place in a log yet.

    Attributes:
        name: the event's name.
        json: its data, already encoded.
        origin: hash of the page that caused it and ignores it, or None.
        id: made once per event where its append may be repeated (a relay that died); a store
            that has seen the id does not append it again. None where that cannot happen.
    """

    name: str
    json: str
    origin: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was published on a topic.

    Attributes:
        topic: the topic's name.
        name: what happened, such as ``shipped``.
        json: the data as the JSON text that every client receives.
        cursor: its place in the topic's log; None for an ephemeral event.
        time: seconds since 1970 on the store's clock; never decreases within a topic.
        origin: hash of the page that caused it and ignores it, or None.
    """

    topic: str
    name: str
    json: str
    cursor: Cursor | None = None
    time: float | None = None
    origin: str | None = None

    @property
    def data(self) -> Any:
        """The data, decoded anew from ``json`` at each access: as clients see it."""
        return json.loads(self.json)

    @property
    def seq(self) -> int | None:
        """The event's number in its topic's log; None for an ephemeral event."""
        return None if self.cursor is None else self.cursor.seq


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who is on a topic.

    Attributes:
        id: ``user.7`` for the user 7, the name of the user's own topic; for a visitor who is not
            signed in, ``connection.`` and a name of the connection that gives no rights.
        user: the user's primary key as text; None for a visitor.
        info: what ``Topic.member_info()`` returned, as JSON has it.
    """

    id: str
    user: str | None
    info: Any
