"""Read a topic's log, delete its events, or start a new epoch."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from realtime.exceptions import CursorExpired, StoreUnavailable
from realtime.protocol.events import Cursor, Event
from realtime.request_time import store_time
from realtime.stores import get_store
from realtime.threads import STORE_THREADS
from realtime.topics import Topic, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "adelete",
    "ahead",
    "aheads",
    "ahistory",
    "asince",
    "delete",
    "head",
    "heads",
    "history",
    "new_epoch",
    "since",
]

logger = logging.getLogger("realtime")


def _name(topic: Topic | str) -> str:
    return str(topic if isinstance(topic, Topic) else resolve(topic))


def head(topic: Topic | str) -> Cursor:
    """Return the cursor of a topic's newest event.

    A page that gets the head before it reads its data, and then subscribes from the head, misses
    no event.

    Raises:
        UnknownTopic: no registered pattern matches.
        StoreUnavailable: the store cannot be read now.
    """
    return heads([topic])[0]


def since(topic: Topic | str) -> str:
    """Return where a page has to start to follow a topic; call it before reading the page's data.

    It is the cursor of the topic's newest event. If the store is unavailable, it is the present
    time, so that the page is answered nevertheless: the page connects when the store is back, and
    receives what was published since then, or one reset. Pass it to ``{% realtime_subscribe %}``
    or to ``realtime.subscribe()`` in a page, as ``since``.

    Raises:
        UnknownTopic: no registered pattern matches.
    """
    try:
        return str(head(topic))
    except StoreUnavailable as error:
        return _now(error)


async def asince(topic: Topic | str) -> str:
    """Async version of ``since()``."""
    try:
        return str(await ahead(topic))
    except StoreUnavailable as error:
        return _now(error)


def _now(error: StoreUnavailable) -> str:
    logger.debug("a page starts at the present time: %s", error)
    return f"@{max(0.0, store_time(time.monotonic())):.3f}"


def heads(topics: Iterable[Topic | str]) -> list[Cursor]:
    """Return the heads of several topics with one query, in the given order; see ``head()``."""
    names = [_name(topic) for topic in topics]
    found = get_store().heads(names)
    return [found[name] for name in names]


async def ahead(topic: Topic | str) -> Cursor:
    """Async version of ``head()``."""
    return (await aheads([topic]))[0]


async def aheads(topics: Iterable[Topic | str]) -> list[Cursor]:
    """Async version of ``heads()``."""
    names = [_name(topic) for topic in topics]
    found = await get_store().aheads(names)
    return [found[name] for name in names]


def history(topic: Topic | str, last: int = 100) -> Sequence[Event]:
    """Return the newest events in a topic's log, at most ``last``, oldest first.

    Raises:
        UnknownTopic: no registered pattern matches.
        StoreUnavailable: the store cannot be read now.
    """
    name = _name(topic)
    while True:
        try:
            return _newest(name, last)
        except CursorExpired:
            pass  # the first event was trimmed before it was read


def _newest(name: str, last: int) -> list[Event]:
    store = get_store()
    events: list[Event] = []
    cursor = store.locate(name, last=last)
    while len(events) < last:
        page = store.read(name, cursor, limit=last - len(events))
        if not page.events:
            break
        events += page.events
        cursor = events[-1].cursor or cursor
    return events


async def ahistory(topic: Topic | str, last: int = 100) -> Sequence[Event]:
    """Async version of ``history()``."""
    return await STORE_THREADS.run(history, topic, last)


def delete(topic: Topic | str) -> Cursor:
    """Delete all events of a topic and return the new head.

    Each client that follows the topic receives one ``reset``, within seconds.

    Raises:
        UnknownTopic: no registered pattern matches.
        StoreUnavailable: the store cannot be reached now; nothing was deleted.
    """
    return get_store().delete(_name(topic))


async def adelete(topic: Topic | str) -> Cursor:
    """Async version of ``delete()``."""
    return await get_store().adelete(_name(topic))


def new_epoch(topic: Topic | str) -> Cursor:
    """Start a new epoch of a topic's log and return the new head; the events stay.

    Each client that follows the topic receives one ``reset``. Call this after restoring a backup,
    instead of waiting until a hub notices.
    """
    return get_store().renew(_name(topic), head(topic).epoch)
