"""The tables of a store on one database alias: how a log's row is found and locked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, QuerySet

from realtime.stores.base import new_epoch
from realtime.stores.database.access import check_names, restore_busy_timeout
from realtime.stores.database.clock import DatabaseClock
from realtime.stores.log_state import LogState

if TYPE_CHECKING:
    from realtime.models import Log, LogEvent, Member, NodeRow, SeenEvent

__all__ = ["STATE_COLUMNS", "STORE_ID", "LogRow", "Tables"]

STORE_ID = ""  # the name of the row whose epoch is the store id
# The columns of a log's row, in the order of LogState's arguments.
STATE_COLUMNS = ("name", "epoch", "seq", "tag", "floor_seq", "floor_tag", "floor_time")


@dataclass(frozen=True, slots=True)
class LogRow:
    """A log's row, as a query returned it.

    Attributes:
        pk: the primary key.
        state: the log's state.
        time: the time of the last event.
        now: the time of the database's clock when the row was read.
    """

    pk: int
    state: LogState
    time: float
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

    def lock(self, connection: BaseDatabaseWrapper, topic: str) -> LogRow:
        """Lock the row of a topic; create it if there is none.

        This has to be the first statement of the transaction.
        """
        log = self.try_lock(connection, topic)
        if log is None:
            row = self.logs.model(name=topic, epoch=self.store_id())
            self.logs.bulk_create([row], ignore_conflicts=True)
            log = self.try_lock(connection, topic)
            if log is None:
                # Somebody deleted it by hand: no store deletes the row of a topic.
                raise OperationalError(
                    f"the row of {topic!r} was deleted at the same time; try again"
                )
        return log

    def try_lock(self, connection: BaseDatabaseWrapper, topic: str) -> LogRow | None:
        """Lock the row of a topic and return it; None if there is none.

        This has to be the first statement of the transaction.
        """
        features = connection.features
        rows = self.logs
        if features.has_select_for_update:
            # no_key: rows that refer to the locked row can still be inserted.
            rows = rows.select_for_update(no_key=features.has_select_for_no_key_update)
        else:
            # SQLite: take the write lock first. After a read, SQLite refuses it if another
            # connection has written since.
            rows.filter(name=topic).update(seq=F("seq"))
            restore_busy_timeout(connection)
        return self.find(rows, topic)

    def find(self, rows: QuerySet[Log], topic: str) -> LogRow | None:
        """Return a topic's row from ``rows``, which can be a locking query; None if it has none."""
        found = rows.filter(name=topic).annotate(now=DatabaseClock())
        for pk, *state, time, now in found.values_list("pk", *STATE_COLUMNS, "time", "now"):
            check_names(self.alias, [state[0]], [topic])
            return LogRow(pk, LogState(*state), time, now)
        return None

    def store_id(self) -> str:
        """Return the store id; create it if the database was emptied after the migration."""
        rows = self.logs.filter(name=STORE_ID).values_list("epoch", flat=True)
        found = list(rows)
        if not found:
            row = self.logs.model(name=STORE_ID, epoch=new_epoch())
            self.logs.bulk_create([row], ignore_conflicts=True)
            found = list(rows.all())
        return found[0]

    def log_state(self, topic: str, rows: Sequence[Sequence[Any]]) -> LogState:
        """Return a log's state.

        Args:
            topic: the topic's name.
            rows: ``STATE_COLUMNS`` of the topic's row, if there is one, and of the row with the
                store id.
        """
        epochs = {}
        for row in rows:
            if row[0] == topic:
                return LogState(*row)
            epochs[row[0]] = row[1]
        check_names(self.alias, epochs, [topic, STORE_ID])
        return LogState(topic, epochs.get(STORE_ID) or self.store_id())
