"""Events that wait for their transaction, and the relay that takes them on.

Inside ``atomic()`` an event is written as a row beside the caller's data: both commit or neither.
After the commit the row is *relayed*: appended to its log, announced, gone.
A process that dies in between leaves the row, and any other process relays it.

Where the log lives in the same database, deletion and append are one transaction and the topic's
row lock is the claim.
For another store a lease on the topic's oldest row is the claim, the rows go after the append, and
the store passes over ids that it has seen: a relay that died, or outlived its lease, repeats
nothing.
Only the oldest row needs the lease, since nobody begins anywhere else; so a topic's rows are
relayed in their order.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
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
from realtime.exceptions import InvalidTopicName, PublishError, StoreError, UnknownTopic
from realtime.on_commit import CommitHook, on_commit_once
from realtime.protocol.events import Draft
from realtime.retention import trim_after
from realtime.stores import get_store
from realtime.stores.base import Appended, Store
from realtime.stores.database import DatabaseStore
from realtime.stores.database.access import DatabaseAccess
from realtime.stores.database.clock import DatabaseClock
from realtime.threads import RELAY_THREADS
from realtime.topics import resolve

if TYPE_CHECKING:
    from realtime.models import OutboxEntry

__all__ = ["put", "relay", "relay_stale", "sweep_if_due"]

logger = logging.getLogger("realtime")

BATCH = 500  # rows of a topic a transaction: some tens of ms
STALE_SECONDS = 2.0  # after which a row's own process is taken to be dead or busy
SWEEP_SECONDS = 1.0  # between two looks of one process for stale rows
LEASE_SECONDS = 10.0  # longer than an append to a store that answers; a crash delays by as much
LOCKED_SECONDS = 5.0  # that the relay waits for a lock; after that it is the next sweep's turn
COMMIT_WAIT_SECONDS = 1.0  # that a request waits after its commit for its own relay


def _rows(alias: str) -> models.QuerySet[OutboxEntry]:
    model: Any = apps.get_model("realtime", "OutboxEntry")
    rows: models.QuerySet[OutboxEntry] = model.objects.using(alias)
    return rows


def _access(alias: str) -> DatabaseAccess:
    """Return the way to an alias that waits for locks and opens broken connections anew."""
    return DatabaseAccess(alias, "the outbox", LOCKED_SECONDS)


def put(alias: str, items: Sequence[tuple[str, Draft]]) -> None:
    """Write events into the caller's transaction and relay them after its commit.

    Raises:
        PublishError: the alias has no outbox table, since a database router keeps it away.
    """
    model: Any = apps.get_model("realtime", "OutboxEntry")
    if not router.allow_migrate_model(alias, model):
        raise PublishError(
            f"the database {alias!r} has no outbox, because a database router keeps the app "
            f"'realtime' away; let it in, then run: manage.py migrate --database {alias}"
        )
    _rows(alias).bulk_create(
        model(
            uid=secrets.token_urlsafe(12),
            topic=topic,
            name=draft.name,
            json=draft.json,
            origin=draft.origin,
            created=DatabaseClock(),
        )
        for topic, draft in items
    )
    _relay_after_commit(alias, {topic for topic, _ in items})


class _AfterCommit(CommitHook[tuple[str, str]]):
    """Relays (alias, topic) pairs and waits a moment for it.

    The relays run in threads of our own, on their own connections, because this thread may still be
    in a transaction on the log's alias. One that takes longer goes on there; one that fails leaves
    its rows to a later relay.
    """

    def run(self) -> None:
        relays = [_relays.start(alias, topic) for alias, topic in sorted(set(self.items))]
        concurrent.futures.wait(relays, COMMIT_WAIT_SECONDS)


class _Relays:
    """The relays of this process that have not begun: one a topic, however many commits."""

    def __init__(self) -> None:
        self.reset()
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Start anew: in a forked child nobody runs what waits, and the lock may be held."""
        self.lock = threading.Lock()
        self.waiting: dict[tuple[str, str], concurrent.futures.Future[int]] = {}

    def start(self, alias: str, topic: str) -> concurrent.futures.Future[int]:
        """Relay a topic soon; what was committed until now is in it."""
        with self.lock:
            future = self.waiting.get((alias, topic))
            if future is None:
                future = RELAY_THREADS.submit(self.run, alias, topic)
                self.waiting[alias, topic] = future
            return future

    def run(self, alias: str, topic: str) -> int:
        with self.lock:
            # Before the work: a commit that comes while it runs asks anew.
            self.waiting.pop((alias, topic), None)
        return _relay_or_log(alias, topic)


_relays = _Relays()


def _relay_after_commit(alias: str, topics: set[str]) -> None:
    if connections[alias].in_atomic_block:
        on_commit_once(_AfterCommit, [(alias, topic) for topic in topics], using=alias)
    # Otherwise a later relay of stale rows takes it: autocommit is off by hand, where Django has no
    # hooks, or the row is committed already and waits for a lock that this thread holds on the log.


def _relay_or_log(alias: str, topic: str) -> int:
    try:
        return relay(alias, topic)
    except Exception:
        logger.warning("events of %s wait in the outbox of %r", topic, alias, exc_info=True)
        return 0


def relay(alias: str, topic: str) -> int:
    """Append and announce the committed rows of a topic; return how many events that were.

    Call it where no transaction is open on the alias.

    Raises:
        StoreUnavailable: the rows stay, and a later relay takes them.
    """
    store = get_store()
    count = 0
    while True:
        if isinstance(store, DatabaseStore) and store.alias == alias:
            appended = store.append_claimed(topic, lambda: _take(alias, topic))
        else:
            appended = _append_leased(store, alias, topic)
        if appended is None:
            return count
        count += len(appended.events)
        _announce(topic, appended)


def _announce(topic: str, appended: Appended) -> None:
    broadcast.broadcast([Wakeup.of(topic, appended)])
    # A topic that was unregistered since it was published: its log keeps what it has.
    with suppress(UnknownTopic, InvalidTopicName):
        trim_after(resolve(topic), appended)


def _draft(row: OutboxEntry) -> Draft:
    return Draft(row.name, row.json, row.origin, row.uid)


def _take(alias: str, topic: str) -> list[Draft]:
    """Remove a topic's oldest rows, inside the transaction of the append; return the drafts."""
    rows = list(_rows(alias).filter(topic=topic).order_by("id")[:BATCH])
    _rows(alias).filter(id__in=[row.id for row in rows]).delete()
    return [_draft(row) for row in rows]


def _append_leased(store: Store, alias: str, topic: str) -> Appended | None:
    access = _access(alias)
    rows = access.write(lambda _: _lease(alias, topic))
    if not rows:
        return None
    try:
        appended = store.append(topic, [_draft(row) for row in rows])
    except BaseException:
        oldest = _rows(alias).filter(id=rows[0].id)
        access.write(lambda _: oldest.update(leased_until=None))
        raise
    done = _rows(alias).filter(id__in=[row.id for row in rows])
    access.write(lambda _: done.delete())
    return appended


def _lease(alias: str, topic: str) -> list[OutboxEntry]:
    """Lease a topic's oldest row; return it and those behind it, or nothing if another has it."""
    rows = _rows(alias).filter(topic=topic).order_by("id")
    oldest = rows.values_list("id", flat=True).first()
    if oldest is None:
        return []
    free = (
        models.Q(leased_until=None)
        | models.Q(leased_until__lt=DatabaseClock())
        # Further ahead than any lease goes: the clock was set back since.
        | models.Q(leased_until__gt=DatabaseClock() + LEASE_SECONDS)
    )
    if not rows.filter(free, id=oldest).update(leased_until=DatabaseClock() + LEASE_SECONDS):
        return []
    return list(rows.filter(id__gte=oldest)[:BATCH])


def relay_stale(older_than: float = STALE_SECONDS) -> int:
    """Relay what committed transactions left behind on every alias; return how many events.

    Rows younger than ``older_than`` seconds (database clock) are left to their own process.
    Never raises: what fails now is found by the next sweep.
    """
    if not get_store().durable:
        return 0  # events wait for their commit in memory then
    return sum(_relay_stale_on(alias, older_than) for alias in _aliases())


def _aliases() -> list[str]:
    model = apps.get_model("realtime", "OutboxEntry")
    return [alias for alias in connections if router.allow_migrate_model(alias, model)]


def _relay_stale_on(alias: str, older_than: float) -> int:
    old = models.Q(created__lt=DatabaseClock() - older_than)
    # From the future: the clock was set back since, perhaps by hours.
    ahead = models.Q(created__gt=DatabaseClock() + older_than) if older_than > 0 else models.Q()
    stale = _rows(alias).filter(old | ahead).order_by()
    names = stale.values_list("topic", flat=True).distinct()[:BATCH]
    try:
        topics = _access(alias).read(lambda _: list(names))
    except StoreError as error:
        # An alias that is never migrated, or a server that is away; neither is news each second.
        logger.debug("the outbox of %r cannot be read: %s", alias, error)
        return 0
    return sum(_relay_or_log(alias, topic) for topic in topics)


class _Sweep:
    """At most one sweep a second in a process, whoever asks for it."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.reset()
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Start anew, as ``_Relays.reset()``."""
        self.lock = threading.Lock()
        self.running = False

    def start_if_due(self) -> None:
        now = time.monotonic()
        with self.lock:
            if self.running or now - self.last < SWEEP_SECONDS:
                return
            self.running, self.last = True, now
        RELAY_THREADS.submit(self.run)

    def run(self) -> None:
        try:
            relay_stale()
        finally:
            self.running = False


_sweep = _Sweep()


def sweep_if_due() -> None:
    """Look for stale rows in a thread of our own, at most once a second; return at once.

    Every publisher calls it, so that a crashed process's events go out with the next publish even
    where no server runs.
    """
    _sweep.start_if_due()
