"""The database store with open transactions, locks, replaced files and broken connections."""

import asyncio
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime.exceptions import CursorExpired, StoreError, StoreUnavailable
from realtime.models import Log, LogEvent, OutboxEntry
from realtime.protocol.events import Cursor, Draft
from realtime.stores.base import Retention
from realtime.stores.database import DatabaseStore
from realtime.stores.database.access import DatabaseAccess
from realtime.stores.database.clock import DatabaseClock
from realtime.threads import STORE_THREADS
from tests.stores.conftest import AddDatabase, plain
from tests.support.databases import database_config
from tests.support.server import DEADLINE

X = [Draft("x", "1")]


@pytest.fixture(params=["wal", "postgres", "mariadb"])
def store(request: pytest.FixtureRequest, database: None) -> Iterator[DatabaseStore]:
    """A store with an empty log; on SQLite it has the documented settings."""
    alias = request.getfixturevalue(f"{request.param}_alias")
    store = DatabaseStore(options={"using": alias})
    yield store
    store.close()
    Log.objects.using(alias).exclude(name="").delete()
    OutboxEntry.objects.using(alias).all().delete()


@pytest.fixture
def lite(sqlite_alias: str) -> Iterator[DatabaseStore]:
    """A store on a SQLite file of this test, with Django's default settings."""
    store = DatabaseStore(options={"using": sqlite_alias})
    yield store
    store.close()


def names(store: DatabaseStore, topic: str = "t") -> list[str]:
    return [event.name for event in store.read(topic, store.locate(topic, last=1000)).events]


# The caller's transaction


def test_an_append_is_not_part_of_the_callers_transaction(
    database: None, postgres_alias: str
) -> None:
    store = DatabaseStore(options={"using": postgres_alias})
    with transaction.atomic(using=postgres_alias):
        Log.objects.using(postgres_alias).filter(name="").update(time=0)
        store.append("t", X)
        assert store.heads(["t"])["t"].seq == 1
        transaction.set_rollback(True, using=postgres_alias)
    assert names(store) == ["x"]
    store.delete("t")


def test_an_append_fails_while_its_caller_holds_a_lock_on_the_file(lite: DatabaseStore) -> None:
    impatient = make_impatient(lite)
    with transaction.atomic(using=lite.alias):
        # With a rollback journal, a commit waits until no transaction reads.
        Log.objects.using(lite.alias).count()
        with pytest.raises(StoreUnavailable):
            impatient.append("t", X)
    assert impatient.append("t", X).events[0].seq == 1


def make_impatient(store: DatabaseStore) -> DatabaseStore:
    """Return a store on the same file that fails soon after it meets a lock, as its driver does."""

    class Impatient(DatabaseStore):
        LOCKED_SECONDS = 0.2

    connections.settings[store.alias]["OPTIONS"]["timeout"] = 0.05
    connections[store.alias].close()
    store.close()
    return Impatient(options={"using": store.alias})


def test_a_broken_transaction_of_the_caller_does_not_break_the_store(store: DatabaseStore) -> None:
    store.append("t", X)
    with transaction.atomic(using=store.alias):
        transaction.set_rollback(True, using=store.alias)
        with pytest.raises(transaction.TransactionManagementError):
            Log.objects.using(store.alias).count()
        assert store.heads(["t"])["t"].seq == 1
        assert names(store) == ["x"]


def test_a_caller_without_autocommit_appends_over_another_connection(store: DatabaseStore) -> None:
    transaction.set_autocommit(False, using=store.alias)
    try:
        store.append("t", X)
    finally:
        transaction.rollback(using=store.alias)
        transaction.set_autocommit(True, using=store.alias)
    assert names(store) == ["x"]


def test_an_append_in_an_on_commit_hook_is_committed(store: DatabaseStore) -> None:
    with transaction.atomic(using=store.alias):
        transaction.on_commit(lambda: store.append("t", X) and None, using=store.alias)
    assert names(store) == ["x"]


# The outbox


def _claim(store: DatabaseStore) -> Sequence[Draft]:
    rows = OutboxEntry.objects.using(store.alias).filter(topic="t").order_by("id")
    drafts = [Draft(row.name, row.json, row.origin, row.uid) for row in rows]
    rows.delete()
    return drafts


def _add_to_outbox(store: DatabaseStore, *names: str) -> None:
    for name in names:
        OutboxEntry.objects.using(store.alias).create(
            uid=os.urandom(8).hex(), topic="t", name=name, json="1", created=DatabaseClock()
        )


def test_claimed_rows_are_appended_in_order(store: DatabaseStore) -> None:
    _add_to_outbox(store, "a", "b")
    appended = store.append_claimed("t", lambda: _claim(store))
    assert appended is not None
    assert [event.name for event in appended.events] == names(store) == ["a", "b"]
    assert appended.previous.seq == 0
    assert not OutboxEntry.objects.using(store.alias).exists()


def test_an_empty_claim_writes_nothing(store: DatabaseStore) -> None:
    assert store.append_claimed("t", list) is None
    assert list(store.topics()) == []


def test_a_claim_that_fails_keeps_its_rows(store: DatabaseStore) -> None:
    _add_to_outbox(store, "a")

    def claim() -> Sequence[Draft]:
        _claim(store)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.append_claimed("t", claim)
    with pytest.raises(StoreError):
        store.append_claimed("t", lambda: [*_claim(store), Draft(None, "1")])  # type: ignore[arg-type]
    assert OutboxEntry.objects.using(store.alias).count() == 1
    assert store.heads(["t"])["t"].seq == 0


def test_concurrent_relays_claim_each_row_once(store: DatabaseStore) -> None:
    _add_to_outbox(store, *(f"e{number}" for number in range(30)))

    def relay(_: int) -> None:
        try:
            for _ in range(5):
                store.append_claimed("t", lambda: _claim(store))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(relay, range(4)))
    assert names(store) == [f"e{number}" for number in range(30)]


# Locks


def test_a_file_that_stays_locked_is_unavailable_after_locked_seconds(lite: DatabaseStore) -> None:
    lite.append("t", X)
    impatient = make_impatient(lite)
    path = connections[lite.alias].settings_dict["NAME"]
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for call in (
            lambda: impatient.append("t", X),
            lambda: impatient.heads(["t"]),
            lambda: asyncio.run(impatient.aappend("t", X)),
        ):
            begin = time.monotonic()
            with pytest.raises(StoreUnavailable, match="locked") as caught:
                call()
            assert time.monotonic() - begin >= impatient.LOCKED_SECONDS
            assert isinstance(caught.value.__cause__, OperationalError)
        other.execute("ROLLBACK")
    assert impatient.append("t", X).events[0].seq == 2


def test_a_call_waits_for_a_lock_that_is_released(lite: DatabaseStore) -> None:
    lite.append("t", X)
    make_impatient(lite)  # shortens the driver's timeout; lite itself goes on retrying
    path = connections[lite.alias].settings_dict["NAME"]
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(0.3, other.execute, ["ROLLBACK"])
        release.start()
        assert lite.append("t", X).events[0].seq == 2
        release.join()


@pytest.mark.parametrize("topic", ["t", "new"])
def test_an_append_does_not_wait_for_long_for_a_row_that_another_transaction_holds(
    database: None, postgres_alias: str, topic: str
) -> None:
    import psycopg

    class Impatient(DatabaseStore):
        LOCKED_SECONDS = 0.3

    store = Impatient(options={"using": postgres_alias})
    store.append("t", X)
    with psycopg.connect(**_parameters(postgres_alias)) as other:
        other.execute("SELECT 1 FROM realtime_log WHERE name = 't' FOR UPDATE")
        # An uncommitted row of the same name makes an INSERT wait.
        other.execute(
            "INSERT INTO realtime_log SELECT (r).* FROM (SELECT jsonb_populate_record(l, "
            '\'{"id": -1, "name": "new"}\') AS r FROM realtime_log l WHERE name = \'t\') AS copy'
        )
        release = threading.Timer(DEADLINE, other.rollback)
        release.start()
        with pytest.raises(StoreUnavailable, match=r"another transaction held a lock for 0\.3 s"):
            store.append(topic, X)
        release.cancel()
        other.rollback()
    with connections[postgres_alias].cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("0",)  # of the caller's session
    assert store.append(topic, X).events[0].seq == (2 if topic == "t" else 1)
    Log.objects.using(postgres_alias).filter(name__in=["t", "new"]).delete()


def test_a_database_without_the_tables_is_named_as_such(
    add_database: AddDatabase, tmp_path: Path
) -> None:
    store = DatabaseStore(options={"using": add_database(plain(tmp_path / "empty.sqlite3"))})
    with pytest.raises(StoreError, match="no such table: realtime_log"):
        store.append("t", X)


def test_a_statement_that_the_database_refuses_is_a_store_error(
    database: None, postgres_alias: str
) -> None:
    store = DatabaseStore(options={"using": postgres_alias})
    with pytest.raises(StoreError, match="too long") as caught:
        store.append("t" * 201, X)
    assert not isinstance(caught.value, StoreUnavailable)


# Broken connections


def test_a_connection_that_the_server_closed_is_reopened(
    database: None, postgres_alias: str
) -> None:
    store = DatabaseStore(options={"using": postgres_alias})
    topic = "broken"
    store.append(topic, X)
    own = connections[postgres_alias]
    for call in (store.append, lambda *a: asyncio.run(store.aappend(*a))):
        with own.cursor() as cursor:
            cursor.execute("SELECT 1")
        _end_sessions(postgres_alias)
        appended = call(topic, X)
        assert store.heads([topic])[topic].seq == appended.previous.seq + 1
    Log.objects.using(postgres_alias).filter(name=topic).delete()


def _parameters(alias: str) -> dict[str, Any]:
    parameters = connections[alias].get_connection_params()
    return {key: parameters[key] for key in ("dbname", "user", "host") if parameters.get(key)}


def _end_sessions(alias: str) -> None:
    import psycopg

    with psycopg.connect(**_parameters(alias), autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_statement_on_a_connection_that_breaks_is_not_retried(
    database: None, postgres_alias: str
) -> None:
    access = DatabaseAccess(postgres_alias, "test", 1.0)
    calls = []

    def end(connection: BaseDatabaseWrapper) -> None:
        calls.append(1)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    for run, times in ((access.execute, 1), (access.read, 2)):
        calls.clear()
        with pytest.raises(StoreUnavailable):
            run(end)
        assert len(calls) == times
    assert access.execute(lambda connection: connection.is_usable())


def test_an_append_whose_connection_breaks_during_the_commit_is_not_retried(
    database: None, postgres_alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DatabaseStore(options={"using": postgres_alias})
    store.append("t", X)
    own = connections[postgres_alias]
    real, calls = own._commit, []

    def commit() -> None:
        calls.append(1)
        real()
        own.connection.close()  # the server's answer is lost
        raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(own, "_commit", commit)
        with pytest.raises(StoreUnavailable, match="server closed"):
            store.append("t", [Draft("once", "1", id="once")])
    assert calls == [1]
    assert store.append("t", [Draft("once", "1", id="once")]).events == ()
    assert names(store) == ["x", "once"]
    Log.objects.using(postgres_alias).filter(name="t").delete()


def test_a_database_that_does_not_exist_is_unavailable(
    add_database: AddDatabase, tmp_path: Path
) -> None:
    gone = {"ENGINE": "django.db.backends.postgresql", "NAME": "x", "HOST": str(tmp_path)}
    store = DatabaseStore(options={"using": add_database(gone)})
    with pytest.raises(StoreUnavailable, match="DatabaseStore is not available"):
        store.heads(["t"])


def test_the_threads_keep_their_connections_until_the_store_is_closed(
    store: DatabaseStore,
) -> None:
    def opened() -> int:
        barrier = threading.Barrier(STORE_THREADS.count)

        def raw() -> object:
            barrier.wait(10)
            return connections[store.alias].connection

        futures = [STORE_THREADS.submit(raw) for _ in range(STORE_THREADS.count)]
        return sum(future.result() is not None for future in futures)

    asyncio.run(store.aappend("t", X))
    assert opened() >= 1
    store.close()
    assert opened() == 0
    asyncio.run(store.aappend("t", X))
    assert names(store) == ["x", "x"]


# Files that are replaced and backups that are restored


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_file_that_was_replaced_is_reopened(
    lite: DatabaseStore, sqlite_file: Path, tmp_path: Path, mode: str
) -> None:
    def append() -> Cursor:
        call = lite.append if mode == "sync" else lambda *a: asyncio.run(lite.aappend(*a))
        cursor = call("t", X).events[0].cursor
        assert cursor is not None
        return cursor

    append()
    backup = tmp_path / "backup.sqlite3"
    shutil.copy(sqlite_file, backup)
    known = [append() for _ in range(5)][-1]
    backup.rename(sqlite_file)
    with pytest.raises(CursorExpired) as caught:
        lite.read("t", known)
    assert caught.value.contradicts
    assert caught.value.head.seq == 1
    assert append().seq == 2
    with closing(sqlite3.connect(sqlite_file)) as other:
        assert other.execute("SELECT count(*) FROM realtime_logevent").fetchone() == (2,)


def test_a_file_that_is_missing_is_unavailable_and_not_created(
    lite: DatabaseStore, sqlite_file: Path
) -> None:
    lite.append("t", X)
    away = sqlite_file.rename(sqlite_file.with_suffix(".away"))
    with pytest.raises(StoreUnavailable, match="is missing"):
        lite.append("t", X)
    assert not sqlite_file.exists()
    away.rename(sqlite_file)
    assert lite.append("t", X).events[0].seq == 2


def test_a_backup_restored_into_the_open_file_is_a_rewound_log(
    wal_alias: str, sqlite_file: Path, tmp_path: Path
) -> None:
    store = DatabaseStore(options={"using": wal_alias})
    store.append("t", X)
    with (
        closing(sqlite3.connect(sqlite_file)) as live,
        closing(sqlite3.connect(tmp_path / "backup.sqlite3")) as backup,
    ):
        live.backup(backup)
        known = store.append("t", X * 5).events[-1].cursor
        first = store.append("new after the backup", X).events[-1].cursor
        assert known is not None
        assert first is not None
        backup.backup(live)
    for topic, cursor in (("t", known), ("new after the backup", first)):
        with pytest.raises(CursorExpired) as caught:
            store.read(topic, cursor)
        assert caught.value.contradicts
        renewed = store.renew(topic, cursor.epoch)
        assert renewed.epoch != cursor.epoch
        assert store.heads([topic])[topic] == renewed
        with pytest.raises(CursorExpired):
            store.read(topic, cursor)
    assert [event.seq for event in store.append("t", X * 2).events] == [2, 3]
    store.close()


def test_appends_after_a_restore_do_not_hide_the_rewind(
    lite: DatabaseStore, sqlite_file: Path, tmp_path: Path
) -> None:
    backup = tmp_path / "backup.sqlite3"
    lite.append("t", X)
    shutil.copy(sqlite_file, backup)
    known = lite.append("t", X * 2).events[-1].cursor
    assert known is not None
    backup.rename(sqlite_file)
    for _ in range(4):  # up to the known seq, and beyond it
        lite.append("t", X)
        with pytest.raises(CursorExpired) as caught:
            lite.read("t", known)
        assert caught.value.contradicts


# Rows deleted by hand, and missing tables


def test_rows_deleted_by_hand_expire_cursors_and_do_not_stop_trimming(
    lite: DatabaseStore,
) -> None:
    events = lite.append("t", X * 6).events
    LogEvent.objects.using(lite.alias).filter(seq__in=[3, 4]).delete()
    page = lite.read("t", events[0].cursor)  # type: ignore[arg-type]
    assert [event.seq for event in page.events] == [2]
    for lost in events[1:4]:
        with pytest.raises(CursorExpired) as caught:
            lite.read("t", lost.cursor)  # type: ignore[arg-type]
        assert not caught.value.contradicts
    assert lite.trim("t", Retention(3, 1000)) == 3
    assert lite.trim("t", Retention(2, 1000)) == 1
    assert [event.seq for event in lite.read("t", lite.locate("t", last=2)).events] == [5, 6]


def test_the_error_of_a_database_without_tables_names_the_command(
    add_database: AddDatabase, tmp_path: Path, postgres_dsn: str, database: None
) -> None:
    empty = database_config(postgres_dsn) | {"NAME": "postgres"}
    for entry in (plain(tmp_path / "empty.sqlite3"), empty):
        alias = add_database(entry)
        with connections[alias].cursor() as cursor:
            if connections[alias].vendor == "postgresql":
                cursor.execute("SET search_path TO nowhere")
        with pytest.raises(StoreError, match=f"run: manage.py migrate --database {alias}"):
            DatabaseStore(options={"using": alias}).heads(["t"])
