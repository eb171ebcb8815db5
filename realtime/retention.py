"""Trim logs in the background, so that publishers do not wait."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable
from dataclasses import replace

from realtime import conf
from realtime.exceptions import InvalidTopicName, StoreError, UnknownTopic
from realtime.protocol import names
from realtime.stores import get_store
from realtime.stores.base import LOOK_AGAIN_SECONDS, Appended, Retention, Store
from realtime.threads import STORE_THREADS
from realtime.topics import Topic, resolve

__all__ = [
    "INTERNAL_RETENTION",
    "Trimmer",
    "internal_retention",
    "retention_of",
    "trim_after",
    "trim_all",
    "trim_due",
    "trim_log_after",
]

logger = logging.getLogger("realtime")

# For internal logs; a client that needs older events gets the whole member list instead.
INTERNAL_RETENTION = Retention(max_events=500, max_age=86_400.0)
# For topics that are no longer registered: nobody knows how much of them to keep.
UNKNOWN_RETENTION = Retention(max_events=10**15, max_age=1e11, look_again=LOOK_AGAIN_SECONDS)

_waiting: set[str] = set()  # topics whose trim is queued
_lock = threading.Lock()  # guards _waiting


def retention_of(topic: Topic) -> Retention:
    """Return how much of its log a topic keeps."""
    return Retention(topic.max_events, topic.max_age.total_seconds(), _forget_after())


def internal_retention() -> Retention:
    """Return how much of an internal log is kept."""
    return replace(INTERNAL_RETENTION, forget_after=_forget_after())


def _forget_after() -> float | None:
    after = conf.get().forget_after
    return None if after is None else after.total_seconds()


def _retention_by_name(name: str) -> Retention:
    if names.is_internal(name):
        return internal_retention()
    try:
        return retention_of(resolve(name))
    except (UnknownTopic, InvalidTopicName):
        return replace(UNKNOWN_RETENTION, forget_after=_forget_after())


class Trimmer:
    """Trims many logs, and forgets none that clients follow, because they would be reset.

    Those are the logs of the topics that the last heartbeats of the nodes list: the 1,000 most
    followed topics of each node.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        topics = {topic for node in store.nodes() for topic in node.followers}
        self._followed = topics | {names.presence_log(topic) for topic in topics}

    def trim(self, name: str, retention: Retention) -> int:
        """Trim a log; return how many events were removed."""
        if name in self._followed and retention.forget_after is not None:
            retention = replace(retention, forget_after=math.inf, look_again=LOOK_AGAIN_SECONDS)
        return self._store.trim(name, retention)


def trim_after(topic: Topic, appended: Appended) -> None:
    """Trim a topic in a store thread if an append made its log too long.

    A log can exceed ``max_events`` by a tenth, so that a busy topic is not trimmed at every append.
    A process queues at most one trim per topic at a time.
    """
    trim_log_after(str(topic), retention_of(topic), appended)


def trim_log_after(name: str, retention: Retention, appended: Appended) -> None:
    """Trim a log by name, as ``trim_after()`` does for a topic."""
    if appended.kept <= retention.max_events + retention.max_events // 10:
        return
    with _lock:
        if name in _waiting:
            return
        _waiting.add(name)
    STORE_THREADS.submit(_trim, get_store(), name, retention)


def _trim(store: Store, name: str, retention: Retention) -> None:
    with _lock:
        # Do this before trimming, so that an append during the trim queues another one.
        _waiting.discard(name)
    try:
        store.trim(name, retention)
    except StoreError as error:
        logger.warning("%s was not trimmed; a later append will do it: %s", name, error)


def trim_due() -> None:
    """Trim the logs whose time has come, and forget those that are empty for long.

    The logs of topics that are no longer registered are looked at once a day, and forgotten only if
    they are empty: their retention is unknown.
    """
    store = get_store()
    trimmer = Trimmer(store)
    for name in store.due():
        trimmer.trim(name, _retention_by_name(name))


def trim_all(topics: Iterable[str] | None = None) -> dict[str, int]:
    """Trim topics, by default all; return the number of removed events by topic.

    All logs are looked at, so that a shortened ``max_age`` takes effect at once; ``trim_due()``
    trims a log when its oldest event is as old as ``max_age`` was at the last look.
    Internal logs are trimmed too, but are not in the result. Topics that are no longer registered
    are skipped, because their retention is unknown.
    """
    store = get_store()
    trimmer = Trimmer(store)
    removed: dict[str, int] = {}
    for name in store.topics() if topics is None else topics:
        if names.is_internal(name):
            trimmer.trim(name, internal_retention())
            continue
        try:
            topic = resolve(name)
        except (UnknownTopic, InvalidTopicName):
            continue
        removed[name] = trimmer.trim(name, retention_of(topic))
    return removed
