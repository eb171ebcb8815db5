"""The contract with the database store, on SQLite, PostgreSQL and MariaDB."""

from collections.abc import Iterator

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.models import F

from realtime.models import Log, LogEvent, SeenEvent
from realtime.protocol.events import Draft
from realtime.stores.base import Store
from realtime.stores.database import DatabaseStore
from tests.stores.contract import StoreContract


class DatabaseContract(StoreContract):
    def pass_time(self, store: Store, topic: str, seconds: float) -> None:
        older = {"time": F("time") - seconds}
        Log.objects.using(store.alias).filter(name=topic).update(**older)
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
