"""Read and end a topic's log from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.exceptions import CursorExpired
from realtime.protocol.events import Cursor, Event
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
    "delete",
    "head",
    "heads",
    "history",
    "new_epoch",
]


def _name(topic: Topic | str) -> str:
    return str(topic if isinstance(topic, Topic) else resolve(topic))


def head(topic: Topic | str) -> Cursor:
    """Return where a topic's log stands.

    A page that takes it before it reads its data, and follows the topic from there, misses nothing.

    Raises:
        UnknownTopic: no registered pattern matches.
        StoreUnavailable: the store cannot be read now.
    """
    return heads([topic])[0]


def heads(topics: Iterable[Topic | str]) -> list[Cursor]:
    """Return where several logs stand, in the order given and with one query; as ``head()``."""
    names = [_name(topic) for topic in topics]
    found = get_store().heads(names)
    return [found[name] for name in names]


async def ahead(topic: Topic | str) -> Cursor:
    """Do as ``head()`` does."""
    return (await aheads([topic]))[0]


async def aheads(topics: Iterable[Topic | str]) -> list[Cursor]:
    """Do as ``heads()`` does."""
    names = [_name(topic) for topic in topics]
    found = await get_store().aheads(names)
    return [found[name] for name in names]


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
    return get_store().renew(_name(topic), head(topic).epoch)
