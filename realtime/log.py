"""Read and end a topic's log from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.events import Cursor, Event
from realtime.exceptions import CursorExpired
from realtime.stores import get_store
from realtime.threads import STORE_THREADS
from realtime.topics import Topic, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["adelete", "ahead", "ahistory", "delete", "head", "history", "new_epoch"]


def _name(topic: Topic | str) -> str:
    return str(topic if isinstance(topic, Topic) else resolve(topic))


def head(topic: Topic | str) -> Cursor:
    """Return where a topic's log stands.

    A page that takes it before it reads its data, and follows the topic from there, misses nothing.

    Raises:
        UnknownTopic: no registered pattern matches.
        StoreUnavailable: the store cannot be read now.
    """
    name = _name(topic)
    return get_store().heads([name])[name]


async def ahead(topic: Topic | str) -> Cursor:
    """Do as ``head()`` does."""
    name = _name(topic)
    return (await get_store().aheads([name]))[name]


def history(topic: Topic | str, last: int = 100) -> Sequence[Event]:
    """Return the newest events of a topic, oldest first, at most ``last`` of those that are kept.

    Raises:
        UnknownTopic: no registered pattern matches.
        StoreUnavailable: the store cannot be read now.
    """
    name = _name(topic)
    while True:
        try:
            return _newest(name, last)
        except CursorExpired:
            pass  # trimmed between finding the first of them and reading it


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
    """Do as ``history()`` does."""
    return await STORE_THREADS.run(history, topic, last)


def delete(topic: Topic | str) -> Cursor:
    """Remove all events of a topic; whoever follows it is reset once, within seconds.

    Raises:
        UnknownTopic: no registered pattern matches.
        StoreUnavailable: the store cannot be reached now; nothing was removed.
    """
    return get_store().delete(_name(topic))


async def adelete(topic: Topic | str) -> Cursor:
    """Do as ``delete()`` does."""
    return await get_store().adelete(_name(topic))


def new_epoch(topic: Topic | str) -> Cursor:
    """Begin a new life of a topic's log; its events stay, and its followers are reset once.

    For an operator who restored a backup and does not want to wait until a hub notices.
    """
    name = _name(topic)
    store = get_store()
    return store.renew(name, store.heads([name])[name].epoch)
