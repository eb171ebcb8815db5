"""When logs are trimmed: beside the publishing, never in its way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from realtime.exceptions import InvalidTopicName, StoreError, UnknownTopic
from realtime.protocol import names
from realtime.stores import get_store
from realtime.stores.base import Appended, Retention, Store
from realtime.threads import STORE_THREADS
from realtime.topics import Topic, resolve

__all__ = ["INTERNAL_RETENTION", "retention_of", "trim_after", "trim_all", "trim_log_after"]

logger = logging.getLogger("realtime")

# Of the logs of our own: who was away for longer is told the whole list anyway.
INTERNAL_RETENTION = Retention(max_events=500, max_age=86_400.0)

_waiting: set[str] = set()
_lock = threading.Lock()


def retention_of(topic: Topic) -> Retention:
    """Return how much of its log a topic keeps."""
    return Retention(topic.max_events, topic.max_age.total_seconds())


def trim_after(topic: Topic, appended: Appended) -> None:
    """Trim a topic in a thread of the store's if an append made its log too long.

    A tenth more than ``max_events`` is let through, so that a busy topic is trimmed once in many
    appends; a topic trims once at a time in a process.
    """
    trim_log_after(str(topic), retention_of(topic), appended)


def trim_log_after(name: str, retention: Retention, appended: Appended) -> None:
    """Do as ``trim_after()`` does, for a log and what is kept of it."""
    if appended.kept <= retention.max_events + retention.max_events // 10:
        return
    with _lock:
        if name in _waiting:
            return
        _waiting.add(name)
    STORE_THREADS.submit(_trim, get_store(), name, retention)


def _trim(store: Store, name: str, retention: Retention) -> None:
    with _lock:
        # Before the work: an append that comes while it runs may ask again.
        _waiting.discard(name)
    try:
        store.trim(name, retention)
    except StoreError as error:
        logger.warning("%s was not trimmed, a later append does it: %s", name, error)


def trim_all(topics: Iterable[str] | None = None) -> dict[str, int]:
    """Trim the named topics, by default every log that there is; return what was removed.

    Logs whose pattern is no longer registered are left alone: nobody says what they keep.
    """
    store = get_store()
    removed: dict[str, int] = {}
    for name in store.topics() if topics is None else topics:
        if names.is_internal(name):
            store.trim(name, INTERNAL_RETENTION)
            continue
        try:
            topic = resolve(name)
        except (UnknownTopic, InvalidTopicName):
            continue
        removed[name] = store.trim(name, retention_of(topic))
    return removed
