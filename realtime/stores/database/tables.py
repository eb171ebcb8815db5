"""The tables of a store on one database alias: how a log's row is found and locked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from django.apps import apps
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, Model, QuerySet

from realtime.stores.base import new_epoch
from realtime.stores.database.access import check_names, delete_rows, restore_busy_timeout
from realtime.stores.database.clock import DatabaseClock
from realtime.stores.log_state import LogState

if TYPE_CHECKING:
    from realtime.models import Log, LogEvent, Member, NodeRow, Quota, SeenEvent

__all__ = ["STATE_COLUMNS", "STORE_ID", "LogRow", "Tables"]

M = TypeVar("M", bound=Model)

STORE_ID = ""  # the name of the row whose epoch is the store id
# The columns of a log's row, in the order of LogState's arguments.
STATE_COLUMNS = ("name", "epoch", "seq", "tag", "floor_seq", "floor_tag", "floor_time")


@dataclass(frozen=True, slots=True)
class LogRow:
    """A log's row, as a query returned it.

    Attributes:
        pk: the primary key.
        state: the log's state.
        time: the time of the last event, or of a later ``renew()``.
        trim_at: when to look for something to trim or to forget; None for never.
        now: the time of the database's clock when the row was read.
    """

    pk: int
    state: LogState
    time: float
    trim_at: float | None
    now: float


class Tables:
    """The app's tables on one alias. No method opens a transaction."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def _rows(self, model: str) -> Any:
        return apps.get_model("realtime", model)._default_manager.using(self.alias)

    @property
    def logs(self) -> QuerySet[Log]:
        """The logs' rows, and the row with the store id."""
        rows: QuerySet[Log] = self._rows("Log")
        return rows

    @property
    def events(self) -> QuerySet[LogEvent]:
        """The events that are kept."""
        rows: QuerySet[LogEvent] = self._rows("LogEvent")
        return rows

    @property
    def seen(self) -> QuerySet[SeenEvent]:
        """The ids of events that were appended within the last hour."""
        rows: QuerySet[SeenEvent] = self._rows("SeenEvent")
        return rows

    @property
    def nodes(self) -> QuerySet[NodeRow]:
        """The server processes."""
        rows: QuerySet[NodeRow] = self._rows("NodeRow")
        return rows

    @property
    def members(self) -> QuerySet[Member]:
        """The members, by presence log and node."""
        rows: QuerySet[Member] = self._rows("Member")
        return rows

    @property
    def quotas(self) -> QuerySet[Quota]:
        """The counters of the whole site."""
        rows: QuerySet[Quota] = self._rows("Quota")
        return rows

    def lock(self, connection: BaseDatabaseWrapper, topic: str) -> LogRow:
        """Lock the row of a topic; create it if there is none.

        This has to be the first statement of the transaction.
        """
        log = self.try_lock(connection, topic)
        if log is None:
            state = self.new_state(topic)
            row = self.logs.model(name=topic, epoch=state.epoch, floor_time=state.floor_time)
            self.logs.bulk_create([row], ignore_conflicts=True)
            log = self.try_lock(connection, topic)
            if log is None:
                # Somebody deleted it by hand: only rows that are idle for long are forgotten.
                raise OperationalError(
                    f"the row of {topic!r} was deleted at the same time; try again"
                )
        return log

    def try_lock(self, connection: BaseDatabaseWrapper, topic: str) -> LogRow | None:
        """Lock the row of a topic and return it; None if there is none.

        This has to be the first statement of the transaction.
        """
        return self.find(self._locking(connection, self.logs, topic, "seq"), topic)

    def _locking(
        self, connection: BaseDatabaseWrapper, rows: QuerySet[M], name: str, column: str
    ) -> QuerySet[M]:
        """Return ``rows`` as a query that locks the row with this name.

        Args:
            connection: the connection of the transaction.
            rows: a table.
            name: the row's name.
            column: any column that has no index.
        """
        features = connection.features
        if features.has_select_for_update:
            # no_key: rows that refer to the locked row can still be inserted.
            return rows.select_for_update(no_key=features.has_select_for_no_key_update)
        # SQLite: take the write lock first. After a read, SQLite refuses it if another connection
        # has written since.
        rows.filter(name=name).update(**{column: F(column)})
        restore_busy_timeout(connection)
        return rows

    def lock_quota(self, connection: BaseDatabaseWrapper, name: str) -> tuple[int, float, float]:
        """Lock a counter's row; create it if there is none.

        This has to be the first statement of the transaction.

        Returns:
            How much is used, when the counter restarts, and the time of the database's clock.
        """
        for _ in range(2):
            rows = self._locking(connection, self.quotas, name, "used").filter(name=name)
            columns = rows.annotate(now=DatabaseClock()).values_list("used", "until", "now")
            for used, until, now in columns:
                return used, until, now
            self.quotas.bulk_create([self.quotas.model(name=name)], ignore_conflicts=True)
        raise OperationalError(f"the row of {name!r} was deleted at the same time; try again")

    def find(self, rows: QuerySet[Log], topic: str) -> LogRow | None:
        """Return a topic's row from ``rows``, which can be a locking query; None if it has none."""
        found = rows.filter(name=topic).annotate(now=DatabaseClock())
        columns = ("time", "trim_at", "now")
        for pk, *state, time, trim_at, now in found.values_list("pk", *STATE_COLUMNS, *columns):
            check_names(self.alias, [state[0]], [topic])
            return LogRow(pk, LogState(*state), time, trim_at, now)
        return None

    def new_state(self, topic: str) -> LogState:
        """Return the state of a topic without a log.

        Creates the store id if the database was emptied after the migration.
        """
        rows = self.logs.filter(name=STORE_ID).values_list("epoch", "floor_time")
        found = list(rows)
        if not found:
            row = self.logs.model(name=STORE_ID, epoch=new_epoch())
            self.logs.bulk_create([row], ignore_conflicts=True)
            found = list(rows.all())
        epoch, floor_time = found[0]
        return LogState(topic, epoch, floor_time=floor_time)

    def forget(self, log: LogRow) -> bool:
        """Delete the locked row of an empty log; return False if something still needs the log.

        Times up to its last event are then before the floor of every topic without a log.
        """
        waiting = self._rows("OutboxEntry").filter(topic=log.state.topic)
        if self.members.filter(log_id=log.pk).exists() or waiting.exists():
            return False
        last = max(log.time, log.state.floor_time)
        self.logs.filter(name=STORE_ID, floor_time__lt=last).update(floor_time=last)
        for rows in (self.seen.filter(log_id=log.pk), self.events.filter(log_id=log.pk)):
            delete_rows(rows)
        delete_rows(self.logs.filter(pk=log.pk))
        return True

    def log_state(self, topic: str, rows: Sequence[Sequence[Any]]) -> LogState:
        """Return a log's state.

        Args:
            topic: the topic's name.
            rows: ``STATE_COLUMNS`` of the topic's row, if there is one, and of the row with the
                store id.
        """
        states = {row[0]: LogState(*row) for row in rows}
        if topic in states:
            return states[topic]
        check_names(self.alias, states, [topic, STORE_ID])
        if STORE_ID in states:
            store = states[STORE_ID]
            return LogState(topic, store.epoch, floor_time=store.floor_time)
        return self.new_state(topic)
