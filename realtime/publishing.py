"""publish(), publish_many() and their async versions: the only way to publish events."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core import mail
from django.core.exceptions import SynchronousOnlyOperation
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connections

from realtime import broadcast, conf, outbox
from realtime.broadcast import Wakeup
from realtime.exceptions import AmbiguousTransaction, PublishError, StoreError
from realtime.on_commit import CommitHook, on_commit_once
from realtime.protocol.encoders import encode_data
from realtime.protocol.events import Draft, Event, check_event_name
from realtime.retention import trim_after
from realtime.stores import get_store
from realtime.stores.base import Appended
from realtime.threads import refuse_green_threads
from realtime.topics import Topic, resolve

if TYPE_CHECKING:
    from django.http import HttpRequest

__all__ = [
    "append",
    "apublish",
    "apublish_many",
    "encode",
    "in_any_transaction",
    "origin_hash",
    "publish",
    "publish_draft",
    "publish_many",
]

logger = logging.getLogger("realtime")

ORIGIN_HEADER = "X-Realtime-Origin"
ORIGIN_LENGTH = 200  # characters of that header that are used; our client sends 22


def encode(data: Any) -> str:
    """Return data as the JSON text that clients receive.

    Raises:
        DataNotSerializable: a value has no JSON form; with ``DEBUG`` and in tests also an integer
            above 2**53, which JavaScript reads as another number. The error names its path.
        DataTooLarge: the text is larger than ``REALTIME["LIMITS"]["event_bytes"]``.
    """
    # Django's test environment adds the outbox. In production, a wrong number is better than a 500.
    is_development = settings.DEBUG or hasattr(mail, "outbox")
    limit = conf.get().limits.event_bytes
    return encode_data(data, DjangoJSONEncoder().default, limit, exact=is_development)


def origin_hash(secret: str) -> str:
    """Return the hash of a page's secret, for the events that the page causes.

    Other clients receive the hash, and must not learn the secret.
    """
    return hashlib.sha256(secret[:ORIGIN_LENGTH].encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Item:
    """One checked and encoded event, not yet published."""

    topic: Topic
    draft: Draft


def _item(topic: Topic | str, name: str, data: Any, exclude: HttpRequest | None = None) -> _Item:
    found = topic if isinstance(topic, Topic) else resolve(topic)
    secret = exclude.headers.get(ORIGIN_HEADER) if exclude is not None else None
    origin = origin_hash(secret) if secret else None
    return _Item(found, Draft(check_event_name(name), encode(data), origin))


def _items(items: Iterable[tuple[Topic | str, str, Any]]) -> list[_Item]:
    checked = []
    item: Any
    for index, item in enumerate(items):
        # A fourth value must not pass as `exclude`, nor a string of three letters as a triple.
        if not isinstance(item, tuple | list) or len(item) != 3:
            raise TypeError(f"items[{index}] is {reprlib.repr(item)}, not (topic, name, data)")
        topic, name, data = item
        checked.append(_item(topic, name, data))
    return checked


def publish(
    topic: Topic | str,
    name: str,
    data: Any = None,
    *,
    using: str | None = None,
    exclude: HttpRequest | None = None,
    ephemeral: bool = False,
) -> Event | None:
    """Publish an event to all followers of a topic.

    Inside ``atomic()`` the event belongs to the transaction: it is written to the outbox together
    with the caller's data and published after the commit, even if this process dies in between.
    A rollback, including that of a savepoint, discards it.
    Outside of ``atomic()`` it is appended to the topic's log before this returns.

    Args:
        topic: a ``Topic`` instance or a topic's name.
        name: what happened, such as ``"shipped"``; 1 to 100 of ``A-Z a-z 0-9 _ ~ @ + : . -``.
        data: anything that ``DjangoJSONEncoder`` encodes, without NaN and infinities; encoded at
            the call, so later changes to it have no effect. Send integers above 2**53 as strings:
            JavaScript reads them as other numbers. With ``DEBUG`` and in tests they are refused.
        using: the database alias whose transaction the event belongs to; ``"default"`` if None.
        exclude: a request; the page that sent it ignores the event, because it made the change.
        ephemeral: broadcast without a log: no cursor, no replay, at most once. Inside ``atomic()``
            it waits for the commit too, in memory, and is lost with the process.

    Returns:
        The event, or None if it waits for a commit.

    Raises:
        UnknownTopic: no registered pattern matches; the error lists the nearest.
        InvalidTopicName, InvalidEventName: the name breaks the grammar.
        DataNotSerializable, DataTooLarge: the data cannot be sent.
        AmbiguousTransaction: another alias is in ``atomic()``; pass ``using``.
        PublishError: the event could not be appended and no transaction keeps it; try again.
        SynchronousOnlyOperation: called in an event loop; use ``await apublish(…)`` there, or set
            ``DJANGO_ALLOW_ASYNC_UNSAFE`` in a notebook, as for the ORM.
        ImproperlyConfigured: gevent or eventlet has replaced the threads of this process.

    Guarantees:
        Every event of a committed transaction is published, and none before the commit.
        Events of one thread keep their order.
    """
    refuse_green_threads()
    _refuse_event_loop("publish", "apublish")
    item = _item(topic, name, data, exclude)
    alias = _open_transaction(using)
    if alias is not None:
        _wait_for_commit(alias, [item], ephemeral=ephemeral)
        return None
    outbox.relay_stale_if_due()
    if ephemeral:
        event = _ephemeral(item)
        broadcast.broadcast([Wakeup(event.topic, None, (event,))])
        return event
    return append(item.topic, [item.draft]).events[0]


async def apublish(
    topic: Topic | str,
    name: str,
    data: Any = None,
    *,
    using: str | None = None,
    exclude: HttpRequest | None = None,
    ephemeral: bool = False,
) -> Event | None:
    """Async version of ``publish()``.

    The transaction is that of the thread-sensitive thread, which runs Django's synchronous code for
    this task. So an event of ``async_to_sync(apublish)(…)`` inside ``atomic()`` belongs to that
    transaction.
    """
    item = _item(topic, name, data, exclude)
    if await _await_commit([item], using, ephemeral=ephemeral):
        return None
    outbox.relay_stale_if_due()
    return await publish_draft(item.topic, item.draft, ephemeral=ephemeral)


async def publish_draft(topic: Topic, draft: Draft, *, ephemeral: bool = False) -> Event:
    """Append and announce an event outside of any transaction; an ephemeral one is not appended.

    Raises:
        PublishError: the event could not be appended.
    """
    if ephemeral:
        event = _ephemeral(_Item(topic, draft))
        await broadcast.abroadcast([Wakeup(event.topic, None, (event,))])
        return event
    name = str(topic)
    try:
        appended = await get_store().aappend(name, [draft])
    except StoreError as error:
        raise PublishError(f"{name} could not be published to: {error}") from error
    trim_after(topic, appended)
    await broadcast.abroadcast([Wakeup.of(name, appended)])
    return appended.events[0]


def publish_many(
    items: Iterable[tuple[Topic | str, str, Any]], *, using: str | None = None
) -> list[Event] | None:
    """Publish many events, with one transaction per topic.

    All events are checked and encoded before the first is appended.
    Topics are processed in the order of their names, and the events of a topic in the given order.

    Args:
        items: ``(topic, name, data)`` of each event.
        using: as for ``publish()``.

    Returns:
        The events in the given order, or None if they wait for a commit.

    Raises:
        TypeError: an item is not a triple; the error says which.
        PublishError: some events could not be appended; ``published`` lists those that were.
        Any other error of ``publish()``: nothing was published.
    """
    refuse_green_threads()
    _refuse_event_loop("publish_many", "apublish_many")
    checked = _items(items)
    alias = _open_transaction(using)
    if alias is not None:
        _wait_for_commit(alias, checked)
        return None
    outbox.relay_stale_if_due()
    published: dict[int, Event] = {}
    for numbers in _by_topic(checked):
        try:
            appended = append(checked[numbers[0]].topic, [checked[n].draft for n in numbers])
        except PublishError as error:
            raise PublishError(error.reason, _in_order(published)) from error
        published.update(zip(numbers, appended.events, strict=True))
    return _in_order(published)


async def apublish_many(
    items: Iterable[tuple[Topic | str, str, Any]], *, using: str | None = None
) -> list[Event] | None:
    """Async version of ``publish_many()``."""
    checked = _items(items)
    if await _await_commit(checked, using):
        return None
    outbox.relay_stale_if_due()
    published: dict[int, Event] = {}
    for numbers in _by_topic(checked):
        topic = checked[numbers[0]].topic
        try:
            appended = await get_store().aappend(str(topic), [checked[n].draft for n in numbers])
        except StoreError as error:
            reason = f"{topic} could not be published to: {error}"
            raise PublishError(reason, _in_order(published)) from error
        published.update(zip(numbers, appended.events, strict=True))
        trim_after(topic, appended)
        await broadcast.abroadcast([Wakeup.of(str(topic), appended)])
    return _in_order(published)


def _by_topic(items: Sequence[_Item]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(str(item.topic), []).append(number)
    return [groups[name] for name in sorted(groups)]


def _in_order(published: dict[int, Event]) -> list[Event]:
    return [published[number] for number in sorted(published)]


def append(topic: Topic, drafts: Sequence[Draft]) -> Appended:
    """Append and announce events of a topic outside of any transaction.

    Raises:
        PublishError: the events could not be appended.
    """
    name = str(topic)
    try:
        appended = get_store().append(name, drafts)
    except StoreError as error:
        raise PublishError(f"{name} could not be published to: {error}") from error
    trim_after(topic, appended)
    broadcast.broadcast([Wakeup.of(name, appended)])
    return appended


def _ephemeral(item: _Item) -> Event:
    draft = item.draft
    return Event(str(item.topic), draft.name, draft.json, origin=draft.origin)


def _refuse_event_loop(name: str, async_name: str) -> None:
    if os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"):
        return  # as Django's ORM does then, for notebooks
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SynchronousOnlyOperation(
        f"{name}() would block this event loop; write: await {async_name}(…)"
    )


def _open_transaction(using: str | None) -> str | None:
    """Return the alias in whose outbox the event must wait, or None to publish it now.

    Raises:
        AmbiguousTransaction: another alias is in a transaction and ``using`` was not given.
    """
    alias = "default" if using is None else using
    if _in_transaction(alias) or _log_is_locked(alias):
        return alias
    if using is None:
        others = [
            connection.alias
            for connection in connections.all(initialized_only=True)
            if connection.in_atomic_block and _in_transaction(connection.alias)
        ]
        if others:
            raise AmbiguousTransaction(alias, others)
    return None


def in_any_transaction() -> bool:
    """Tell whether this thread is in a transaction on any alias."""
    return any(_in_transaction(one.alias) for one in connections.all(initialized_only=True))


def _in_transaction(alias: str) -> bool:
    connection = connections[alias]
    # With autocommit off there is always a transaction, even outside of an atomic block.
    return connection.in_atomic_block or (
        connection.connection is not None and not connection.autocommit
    )


def _log_is_locked(alias: str) -> bool:
    """Tell whether this thread holds a lock that an append would wait for.

    It does if the log is on another alias, in SQLite, and this thread has a transaction there.
    """
    log = get_store().alias
    return (
        log is not None
        and log != alias
        and connections[log].vendor == "sqlite"
        and _in_transaction(log)
    )


def _wait_for_commit(alias: str, items: Sequence[_Item], *, ephemeral: bool = False) -> None:
    if get_store().durable and not ephemeral:
        outbox.put(alias, [(str(item.topic), item.draft) for item in items])
        return
    if not connections[alias].in_atomic_block:
        raise PublishError(
            f"autocommit is off on {alias!r}, so Django does not tell when the transaction "
            "commits, and only stored events of a durable store can wait for that; publish inside "
            "atomic() with autocommit on"
        )
    # These events do not outlive the process anyway, so they wait in memory. The keys give them the
    # same order as the outbox: before events that other on_commit() callbacks publish.
    topics = {str(item.topic) for item in items}
    on_commit_once(AfterCommit, [(items, ephemeral)], using=alias, keys=topics)


class AfterCommit(CommitHook[tuple[Sequence[_Item], bool]]):
    """Publishes events that waited in memory for the commit."""

    def run(self) -> None:
        """Publish the events of each call; a failure does not stop the next ones."""
        for items, ephemeral in self.items:
            try:
                _publish_now(items, ephemeral=ephemeral)
            except Exception:
                logger.exception("committed events could not be published")


def _publish_now(items: Sequence[_Item], *, ephemeral: bool) -> None:
    if ephemeral:
        events = map(_ephemeral, items)
        broadcast.broadcast([Wakeup(event.topic, None, (event,)) for event in events])
        return
    for numbers in _by_topic(items):
        append(items[numbers[0]].topic, [items[number].draft for number in numbers])


async def _await_commit(
    items: Sequence[_Item], using: str | None, *, ephemeral: bool = False
) -> bool:
    """Add the events to the open transaction; return False if there is none."""

    def add_to_transaction() -> bool:
        alias = _open_transaction(using)
        if alias is None:
            return False
        _wait_for_commit(alias, items, ephemeral=ephemeral)
        return True

    return await sync_to_async(add_to_transaction, thread_sensitive=True)()
