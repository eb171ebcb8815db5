"""Read stored events for the admin pages.

Everything is read through the store's interface, so it works with every store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.utils.translation import gettext

from realtime.exceptions import CursorExpired, InvalidTopicName, StoreError
from realtime.protocol.events import Cursor, Event
from realtime.stores import get_store
from realtime.topics import find as find_topic

__all__ = ["Window", "find", "newest", "search", "topic_names", "unreadable", "window"]

# Number of events that can be appended while a page is read. If there are more, the page has fewer
# events, but no wrong ones.
_SLACK = 50
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive events of a topic's log.

    Attributes:
        events: oldest first.
        kept: the number of events in the log.
        older: whether the log has events before these.
    """

    events: Sequence[Event]
    kept: int
    older: bool


def window(topic: str, count: int, before: int | None = None) -> Window:
    """Return up to ``count`` of the newest events.

    Args:
        topic: the name of the topic.
        count: the maximum number of events.
        before: return only events with a smaller ``seq``.

    Raises:
        StoreUnavailable: the store cannot be read.
        StoreError: the log was trimmed during every attempt to read it.
    """
    store = get_store()
    for _ in range(_ATTEMPTS):
        head = store.heads([topic])[topic]
        end = head.seq + 1 if before is None else min(before, head.seq + 1)
        first = max(end - count, 1)
        floor = store.locate(topic, last=head.seq + _SLACK).seq
        cursor = store.locate(topic, last=head.seq + 1 - first + _SLACK)
        try:
            events = _read_range(topic, cursor, first, end)
        except CursorExpired:
            continue  # the log was trimmed after locate()
        older = bool(events) and (events[0].seq or 0) > floor + 1
        return Window(events, head.seq - floor, older)
    raise StoreError(f"{topic} changes faster than it can be read")


def _read_range(topic: str, cursor: Cursor, first: int, end: int) -> list[Event]:
    """Return the events after a cursor with ``first <= seq < end``."""
    events: list[Event] = []
    while cursor.seq + 1 < end:
        page = get_store().read(topic, cursor, limit=end - 1 - cursor.seq)
        if not page.events:
            break
        events += [event for event in page.events if first <= (event.seq or 0) < end]
        cursor = page.events[-1].cursor or cursor
    return events


def newest(topic: str, count: int) -> Sequence[Event]:
    """Return the newest events, newest first."""
    return window(topic, count).events[::-1]


def find(topic: str, cursor: Cursor) -> Event | None:
    """Return the event with this cursor, or None if the log does not have it.

    Raises:
        StoreUnavailable: the store cannot be read.
    """
    for event in window(topic, 1, before=cursor.seq + 1).events:
        if event.cursor == cursor:
            return event
    return None


def topic_names(count: int) -> tuple[list[str], bool]:
    """Return up to ``count`` topics that have a log, sorted, and whether there are more.

    Logs without a registered pattern are left out, because the admin cannot show them.

    Raises:
        StoreUnavailable: the store cannot be read.
    """
    names = list(islice(filter(_is_registered, get_store().topics()), count + 1))
    return sorted(names[:count]), len(names) > count


def search(count: int, **wanted: Any) -> list[Event]:
    """Return the newest events that match, newest first; the arguments are ``Store.search()``'s.

    Raises:
        StoreUnavailable: the store cannot be read.
    """
    found = get_store().search(count, **wanted)
    return [event for event in found if _is_registered(event.topic)]


def unreadable(error: StoreError) -> str:
    """Return the message that the pages show when the store cannot be read."""
    return gettext("The stored events cannot be read: %(reason)s") % {"reason": error}


def _is_registered(name: str) -> bool:
    try:
        return find_topic(name) is not None
    except InvalidTopicName:
        return False  # an internal topic
