"""The contract with the database store, on SQLite, PostgreSQL and MariaDB."""

from collections.abc import Iterator

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.models import F

from realtime.models import Log, LogEvent, OutboxEntry, SeenEvent
from realtime.protocol.events import Draft
from realtime.stores.base import Retention, Store
from realtime.stores.database import DatabaseStore
from realtime.stores.database import store as database_store
from tests.stores.contract import StoreContract


class DatabaseContract(StoreContract):
    def pass_time(self, store: Store, topic: str, seconds: float) -> None:
        older = {"time": F("time") - seconds}
        log = Log.objects.using(store.alias).filter(name=topic)
        log.update(**older, trim_at=F("trim_at") - seconds)
        log.filter(floor_time__gt=0).update(floor_time=F("floor_time") - seconds)
        LogEvent.objects.using(store.alias).filter(log__name=topic).update(**older)
        SeenEvent.objects.using(store.alias).filter(log__name=topic).update(**older)


class TestOnSQLite(DatabaseContract):
    """A file with Django's default settings: a rollback journal and deferred transactions."""

    @pytest.fixture
    def store(self, sqlite_alias: str) -> Iterator[DatabaseStore]:
        store = DatabaseStore(options={"using": sqlite_alias})
        yield store
        store.close()


class TestOnSQLiteWithWAL(DatabaseContract):
    """A file with the settings that the documentation recommends."""

    examples = 20

    @pytest.fixture
    def store(self, wal_alias: str) -> Iterator[DatabaseStore]:
        store = DatabaseStore(options={"using": wal_alias})
        yield store
        store.close()


class TestOnPostgreSQL(DatabaseContract):
    @pytest.fixture
    def store(self, database: None, postgres_alias: str) -> Iterator[DatabaseStore]:
        store = DatabaseStore(options={"using": postgres_alias})
        yield store
        Log.objects.using(postgres_alias).exclude(name="").delete()
        Log.objects.using(postgres_alias).update(floor_time=0.0)


class TestOnMariaDB(DatabaseContract):
    examples = 20

    @pytest.fixture
    def store(self, database: None, mariadb_alias: str) -> Iterator[DatabaseStore]:
        store = DatabaseStore(options={"using": mariadb_alias})
        yield store
        Log.objects.using(mariadb_alias).exclude(name="").delete()


def test_the_database_store_declares_its_capabilities() -> None:
    assert DatabaseStore.durable
    assert DatabaseStore.shared
    assert DatabaseStore.supports_claims
    assert DatabaseStore().alias == "default"
    assert DatabaseStore(options={"using": "other"}).alias == "other"


@pytest.mark.parametrize(
    ("location", "options", "complaint"),
    [
        ("somewhere", {}, "no LOCATION"),
        ("", {"alias": "default"}, "no option 'alias'"),
        ("", {"using": "elsewhere"}, "'elsewhere', which is not in DATABASES"),
        ("", {"using": 3}, "3, which is not in DATABASES"),
    ],
)
def test_the_database_store_refuses_unknown_options(
    location: str, options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=complaint):
        DatabaseStore(location, options)


def test_the_heads_of_thousands_of_topics_are_one_query(sqlite_alias: str) -> None:
    store = DatabaseStore(options={"using": sqlite_alias})
    store.heads(["warm"])
    with queries(sqlite_alias) as seen:
        assert len(store.heads([f"t{number}" for number in range(5_000)])) == 5_000
    assert len(seen) == 1


class queries:
    """Collect the statements of this thread's connection."""

    def __init__(self, alias: str) -> None:
        self.statements: list[str] = []
        self.wrapper = connections[alias].execute_wrapper(self)

    def __call__(self, execute, sql, params, many, context):  # type: ignore[no-untyped-def]
        self.statements.append(sql)
        return execute(sql, params, many, context)

    def __enter__(self) -> list[str]:
        self.wrapper.__enter__()
        return self.statements

    def __exit__(self, *error: object) -> None:
        self.wrapper.__exit__(*error)


def test_a_page_is_read_in_one_statement(sqlite_alias: str) -> None:
    store = DatabaseStore(options={"using": sqlite_alias})
    start = store.append("t", [Draft("x", "1")] * 60).previous
    with queries(sqlite_alias) as seen:
        assert len(store.read("t", start).events) == 60
        store.read("t", store.heads(["t"])["t"])
        store.locate("t", last=3, since=5.0)
    assert len(seen) == 4


def test_a_pass_over_idle_logs_takes_three_statements_however_many_they_are(
    sqlite_alias: str,
) -> None:
    store = DatabaseStore(options={"using": sqlite_alias})
    for count in (1, 200):
        rows = [Log(name=f"t{count}.{number}", epoch="e", trim_at=0.0) for number in range(count)]
        Log.objects.using(sqlite_alias).bulk_create(rows)
        for name in store.due():
            store.trim(name, Retention(10, 100.0, forget_after=1e7))
        with queries(sqlite_alias) as seen:
            assert list(store.due()) == []
        assert len(seen) == 3  # the ids to forget, the clock, the logs that are due


def test_the_index_finds_the_logs_that_are_due(sqlite_alias: str) -> None:
    store = DatabaseStore(options={"using": sqlite_alias})
    store.append("t", [Draft("x", "1")])
    with queries(sqlite_alias) as seen:
        assert list(store.due()) == ["t"]
    with connections[sqlite_alias].cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {seen[2]}", [0.0, "", 500][: seen[2].count("%s")])
        plan = " ".join(str(row) for row in cursor.fetchall())
    assert "realtime_log_trim_at" in plan
    assert "SCAN" not in plan


def test_an_append_takes_as_many_statements_to_an_empty_log_as_to_another(
    sqlite_alias: str,
) -> None:
    store = DatabaseStore(options={"using": sqlite_alias})
    store.append("t", [Draft("x", "1")])
    counts = []
    for _ in range(2):
        with queries(sqlite_alias) as seen:
            store.append("t", [Draft("x", "1")])
        counts.append(len(seen))
        store.trim("t", Retention(0, 100.0))
    assert counts == [5, 5]  # BEGIN, SQLite's write lock, the row, the event, the row again


def test_hundreds_of_logs_are_due_in_batches_each_once_even_if_one_stays_due(
    sqlite_alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_store, "TOPICS_BATCH", 10)
    store = DatabaseStore(options={"using": sqlite_alias})
    rows = [Log(name=f"t{number}", epoch="e", seq=1) for number in range(35)]
    Log.objects.using(sqlite_alias).bulk_create(rows)
    found = []
    for name in store.due():
        found.append(name)
        if name != "t3":
            store.trim(name, Retention(10, 100.0, forget_after=1e12))
    assert sorted(found) == sorted(row.name for row in rows)


def test_a_log_is_not_forgotten_while_the_outbox_has_an_event_for_it(sqlite_alias: str) -> None:
    store = DatabaseStore(options={"using": sqlite_alias})
    rows = Log.objects.using(sqlite_alias)
    rows.create(name="t", epoch="e", seq=1, floor_seq=1, time=5.0, floor_time=5.0)
    waiting = OutboxEntry.objects.using(sqlite_alias)
    waiting.create(uid="1", topic="t", name="x", json="1", created=0.0)
    forgetting = Retention(10, 100.0, forget_after=100.0)
    store.trim("t", forgetting)
    assert rows.filter(name="t").exists()
    assert list(store.due()) == []
    waiting.all().delete()
    store.trim("t", forgetting)
    assert not rows.filter(name="t").exists()
    assert store.clock() > 0  # the row with the store id is never forgotten


def test_an_emptied_database_gets_a_new_store_id(sqlite_alias: str) -> None:
    store = DatabaseStore(options={"using": sqlite_alias})
    before = store.heads(["t"])["t"]
    Log.objects.using(sqlite_alias).all().delete()
    after = store.heads(["t"])["t"]
    assert after.epoch != before.epoch
    assert store.heads(["t"])["t"] == after
    assert store.read("t", after).head == after
    Log.objects.using(sqlite_alias).all().delete()
    assert store.clock() > 0
