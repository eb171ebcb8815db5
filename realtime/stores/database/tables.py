"""The rows of the logs on one database alias: how they are found and locked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F, QuerySet

from realtime.stores.base import new_epoch
from realtime.stores.database.access import has_lock
from realtime.stores.database.clock import DatabaseClock
from realtime.stores.log_state import LogState

if TYPE_CHECKING:
    from realtime.models import Log, LogEvent, Member, NodeRow, SeenEvent

__all__ = ["STANDING", "STORE_ID", "Found", "Tables"]

STORE_ID = ""  # the name of the row whose epoch is the store id
# As LogState takes them.
STANDING = ("name", "epoch", "seq", "tag", "floor_seq", "floor_tag", "floor_time")


@dataclass(frozen=True, slots=True)
class Found:
    """A log's row, as it was found.

    Attributes:
        pk: its primary key.
        standing: where the log stands.
        time: of the last event.
        now: the database's clock when it was found.
    """

    pk: int
    standing: LogState
    time: float
    now: float


class Tables:
    """The tables on one alias; no method opens a transaction."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def _rows(self, model: str) -> Any:
        return apps.get_model("realtime", model)._default_manager.using(self.alias)

    @property
    def logs(self) -> QuerySet[Log]:
        """Every topic's row, and the one of the store id."""
        rows: QuerySet[Log] = self._rows("Log")
        return rows

    @property
    def events(self) -> QuerySet[LogEvent]:
        """The events that are kept."""
        rows: QuerySet[LogEvent] = self._rows("LogEvent")
        return rows

    @property
    def seen(self) -> QuerySet[SeenEvent]:
        """The ids that were seen."""
        rows: QuerySet[SeenEvent] = self._rows("SeenEvent")
        return rows

    @property
    def nodes(self) -> QuerySet[NodeRow]:
        """The server processes."""
        rows: QuerySet[NodeRow] = self._rows("NodeRow")
        return rows

    @property
    def members(self) -> QuerySet[Member]:
        """Who is on which topic, and through which node."""
        rows: QuerySet[Member] = self._rows("Member")
        return rows

    def lock(self, connection: BaseDatabaseWrapper, topic: str) -> Found:
        """Lock the row of a topic, which is made if there is none.

        Be the first statement of the transaction.
        """
        log = self.try_lock(connection, topic)
        if log is None:
            row = self.logs.model(name=topic, epoch=self.store_id())
            self.logs.bulk_create([row], ignore_conflicts=True)
            log = self.try_lock(connection, topic)
            if log is None:
                # By hand, that is: no store removes the row of a topic.
                raise OperationalError(f"the log of {topic!r} was removed at the same time")
        return log

    def try_lock(self, connection: BaseDatabaseWrapper, topic: str) -> Found | None:
        """Lock the row of a topic if there is one; be the first statement of the transaction."""
        features = connection.features
        rows = self.logs
        if features.has_select_for_update:
            # Foreign keys to the row are no concern of this lock.
            rows = rows.select_for_update(no_key=features.has_select_for_no_key_update)
        else:
            # SQLite: who reads first is refused the write lock when another has written since.
            rows.filter(name=topic).update(seq=F("seq"))
            has_lock(connection)
        return self.find(rows, topic)

    def find(self, rows: QuerySet[Log], topic: str) -> Found | None:
        """Return the row of a topic as a query finds it, or locks it."""
        found = rows.filter(name=topic).annotate(now=DatabaseClock())
        for pk, *standing, time, now in found.values_list("pk", *STANDING, "time", "now"):
            return Found(pk, LogState(*standing), time, now)
        return None

    def store_id(self) -> str:
        """Return the store id; make it in a database that was emptied after the migration."""
        rows = self.logs.filter(name=STORE_ID).values_list("epoch", flat=True)
        found = list(rows)
        if not found:
            row = self.logs.model(name=STORE_ID, epoch=new_epoch())
            self.logs.bulk_create([row], ignore_conflicts=True)
            found = list(rows.all())
        return found[0]

    def standing(self, topic: str, rows: Sequence[Sequence[Any]]) -> LogState:
        """Return where a log stands, from its row and the one that holds the store id."""
        epochs = {}
        for row in rows:
            if row[0] == topic:
                return LogState(*row)
            epochs[row[0]] = row[1]
        return LogState(topic, epochs.get(STORE_ID) or self.store_id())
