"""The outbox: events of a transaction, and the relay that appends them after its commit.

Inside ``atomic()`` an event is written as a row together with the caller's data: both are committed
or neither.
After the commit the row is *relayed*: appended to its log, announced and deleted.
If the process dies before that, another process relays the row.

Two relays must not append the same row.
If the log is in the same database, deletion and append are one transaction, and the lock of the
topic's row excludes other relays.
For another store, a relay leases the topic's oldest rows and deletes them after the append.
If it dies, or works longer than its lease, the next relay appends the rows again, and the store
ignores the ids that it has seen.
Every relay starts at the oldest row, so the leases keep the order too.

Two aliases can be one database: a direct one and one through a pooler, or a primary and its
replica. Then both kinds of relay meet the same rows. So the first kind leaves leased rows alone,
and has the store look up the ids of rows that were ever leased.

Each database alias is searched for stale rows in threads of its own, so that one whose server hangs
delays no other, and only if it can have rows.
"""

from __future__ import annotations

import concurrent.futures
import logging
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import connections, models, router

from realtime import broadcast
from realtime.broadcast import Wakeup
from realtime.exceptions import InvalidTopicName, PublishError, UnknownTopic
from realtime.on_commit import CommitHook, on_commit_once
from realtime.outage import Outage
from realtime.protocol.events import Draft
from realtime.retention import trim_after
from realtime.stores import get_store
from realtime.stores.base import Appended, Store
from realtime.stores.database.access import (
    DatabaseAccess,
    ReadOnly,
    TablesMissing,
    check_names,
    delete_rows,
)
from realtime.stores.database.batches import batches
from realtime.stores.database.clock import DatabaseClock
from realtime.tenants import explain_tenants
from realtime.threads import RELAY_THREADS, after_fork
from realtime.topics import resolve

if TYPE_CHECKING:
    from realtime.models import OutboxEntry

__all__ = ["put", "relay", "relay_stale", "relay_stale_if_due"]

logger = logging.getLogger("realtime")

BATCH = 500  # rows of a topic that are relayed in one transaction, which takes some tens of ms
STALE_SECONDS = 2.0  # the age at which another process relays a row
STALE_CHECK_SECONDS = 1.0  # between two searches of one process for stale rows
RETRY_SECONDS = (1.0, 10.0)  # from a search that failed to the next, at first and at most
EMPTY_SECONDS = 60.0  # between searches of an alias that cannot have rows of its own
CONNECT_SECONDS = 5  # to connect to an alias whose settings have no connect_timeout
LEASE_SECONDS = 10.0  # longer than an append takes; after a crash the rows wait this long
LOCKED_SECONDS = 5.0  # that a relay waits for a lock before it leaves the rows to a later one
COMMIT_WAIT_SECONDS = 1.0  # that a request waits for the relay after its commit


def _rows(alias: str) -> models.QuerySet[OutboxEntry]:
    model: Any = apps.get_model("realtime", "OutboxEntry")
    rows: models.QuerySet[OutboxEntry] = model.objects.using(alias)
    return rows


def _access(alias: str) -> DatabaseAccess:
    """Return a ``DatabaseAccess``, which waits for locks and replaces broken connections."""
    return DatabaseAccess(alias, "the outbox", LOCKED_SECONDS)


def put(alias: str, items: Sequence[tuple[str, Draft]]) -> None:
    """Write events, each as (topic, draft), in the caller's transaction; relay them after it.

    Raises:
        PublishError: a database router keeps the outbox table out of this alias.
    """
    model: Any = apps.get_model("realtime", "OutboxEntry")
    if not router.allow_migrate_model(alias, model):
        raise PublishError(
            explain_tenants(alias)
            or f"the database {alias!r} has no outbox table, because a database router excludes "
            f"the app 'realtime'; allow it there, then run: manage.py migrate --database {alias}"
        )
    for batch in batches(items, lambda item: len(item[1].json)):
        _rows(alias).bulk_create(
            model(
                uid=secrets.token_urlsafe(12),
                topic=topic,
                name=draft.name,
                json=draft.json,
                origin=draft.origin,
                created=DatabaseClock(),
            )
            for topic, draft in batch
        )
    _outboxes[alias].due = 0.0  # it has rows now, so it is no longer passive
    _relay_after_commit(alias, {topic for topic, _ in items})


class _AfterCommit(CommitHook[tuple[str, str]]):
    """Relays the rows of a savepoint, which are given as (alias, topic)."""

    def run(self) -> None:
        """Start the relays and wait a limited time for them.

        They run in ``RELAY_THREADS``, because this thread may still be in a transaction on the
        log's alias.
        A relay that takes longer continues there; one that fails leaves its rows to a later one.
        """
        started: dict[str, list[concurrent.futures.Future[int]]] = {}
        for alias, topic in sorted(set(self.items)):
            started.setdefault(alias, []).append(_relays.start(alias, topic))
        for alias, relays in started.items():
            _relays.wait(alias, relays)


class _Relays:
    """The queued relays of this process: one per topic, however many commits."""

    def __init__(self) -> None:
        self.reset()
        after_fork(self.reset)

    def reset(self) -> None:
        """Forget the queue; in a forked child no thread runs it, and the lock may be held."""
        self.lock = threading.RLock()  # while Python exits, start() calls run() in this thread
        self.waiting: dict[tuple[str, str], concurrent.futures.Future[int]] = {}
        self.overdue: dict[str, set[concurrent.futures.Future[int]]] = {}  # by alias

    def start(self, alias: str, topic: str) -> concurrent.futures.Future[int]:
        """Relay the rows of a topic that are committed now; return a future of their number."""
        with self.lock:
            future = self.waiting.get((alias, topic))
            if future is None:
                future = RELAY_THREADS[alias].submit(self.run, alias, topic)
                if not future.done():
                    self.waiting[alias, topic] = future
            return future

    def wait(self, alias: str, relays: Sequence[concurrent.futures.Future[int]]) -> None:
        """Wait for relays of an alias, for up to a second; not at all while one takes longer.

        Otherwise each request that publishes would wait a second while the store hangs.
        """
        overdue = {future for future in self.overdue.get(alias, ()) if not future.done()}
        patience = 0.0 if overdue else COMMIT_WAIT_SECONDS
        self.overdue[alias] = overdue | concurrent.futures.wait(relays, patience).not_done

    def run(self, alias: str, topic: str) -> int:
        with self.lock:
            # Before the work, so that a commit during it queues another relay.
            self.waiting.pop((alias, topic), None)
        return _relay_or_log(alias, topic)


_relays = _Relays()


def _relay_after_commit(alias: str, topics: set[str]) -> None:
    # Outside of an atomic block the rows wait until they are stale. Either autocommit is off, and
    # Django has no callbacks then; or the rows are committed already, but this thread holds a lock
    # that the append needs.
    if connections[alias].in_atomic_block:
        on_commit_once(_AfterCommit, [(alias, topic) for topic in topics], using=alias)


def _relay_or_log(alias: str, topic: str) -> int:
    try:
        return relay(alias, topic)
    except Exception as error:
        if isinstance(error, ReadOnly) and error.alias == alias != get_store().alias:
            # A replica, which shows the rows of its primary.
            _outboxes[alias].is_passive(error)
            return 0
        logger.warning("events of %s wait in the outbox of %r", topic, alias, exc_info=True)
        return 0


def relay(alias: str, topic: str) -> int:
    """Append and announce the committed rows of a topic; return the number of events.

    Call it in a thread without an open transaction on the alias.

    Raises:
        StoreUnavailable: the rows stay in the outbox for a later relay.
    """
    store = get_store()
    count = 0
    while True:
        if store.supports_claims and store.alias == alias:
            appended = store.append_claimed(topic, lambda: _take(alias, topic))
        else:
            appended = _append_leased(store, alias, topic)
        if appended is None:
            return count
        count += len(appended.events)
        _announce(topic, appended)


def _announce(topic: str, appended: Appended) -> None:
    broadcast.broadcast([Wakeup.of(topic, appended)])
    # If the topic was unregistered since it was published, its log is not trimmed.
    with suppress(UnknownTopic, InvalidTopicName):
        trim_after(resolve(topic), appended)


def _draft(row: OutboxEntry) -> Draft:
    return Draft(row.name, row.json, row.origin, row.uid)


def _take(alias: str, topic: str) -> list[Draft]:
    """Delete a topic's oldest rows, in the transaction of the append; return their drafts.

    If some are leased, because a relay uses another alias of this database, return [] instead; the
    caller then rolls the transaction back.
    """
    rows = list(_rows(alias).filter(topic=topic).order_by("id")[:BATCH])
    check_names(alias, {row.topic for row in rows}, [topic])
    mine = _rows(alias).filter(id__in=[row.id for row in rows])
    if all(row.leased_until is None for row in rows):
        # No other relay can have appended them: without ids, the store looks up none.
        drafts = [Draft(row.name, row.json, row.origin) for row in rows]
        mine = mine.filter(leased_until=None)
    else:
        drafts = [_draft(row) for row in rows]
        mine = mine.filter(_is_free())
    return drafts if delete_rows(mine) == len(rows) else []


def _is_free() -> models.Q:
    return (
        models.Q(leased_until=None)
        | models.Q(leased_until__lt=DatabaseClock())
        # Later than any lease can end, so the clock was set back.
        | models.Q(leased_until__gt=DatabaseClock() + LEASE_SECONDS)
    )


def _append_leased(store: Store, alias: str, topic: str) -> Appended | None:
    access = _access(alias)
    rows = access.write(lambda _: _lease(alias, topic))
    if not rows:
        return None
    done = _rows(alias).filter(id__in=[row.id for row in rows])
    try:
        appended = store.append(topic, [_draft(row) for row in rows])
    except BaseException:
        # Not None: the events may have been appended nevertheless.
        access.write(lambda _: done.update(leased_until=0.0))
        raise
    access.write(lambda _: delete_rows(done.all()))
    return appended


def _lease(alias: str, topic: str) -> list[OutboxEntry]:
    """Lease a topic's oldest rows and return them, or [] if the oldest is leased."""
    rows = _rows(alias).filter(topic=topic).order_by("id")
    oldest = rows.values_list("id", flat=True).first()
    if oldest is None:
        return []
    until = DatabaseClock() + LEASE_SECONDS
    if not rows.filter(_is_free(), id=oldest).update(leased_until=until):
        return []
    leased = list(rows.filter(id__gte=oldest)[:BATCH])
    check_names(alias, {row.topic for row in leased}, [topic])
    if len(leased) > 1:
        _rows(alias).filter(id__in=[row.id for row in leased[1:]]).update(leased_until=until)
    return leased


def relay_stale(older_than: float = STALE_SECONDS) -> int:
    """Relay committed rows that are still in the outbox, on every alias that can have rows.

    Never raises: rows whose relay fails are found again by the next call.

    Args:
        older_than: the least age of the rows, in seconds of the database's clock; younger ones are
            left to their own process.

    Returns:
        the number of events.
    """
    return sum(_outboxes[alias].relay_stale(older_than) for alias in _aliases())


def _aliases() -> list[str]:
    """Return the aliases whose outbox can have rows, by the settings and the routers."""
    model = apps.get_model("realtime", "OutboxEntry")
    return [
        alias
        for alias in connections
        if connections.settings[alias]["ENGINE"] != "django.db.backends.dummy"  # {} in DATABASES
        and not connections.settings[alias].get("TEST", {}).get("MIRROR")  # so it is a replica
        and router.allow_migrate_model(alias, model)
    ]


class _Outbox:
    """The search for stale rows on one alias: one at a time, and seldom if it fails.

    Attributes:
        searching: whether a search is queued or under way.
        due: the time of the next search, on the monotonic clock.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.searching = False
        self.due = 0.0
        self.outage = Outage(
            f"the outbox of {alias!r} cannot be searched for events of dead processes: %s",
            f"the outbox of {alias!r} can be searched again",
            backoff=RETRY_SECONDS,
        )

    def start_if_due(self, now: float) -> None:
        """Start a search in a thread of the alias, unless one is running or was too recent."""
        if not self.searching and now >= self.due:
            self.searching, self.due = True, now + STALE_CHECK_SECONDS
            RELAY_THREADS[self.alias].submit(self.run)

    def run(self) -> None:
        try:
            _limit_connecting(self.alias)
            self.relay_stale(STALE_SECONDS)
        except Exception:
            logger.exception("stale events in the outbox of %r were not relayed", self.alias)
        finally:
            self.searching = False

    def relay_stale(self, older_than: float) -> int:
        """Relay the stale rows of this alias; return the number of events."""
        if not get_store().durable:
            return 0  # such a store has no outbox: its events wait in memory for a commit
        try:
            topics = _access(self.alias).read(lambda _: self._stale_topics(older_than))
        except TablesMissing as error:
            self.is_passive(error)
            return 0
        except Exception as error:
            self.due = time.monotonic() + self.outage.failed(error)
            return 0
        self.outage.over()
        return sum(_relay_or_log(self.alias, topic) for topic in topics)

    def is_passive(self, error: Exception) -> None:
        """Search seldom from now on, because the alias has no rows of its own."""
        logger.debug("the outbox of %r is not used: %s", self.alias, error)
        self.due = time.monotonic() + EMPTY_SECONDS

    def _stale_topics(self, older_than: float) -> list[str]:
        old = models.Q(created__lt=DatabaseClock() - older_than)
        # A row from the future: the clock was set back, perhaps by hours.
        ahead = models.Q(created__gt=DatabaseClock() + older_than) if older_than > 0 else models.Q()
        stale = _rows(self.alias).filter(old | ahead).order_by()
        return list(stale.values_list("topic", flat=True).distinct()[:BATCH])


def _limit_connecting(alias: str) -> None:
    """Limit the time in which this thread connects to an alias; drivers wait up to two minutes.

    At its exit, Python waits for the thread.
    """
    connection = connections[alias]
    options = connection.settings_dict.get("OPTIONS", {})
    if (
        connection.vendor in ("postgresql", "mysql")
        and connection.connection is None
        and "connect_timeout" not in options
        and "pool" not in options  # it connects in its own threads
    ):
        # A new dict: the other threads share the old one.
        limited = {**options, "connect_timeout": CONNECT_SECONDS}
        connection.settings_dict = {**connection.settings_dict, "OPTIONS": limited}


class _Outboxes(dict[str, _Outbox]):
    """The outboxes of all aliases; searched at most once a second by this process."""

    def __init__(self) -> None:
        super().__init__()
        self.last = time.monotonic()
        self.reset()
        after_fork(self.reset)

    def __missing__(self, alias: str) -> _Outbox:
        return self.setdefault(alias, _Outbox(alias))

    def reset(self) -> None:
        """Forget running searches; in a forked child no thread runs them."""
        self.clear()
        self.lock = threading.Lock()

    def start_if_due(self) -> None:
        now = time.monotonic()
        with self.lock:
            if now - self.last < STALE_CHECK_SECONDS or not threading.main_thread().is_alive():
                return  # too early, or Python exits and has no threads for it
            self.last = now
            for alias in _aliases():
                self[alias].start_if_due(now)


_outboxes = _Outboxes()


def relay_stale_if_due() -> None:
    """Start to relay stale rows in other threads, at most once a second; return at once.

    Every publisher calls this, so the events of a crashed process are sent with the next publish
    even if no server is running.
    """
    _outboxes.start_if_due()
