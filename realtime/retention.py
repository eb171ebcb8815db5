"""When logs are trimmed: beside the publishing, never in its way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from realtime.exceptions import InvalidTopicName, StoreError, UnknownTopic
from realtime.stores import get_store
from realtime.stores.base import Appended, Retention, Store
from realtime.threads import STORE_THREADS
from realtime.topics import Topic, resolve

__all__ = ["retention_of", "trim_after", "trim_all"]

logger = logging.getLogger("realtime")

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
    if appended.kept <= topic.max_events + topic.max_events // 10:
        return
    name = str(topic)
    with _lock:
        if name in _waiting:
            return
        _waiting.add(name)
    STORE_THREADS.submit(_trim, get_store(), name, retention_of(topic))


def _trim(store: Store, name: str, retention: Retention) -> None:
    with _lock:
        # Before the work: an append that comes while it runs may ask again.
        _waiting.discard(name)
    try:
        store.trim(name, retention)
    except StoreError as error:
        logger.warning("%s was not trimmed, a later append does it: %s", name, error)


def trim_all(names: Iterable[str] | None = None) -> dict[str, int]:
    """Trim the named topics, by default every log that there is; return what was removed.

    Logs whose pattern is no longer registered are left alone: nobody says what they keep.
    """
    store = get_store()
    removed: dict[str, int] = {}
    for name in store.topics() if names is None else names:
        try:
            topic = resolve(name)
        except (UnknownTopic, InvalidTopicName):
            continue
        removed[name] = store.trim(name, retention_of(topic))
    return removed
