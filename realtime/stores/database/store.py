"""A store in a database of the Django project: SQLite, PostgreSQL or MariaDB.

Every append is a short transaction of its own, which first locks the row of its topic.
Every read is one statement, so that it is consistent on every database and at every isolation
level.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import FilteredRelation, Max, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Lower
from django.db.models.lookups import Contains

from realtime.exceptions import CursorExpired
from realtime.protocol.events import Cursor, Draft, Event
from realtime.protocol.names import INTERNAL
from realtime.stores.base import (
    LOOK_AGAIN_SECONDS,
    READ_BYTES,
    READ_LIMIT,
    SEEN_SECONDS,
    Appended,
    Page,
    Retention,
    new_epoch,
    new_tag,
)
from realtime.stores.database.access import DatabaseAccess, check_names, delete_rows
from realtime.stores.database.batches import batches
from realtime.stores.database.clock import DatabaseClock
from realtime.stores.database.members import DatabaseMembers
from realtime.stores.database.tables import STATE_COLUMNS, STORE_ID, LogRow, Tables
from realtime.stores.log_state import LogState, cut

if TYPE_CHECKING:
    from realtime.models import LogEvent

__all__ = ["DatabaseStore"]

# Events that the first query of a read loads, enough for most reads. More queries follow only while
# max_bytes is not reached: very large events would be loaded only to be cut off.
FIRST_BATCH = 64
NAMES_PER_QUERY = 10_000  # SQLite allows 32,766 parameters
TRIM_BATCH = 1_000  # rows per transaction, which locks the topic (SQLite: the file) for 5 ms
TOPICS_BATCH = 500


class DatabaseStore(DatabaseMembers):
    """The logs in the tables of this app, on the alias ``OPTIONS["using"]``.

    A call inside the caller's ``atomic()`` is not part of that transaction: it runs on another
    connection. On SQLite it fails after ``LOCKED_SECONDS`` if the caller has written, because it
    waits for the caller's own lock; ``publish()`` therefore leaves such an append to the outbox.
    """

    shared = True
    durable = True
    supports_claims = True

    #: Seconds that an operation is retried while it meets a lock, in addition to the driver's own
    #: timeout (5 s for SQLite in Django). A transaction that holds a lock for longer is probably
    #: stuck.
    LOCKED_SECONDS = 10.0

    def __init__(self, location: str = "", options: dict[str, object] | None = None) -> None:
        super().__init__(location, options)
        alias = self.options.get("using", "default")
        unknown = sorted(self.options.keys() - {"using"})
        if location or unknown:
            what = f"option {unknown[0]!r}" if unknown else "LOCATION"
            raise ImproperlyConfigured(
                f'DatabaseStore has no {what}; name the database in OPTIONS: {{"using": "default"}}'
            )
        if not isinstance(alias, str) or alias not in connections.settings:
            raise ImproperlyConfigured(
                f'DatabaseStore\'s OPTIONS["using"] is {alias!r}, which is not in DATABASES'
            )
        self.alias: str = alias
        self._tables = Tables(alias)
        self._access = DatabaseAccess(alias, type(self).__name__, self.LOCKED_SECONDS)

    # Appending

    def append(self, topic: str, drafts: Sequence[Draft]) -> Appended:
        """Append events to a topic's log, all or none, in the store's own transaction."""

        def operation(connection: BaseDatabaseWrapper) -> Appended:
            log = self._tables.lock(connection, topic)
            appended = self._insert(log, self._unseen(log, drafts))
            if not appended.events:
                connection.set_rollback(True)  # also undoes the row that lock() may have created
            return appended

        return self._access.write(operation)

    def append_claimed(self, topic: str, claim: Callable[[], Sequence[Draft]]) -> Appended | None:
        """Append the drafts of outbox rows, in the transaction that deletes the rows."""

        def operation(connection: BaseDatabaseWrapper) -> Appended | None:
            log = self._tables.lock(connection, topic)
            drafts = claim()
            if not drafts:
                connection.set_rollback(True)
                return None
            return self._insert(log, self._unseen(log, drafts))

        return self._access.write(operation)

    def _unseen(self, log: LogRow, drafts: Sequence[Draft]) -> list[Draft]:
        """Return the drafts whose ids were not seen, and remember those ids."""
        ids = {draft.id for draft in drafts if draft.id is not None}
        if not ids:
            return list(drafts)
        rows = self._tables.seen.filter(log_id=log.pk, uid__in=ids)
        delete_rows(rows.filter(time__lt=log.now - SEEN_SECONDS))
        seen: set[str | None] = set(rows.values_list("uid", flat=True))
        self._tables.seen.bulk_create(
            self._tables.seen.model(log_id=log.pk, uid=uid, time=log.now) for uid in ids - seen
        )
        unseen = []
        for draft in drafts:
            if draft.id is None or draft.id not in seen:
                unseen.append(draft)
                seen.add(draft.id)
        return unseen

    def _insert(self, log: LogRow, drafts: Sequence[Draft]) -> Appended:
        state = log.state
        time = max(log.now, log.time)
        events = tuple(
            Event(
                state.topic,
                draft.name,
                draft.json,
                Cursor(state.epoch, seq, new_tag()),
                time,
                draft.origin,
            )
            for seq, draft in enumerate(drafts, state.seq + 1)
        )
        if events:
            head = _cursor(events[-1])
            for batch in batches(events, lambda event: len(event.json)):
                self._tables.events.bulk_create(self._row(log.pk, event) for event in batch)
            changes: dict[str, Any] = {"seq": head.seq, "tag": head.tag, "time": time}
            if state.seq == state.floor_seq:
                changes["trim_at"] = time  # the next trim sets when the first event is too old
            self._tables.logs.filter(pk=log.pk).update(**changes)
        kept = state.seq + len(events) - state.floor_seq
        return Appended(state.head, events, kept)

    def _row(self, pk: int, event: Event) -> LogEvent:
        cursor = _cursor(event)
        return self._tables.events.model(
            log_id=pk,
            seq=cursor.seq,
            tag=cursor.tag,
            name=event.name,
            json=event.json,
            origin=event.origin,
            time=event.time or 0.0,
        )

    # Reading

    def heads(self, topics: Collection[str]) -> dict[str, Cursor]:
        """Return the head of each topic, with one query for every 10,000 topics."""
        names = list(topics)
        heads: dict[str, Cursor] = {}
        for start in range(0, len(names), NAMES_PER_QUERY):
            batch = names[start : start + NAMES_PER_QUERY]
            heads |= self._access.read(partial(self._heads, batch))
        return heads

    def _heads(self, names: list[str], _: BaseDatabaseWrapper) -> dict[str, Cursor]:
        rows = self._tables.logs.filter(name__in=[*names, STORE_ID]).values_list(*STATE_COLUMNS)
        states = {row[0]: LogState(*row) for row in rows}
        check_names(self.alias, states, {*names, STORE_ID})
        store_id = (states.get(STORE_ID) or self._tables.new_state(STORE_ID)).epoch
        return {name: states.get(name, LogState(name, store_id)).head for name in names}

    def read(
        self, topic: str, after: Cursor, limit: int = READ_LIMIT, max_bytes: int = READ_BYTES
    ) -> Page:
        """Return the events after a cursor, oldest first."""
        limit = max(limit, 1)
        page = self._read_batch(topic, after, min(limit, FIRST_BATCH))
        events = list(page.events)
        size = sum(len(event.json) for event in events)
        while events and size < max_bytes and len(events) < limit:
            last = _cursor(events[-1])
            if last == page.head:
                break
            try:
                page = self._read_batch(topic, last, min(limit - len(events), READ_LIMIT))
            except CursorExpired:
                break  # the events so far are contiguous; the next call raises
            events += page.events
            size += sum(len(event.json) for event in page.events)
        return Page(cut(events, max_bytes), page.head)

    def _read_batch(self, topic: str, after: Cursor, limit: int) -> Page:
        return self._access.read(lambda _: self._read(topic, after, limit))

    def _read(self, topic: str, after: Cursor, limit: int) -> Page:
        # One statement joins the log's row to the events, including the cursor's own event, so that
        # they are consistent under a concurrent trim, append or new epoch. Sequence numbers
        # have no holes, so a range of them limits the rows, and the index returns them in order.
        near = Q(events__seq__gte=after.seq, events__seq__lte=after.seq + limit)
        columns = ("seq", "tag", "name", "json", "time", "origin")
        rows = list(
            self._tables.logs.filter(name__in=[topic, STORE_ID])
            .annotate(near=FilteredRelation("events", condition=near))
            .order_by("near__seq")
            .values_list(*STATE_COLUMNS, *(f"near__{column}" for column in columns))
        )
        width = len(STATE_COLUMNS)
        state = self._tables.log_state(topic, [row[:width] for row in rows])
        found = [row[width:] for row in rows if row[0] == topic and row[width] is not None]
        own = found.pop(0)[1] if found and found[0][0] == after.seq else None
        state.check(after, own)
        events = []
        for expected, (seq, tag, name, json, time, origin) in enumerate(found, after.seq + 1):
            if seq != expected:
                break
            cursor = Cursor(state.epoch, seq, tag)
            events.append(Event(topic, name, json, cursor, time, origin))
        if not events and after.seq < state.seq:
            raise state.expired(after, contradicts=False)  # the next rows were deleted by hand
        return Page(tuple(events), state.head)

    def locate(self, topic: str, *, last: int | None = None, since: float | None = None) -> Cursor:
        """Return the cursor from which ``read()`` returns the wanted events."""
        return self._access.read(lambda _: self._locate(topic, last, since))

    def _locate(self, topic: str, last: int | None, since: float | None) -> Cursor:
        events = self._tables.events.filter(log_id=OuterRef("pk")).order_by()
        queries: list[QuerySet[LogEvent]] = []
        if last is not None:
            queries.append(events.filter(seq=OuterRef("seq") - max(last, 0)))
        if since is not None:
            queries.append(events.filter(time__lt=since).order_by("-seq"))
        annotations = {}
        for number, query in enumerate(queries):
            annotations[f"seq{number}"] = Subquery(query.values("seq")[:1])
            annotations[f"tag{number}"] = Subquery(query.values("tag")[:1])
        rows = list(
            self._tables.logs.filter(name__in=[topic, STORE_ID])
            .annotate(**annotations)
            .values_list(*STATE_COLUMNS, *annotations)
        )
        width = len(STATE_COLUMNS)
        state = self._tables.log_state(topic, [row[:width] for row in rows])
        best = (-1, 0)
        for row in rows:
            if row[0] == topic:
                pairs = zip(row[width::2], row[width + 1 :: 2], strict=True)
                best = max([best, *((seq, tag) for seq, tag in pairs if seq is not None)])
        if since is not None and last is None:
            state.check_since(since)
        if not queries or (last is not None and last <= 0):
            return state.head
        if best[0] <= state.floor_seq:
            return state.floor
        return state.cursor(*best)

    # Trimming and epochs

    def trim(self, topic: str, retention: Retention) -> int:
        """Remove the events that the retention does not keep; return how many."""
        removed = 0
        # Look first without the lock: most topics have nothing to trim.
        if self._access.read(lambda _: self._has_to_trim(topic, retention)):
            count = TRIM_BATCH
            while count == TRIM_BATCH:
                count = self._access.write(lambda c: self._trim_batch(c, topic, retention))
                removed += count
        if removed:
            self._expire_seen()
        return removed

    def _has_to_trim(self, topic: str, retention: Retention) -> bool:
        log = self._tables.find(self._tables.logs, topic)
        if log is None:
            return False
        seq = self._trim_to(log, retention)
        next_look = self._next_look(log, seq, retention)
        is_over = next_look is not None and next_look <= log.now
        return seq > log.state.floor_seq or next_look != log.trim_at or is_over

    def _trim_to(self, log: LogRow, retention: Retention) -> int:
        """Return the seq up to which the next batch can be removed; the floor's if none can."""
        state = log.state
        end = min(state.seq, state.floor_seq + TRIM_BATCH)
        aged = None
        if end > state.floor_seq:
            old = self._tables.events.filter(log_id=log.pk, seq__lte=end)
            aged = old.filter(time__lt=log.now - retention.max_age).aggregate(seq=Max("seq"))["seq"]
        seq = min(end, max(aged or 0, state.seq - max(retention.max_events, 0)))
        return max(seq, state.floor_seq)

    def _next_look(self, log: LogRow, seq: int, retention: Retention) -> float | None:
        """Return when to look at the log again, once the events up to ``seq`` are removed."""
        oldest: float | None = None
        if seq < log.state.seq:
            first = self._tables.events.filter(log_id=log.pk, seq=seq + 1)
            oldest = next(iter(first.values_list("time", flat=True)), log.time)
        return retention.next_look(log.now, oldest, max(log.time, log.state.floor_time))

    def _trim_batch(self, connection: BaseDatabaseWrapper, topic: str, retention: Retention) -> int:
        log = self._tables.try_lock(connection, topic)
        if log is None:
            return 0
        seq = self._trim_to(log, retention)
        next_look = self._next_look(log, seq, retention)
        changes: dict[str, Any] = {}
        if seq > log.state.floor_seq:
            old = self._tables.events.filter(log_id=log.pk, seq__lte=seq)
            last = old.filter(seq=seq).values_list("tag", "time")
            # If the event was deleted by hand, its tag and time are lost: a random tag matches no
            # cursor, and the time of the log's last event is not earlier.
            tag, time = next(iter(last), (new_tag(), log.time))
            delete_rows(old)
            changes = {"floor_seq": seq, "floor_tag": tag, "floor_time": time}
        if seq == log.state.seq and next_look is not None and next_look <= log.now:
            if self._tables.forget(log):
                return seq - log.state.floor_seq
            next_look = log.now + LOOK_AGAIN_SECONDS
        self._tables.logs.filter(pk=log.pk).update(**changes, trim_at=next_look)
        return seq - log.state.floor_seq

    def _expire_seen(self) -> None:
        while self._access.read(lambda _: self._expire_seen_batch()) == TRIM_BATCH:
            pass

    def _expire_seen_batch(self) -> int:
        old = self._tables.seen.filter(time__lt=DatabaseClock() - SEEN_SECONDS)
        batch = list(old.order_by("time").values_list("pk", flat=True)[:TRIM_BATCH])
        if batch:
            delete_rows(self._tables.seen.filter(pk__in=batch))
        return len(batch)

    def due(self) -> Iterator[str]:
        """Iterate over the names of the logs that have to be trimmed now, each once."""
        self._expire_seen()
        now = self.clock()  # a constant: no index serves a comparison with a clock
        found: set[str] = set()
        while True:
            # The logs of the batch before are trimmed, so they are no longer due.
            batch = set(self._access.read(lambda _: self._due(now))) - found
            if not batch:
                return
            found |= batch
            yield from batch

    def _due(self, now: float) -> list[str]:
        rows = self._tables.logs.filter(trim_at__lte=now).exclude(name=STORE_ID)
        return list(rows.order_by("trim_at").values_list("name", flat=True)[:TOPICS_BATCH])

    def renew(self, topic: str, epoch: str) -> Cursor:
        """Begin a new epoch if the log's epoch is still ``epoch``; return the head."""

        def operation(connection: BaseDatabaseWrapper) -> Cursor:
            log = self._tables.lock(connection, topic)
            if log.state.epoch != epoch:
                connection.set_rollback(True)
                return log.state.head
            renewed = replace(log.state, epoch=new_epoch())
            renewed_at = max(log.time, log.now)  # so that the log is not forgotten at once
            self._tables.logs.filter(pk=log.pk).update(epoch=renewed.epoch, time=renewed_at)
            return renewed.head

        return self._access.write(operation)

    def delete(self, topic: str) -> Cursor:
        """Remove a topic's events and begin a new epoch at seq 0; return the head."""

        def operation(connection: BaseDatabaseWrapper) -> Cursor:
            log = self._tables.lock(connection, topic)
            delete_rows(self._tables.events.filter(log_id=log.pk))
            emptied = LogState(topic, new_epoch(), floor_time=max(log.now, log.time))
            self._tables.logs.filter(pk=log.pk).update(
                epoch=emptied.epoch,
                seq=0,
                tag=0,
                floor_seq=0,
                floor_tag=0,
                floor_time=emptied.floor_time,
                trim_at=log.now,
            )
            return emptied.head

        return self._access.write(operation)

    def topics(self) -> Iterator[str]:
        """Iterate over the names of all topics that have a log."""
        last = 0
        while True:
            # In batches, so that no query stays open while the caller works on a topic.
            batch = self._access.read(partial(self._names, last))
            yield from (name for _, name in batch)
            if len(batch) < TOPICS_BATCH:
                return
            last = batch[-1][0]

    def _names(self, last: int, _: BaseDatabaseWrapper) -> list[tuple[int, str]]:
        rows = self._tables.logs.exclude(name=STORE_ID).filter(pk__gt=last).order_by("pk")
        return list(rows.values_list("pk", "name")[:TOPICS_BATCH])

    def search(
        self,
        limit: int,
        *,
        topic: str = "",
        exact: bool = False,
        name: str = "",
        since: float | None = None,
        until: float | None = None,
    ) -> list[Event]:
        """Return the newest events of all topics but internal ones, newest first."""
        # Not "icontains", which ignores case on MariaDB only where the column's collation does.
        topics = Q(log__name=topic) if exact else _contains("log__name", topic)
        wanted = topics & ~Q(log__name__startswith=INTERNAL) & _contains("name", name)
        if since is not None:
            wanted &= Q(time__gte=since)
        if until is not None:
            wanted &= Q(time__lte=until)
        found = self._access.read(lambda _: self._search(limit, wanted))
        if exact:
            check_names(self.alias, {event.topic for event in found}, [topic])
        return found

    def _search(self, limit: int, wanted: Q) -> list[Event]:
        # In the order of the primary key, which has an index and is nearly that of the times.
        columns = ("log__epoch", "seq", "tag", "log__name", "name", "json", "time", "origin")
        rows = self._tables.events.filter(wanted).order_by("-pk").values_list(*columns)[:limit]
        found = [
            Event(topic, name, json, Cursor(epoch, seq, tag), time, origin)
            for epoch, seq, tag, topic, name, json, time, origin in rows
        ]
        return sorted(found, key=lambda event: event.time or 0.0, reverse=True)

    def clock(self) -> float:
        """Return the store's time, seconds since 1970."""
        return self._access.read(lambda _: self._now())

    def _now(self) -> float:
        times = self._tables.logs.annotate(now=DatabaseClock()).values_list("now", flat=True)
        for now in times.filter(name=STORE_ID):
            return float(now)
        self._tables.new_state(STORE_ID)
        return self._now()

    def take(self, quota: str, amount: int, limit: int, seconds: float) -> bool:
        """Add to a counter of the whole site, unless it would then exceed a limit."""

        def operation(connection: BaseDatabaseWrapper) -> bool:
            used, until, now = self._tables.lock_quota(connection, quota)
            if now >= until:
                used, until = 0, now + seconds
            if used + amount > limit:
                connection.set_rollback(True)
                return False
            row = self._tables.quotas.filter(name=quota)
            row.update(used=used + amount, until=until)
            return True

        return self._access.write(operation)

    def close(self) -> None:
        """Close the store's own connections; the next call opens new ones."""
        self._access.close()


def _contains(column: str, text: str) -> Q:
    """Return the condition that a column contains a text, in upper or lower case."""
    return Q(Contains(Lower(column), Lower(Value(text))))


def _cursor(event: Event) -> Cursor:
    if event.cursor is None:
        raise ValueError("an ephemeral event has no cursor")
    return event.cursor
