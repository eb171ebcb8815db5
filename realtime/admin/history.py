"""Stored events, read through the store and so from any store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from realtime.exceptions import CursorExpired, InvalidTopicName, StoreError
from realtime.protocol.events import Cursor, Event
from realtime.stores import get_store
from realtime.topics import find as find_topic

__all__ = ["Window", "find", "names", "newest", "window"]

# What may be appended between two reads of a page; with more the page is shorter, never wrong.
_SLACK = 50
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a topic's log.

    Attributes:
        events: oldest first.
        kept: how many events the log holds.
        older: whether it holds some before these.
    """

    events: Sequence[Event]
    kept: int
    older: bool


def window(topic: str, count: int, before: int | None = None) -> Window:
    """Return the newest events whose number is below ``before``, by default the newest of all.

    Raises:
        StoreUnavailable: the store cannot be read now.
        StoreError: the log was trimmed whenever it was to be read.
    """
    store = get_store()
    for _ in range(_ATTEMPTS):
        head = store.heads([topic])[topic]
        end = head.seq + 1 if before is None else min(before, head.seq + 1)
        first = max(end - count, 1)
        floor = store.locate(topic, last=head.seq + _SLACK).seq
        cursor = store.locate(topic, last=head.seq + 1 - first + _SLACK)
        try:
            events = _between(topic, cursor, first, end)
        except CursorExpired:
            continue  # trimmed between finding the first of them and reading it
        older = bool(events) and (events[0].seq or 0) > floor + 1
        return Window(events, head.seq - floor, older)
    raise StoreError(f"{topic} changes faster than it can be read")


def _between(topic: str, cursor: Cursor, first: int, end: int) -> list[Event]:
    events: list[Event] = []
    while cursor.seq + 1 < end:
        page = get_store().read(topic, cursor, limit=end - 1 - cursor.seq)
        if not page.events:
            break
        events += [event for event in page.events if first <= (event.seq or 0) < end]
        cursor = page.events[-1].cursor or cursor
    return events


def newest(topic: str, count: int) -> Sequence[Event]:
    """Return the newest events, the newest first."""
    return window(topic, count).events[::-1]


def find(topic: str, cursor: Cursor) -> Event | None:
    """Return the event that a cursor names, or None if the log does not hold it (any more).

    Raises:
        StoreUnavailable: the store cannot be read now.
    """
    for event in window(topic, 1, before=cursor.seq + 1).events:
        if event.cursor == cursor:
            return event
    return None


def names(count: int) -> tuple[list[str], bool]:
    """Return topics that have a log, at most so many and sorted, and whether there are more.

    Logs that no registered pattern matches (any more) are left out: nothing can be done with them.

    Raises:
        StoreUnavailable: the store cannot be read now.
    """
    found = list(islice(filter(_is_known, get_store().topics()), count + 1))
    return sorted(found[:count]), len(found) > count


def _is_known(name: str) -> bool:
    try:
        return find_topic(name) is not None
    except InvalidTopicName:
        return False  # one of the library's own
