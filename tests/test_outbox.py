"""The relay: a row goes out once, in its topic's order, whoever dies and whoever else relays."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models import F
from django.test import override_settings

from realtime import outbox
from realtime.exceptions import StoreUnavailable
from realtime.log import history
from realtime.models import OutboxEntry
from realtime.publishing import publish
from realtime.stores import get_store
from realtime.stores.memory import MemoryStore

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("two_aliases"),
]

TOPIC = "public.news"


class SharedMemoryStore(MemoryStore):
    """Stands for any store that is not the database: durable, with its events elsewhere."""

    durable = True
    shared = True


ELSEWHERE = {"STORE": {"BACKEND": "tests.test_outbox.SharedMemoryStore"}}


def names(topic: str = TOPIC) -> list[str]:
    return [event.name for event in history(topic, last=10_000)]


def leave_behind(count: int, alias: str = "default", topic: str = TOPIC) -> None:
    """Write rows as a process does that dies right after its commit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "_relay_after_commit", lambda *args: None)
        with transaction.atomic(using=alias):
            for number in range(count):
                publish(topic, f"e{number}", using=alias)


def waiting(alias: str = "default") -> int:
    return OutboxEntry.objects.using(alias).count()


@pytest.fixture(params=["the log's own database", "another database", "another store"])
def alias(request: pytest.FixtureRequest) -> Any:
    """Where the rows are; the log is beside them, or elsewhere."""
    if request.param == "another store":
        with override_settings(REALTIME=ELSEWHERE):
            yield "default"
    else:
        yield "other" if request.param == "another database" else "default"


def test_rows_that_a_dead_process_left_go_out_in_order(alias: str) -> None:
    leave_behind(20, alias)
    assert names() == []
    assert outbox.relay_stale(older_than=-1) == 20
    assert names() == [f"e{number}" for number in range(20)]
    assert waiting(alias) == 0


def test_young_rows_are_left_to_their_own_process(alias: str) -> None:
    leave_behind(1, alias)
    assert outbox.relay_stale(older_than=60) == 0
    OutboxEntry.objects.using(alias).update(created=F("created") - 61)
    assert outbox.relay_stale(older_than=60) == 1


def test_clock_that_was_set_back_holds_no_row_up(alias: str) -> None:
    leave_behind(1, alias)
    OutboxEntry.objects.using(alias).update(
        created=F("created") + 3600, leased_until=F("created") + 3600
    )
    assert outbox.relay_stale() == 1
    assert names() == ["e0"]


def test_more_rows_than_a_batch_go_out(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "BATCH", 3)
    leave_behind(10, alias)
    assert outbox.relay(alias, TOPIC) == 10
    assert names() == [f"e{number}" for number in range(10)]


def test_relays_at_the_same_time_send_each_row_once_and_in_order(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BATCH", 2)
    leave_behind(40, alias)
    together = threading.Barrier(4)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            together.wait(10)
            outbox.relay(alias, TOPIC)
        except BaseException as error:
            failed.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert names() == [f"e{number}" for number in range(40)]
    assert waiting(alias) == 0


def test_store_that_is_away_keeps_the_rows_and_frees_the_lease(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: Any) -> None:
        raise StoreUnavailable("the store", "gone")

    leave_behind(2, alias)
    with monkeypatch.context() as patch:
        patch.setattr(get_store(), "append", away)
        if get_store().alias is not None:
            patch.setattr(get_store(), "append_claimed", away)
        assert outbox.relay_stale(older_than=-1) == 0
    assert waiting(alias) == 2
    assert outbox.relay_stale(older_than=-1) == 2
    assert names() == ["e0", "e1"]


def test_relay_that_died_after_the_append_repeats_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the log in another store, where append and deletion are two steps."""
    leave_behind(3, "other")

    class Died(BaseException):
        pass

    real = outbox.DatabaseAccess.write

    def die_at_the_deletion(self: Any, operation: Any) -> Any:
        if self.store == "the outbox" and names():
            raise Died
        return real(self, operation)

    with monkeypatch.context() as patch:
        patch.setattr(outbox.DatabaseAccess, "write", die_at_the_deletion)
        with pytest.raises(Died):
            outbox.relay("other", TOPIC)
    assert waiting("other") == 3
    assert outbox.relay_stale(older_than=-1) == 0, "the lease of the dead relay still holds"
    leave_behind(1, "other")
    OutboxEntry.objects.using("other").update(leased_until=F("leased_until") - 60)
    assert outbox.relay_stale(older_than=-1) == 1, "only the event that was not appended"
    assert names() == ["e0", "e1", "e2", "e0"]
    assert waiting("other") == 0


def test_database_without_our_tables_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    leave_behind(1)
    table, away = "realtime_outboxentry", "realtime_outboxentry_away"
    with connections["other"].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {away}")
        try:
            assert outbox.relay_stale(older_than=-1) == 1
        finally:
            cursor.execute(f"ALTER TABLE {away} RENAME TO {table}")
    assert "cannot be read" not in caplog.text  # an alias that is never migrated is no news


def test_sweeps_come_at_most_once_a_second_and_never_two_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    swept: list[Any] = []
    monkeypatch.setattr(outbox.RELAY_THREADS, "submit", swept.append)
    monkeypatch.setattr(outbox, "relay_stale", lambda: 0)
    sweep = outbox._Sweep()
    sweep.last = 99.5
    with monkeypatch.context() as patch:
        clock = iter([100.0, 100.6, 105.0, 105.1, 105.9])
        patch.setattr(outbox.time, "monotonic", lambda: next(clock))
        sweep.start_if_due()
        assert swept == []
        sweep.start_if_due()
        sweep.start_if_due()
        assert len(swept) == 1, "the first one is still running"
        swept.pop()()
        sweep.start_if_due()
        assert len(swept) == 1
        swept.pop()()
        sweep.start_if_due()
        assert swept == [], "within the second"


def test_relays_that_have_not_begun_are_one_a_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[tuple[Any, ...]] = []

    def submit(*job: Any) -> Future[int]:
        jobs.append(job)
        return Future()

    monkeypatch.setattr(outbox.RELAY_THREADS, "submit", submit)
    relays = outbox._Relays()
    first = relays.start("default", TOPIC)
    assert relays.start("default", TOPIC) is first
    assert relays.start("other", TOPIC) is not first
    assert len(jobs) == 2
    run, *arguments = jobs[0]
    run(*arguments)
    assert relays.start("default", TOPIC) is not first, "what commits later is not in the first"


KILLED = """
import os, signal
import django
django.setup()
from django.db import transaction
from realtime import outbox, publish

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

{where}
with transaction.atomic():
    for number in range(20):
        publish("public.news", f"e{{number}}", {{}})
"""

BETWEEN_COMMIT_AND_APPEND = "outbox._AfterCommit.run = die"
BEFORE_THE_COMMIT = (
    "from django.db import connection\nconnection.ensure_connection()\nconnection._commit = die"
)
BETWEEN_APPEND_AND_WAKE_UP = "outbox._announce = die"


@pytest.mark.parametrize(
    ("where", "appended", "left"),
    [
        (BEFORE_THE_COMMIT, 0, 0),
        (BETWEEN_COMMIT_AND_APPEND, 0, 20),
        (BETWEEN_APPEND_AND_WAKE_UP, 20, 0),
    ],
)
def test_process_killed_at_any_point_leaves_all_or_nothing(
    where: str, appended: int, left: int
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED.format(where=where)],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(names()) == appended
    assert waiting() == left
    assert outbox.relay_stale(older_than=-1) == left
    assert names() == [f"e{number}" for number in range(appended + left)]
