"""The database store and the outbox on MariaDB, whose names ignore case until migration 0005."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import IntegrityError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from realtime import outbox
from realtime.exceptions import StoreError, StoreUnavailable
from realtime.layers.storage import LayerStorage
from realtime.models import Log, OutboxEntry
from realtime.protocol.events import Draft
from realtime.stores.base import Retention
from realtime.stores.database import DatabaseStore
from realtime.stores.database.access import DatabaseAccess
from realtime.threads import STORE_THREADS
from tests.stores.conftest import AddDatabase
from tests.support.databases import database_config
from tests.support.server import DEADLINE

X = [Draft("x", "1")]


@pytest.fixture
def store(database: None, mariadb_alias: str) -> Iterator[DatabaseStore]:
    """A store on the session's MariaDB."""
    store = DatabaseStore(options={"using": mariadb_alias})
    yield store
    store.close()
    Log.objects.using(mariadb_alias).exclude(name="").delete()


# Names


@pytest.fixture
def old(add_database: AddDatabase, mariadb_database: str) -> DatabaseStore:
    """A store on a database of its own, as migration 0004 left it."""
    alias = add_database(database_config(mariadb_database))
    migrate(alias, "0004")
    return DatabaseStore(options={"using": alias})


def migrate(alias: str, *target: str) -> None:
    call_command("migrate", "realtime", *target, database=alias, verbosity=0)


def test_migration_0005_makes_the_names_of_an_existing_database_exact(old: DatabaseStore) -> None:
    begin = old.heads(["Orders"])["Orders"]
    old.append("Orders", [Draft("mine", "1")])
    migrate(old.alias)
    assert [event.name for event in old.read("Orders", begin).events] == ["mine"]
    assert old.read("orders", old.heads(["orders"])["orders"]).events == ()
    assert old.append("orders", X).events[0].seq == 1
    assert old.append("Orders", X).events[0].seq == 2
    with pytest.raises(IntegrityError, match="Duplicate entry"):
        migrate(old.alias, "0004")  # "orders" and "Orders" are one name there


def test_migration_0005_can_be_applied_to_an_upgraded_database_and_taken_back(
    old: DatabaseStore,
) -> None:
    before = columns(old.alias)
    migrate(old.alias)
    after = columns(old.alias)
    assert {collation for *_, collation in before.values()} == {"utf8mb4_general_ci"}
    for column, (kind, null, default, collation) in after.items():
        assert (kind, null, default) == before[column][:3]
        assert collation in ("utf8mb4_general_ci", "utf8mb4_nopad_bin")
    migrate(old.alias, "0004")
    assert columns(old.alias) == before
    migrate(old.alias)
    call_command("migrate", "realtime", "0004", fake=True, database=old.alias, verbosity=0)
    migrate(old.alias)
    assert columns(old.alias) == after


def test_every_text_column_in_an_index_or_constraint_is_compared_exactly(
    store: DatabaseStore,
) -> None:
    collations = columns(store.alias)
    checked = 0
    for model in apps.get_app_config("realtime").get_models():
        for index in (*model._meta.constraints, *model._meta.indexes):
            for name in index.fields:  # type: ignore[union-attr]
                if found := collations.get((model._meta.db_table, name)):
                    assert found[-1] == "utf8mb4_nopad_bin", (model, name)
                    checked += 1
    assert checked > 10


def columns(alias: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Return the type, NULL, default and collation of each text column, by table and name."""
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT table_name, column_name, column_type, is_nullable, column_default, "
            "collation_name FROM information_schema.columns WHERE table_schema = DATABASE() "
            "AND table_name LIKE 'realtime%%' AND collation_name IS NOT NULL"
        )
        return {row[:2]: row[2:] for row in cursor.fetchall()}


INEXACT = "found the row of 'Orders', which was not asked for: it does not compare names exactly"


def test_a_database_that_ignores_case_never_returns_another_topics_events(
    old: DatabaseStore,
) -> None:
    own = old.append("Orders", [Draft("private", "1")])
    for call in (
        lambda: old.append("orders", X),
        lambda: old.heads(["orders"]),
        lambda: old.read("orders", own.previous),
        lambda: old.locate("orders", last=1),
        lambda: old.search(10, topic="orders", exact=True),
        lambda: old.trim("orders", Retention(0, 1.0)),
        lambda: old.delete("orders"),
        lambda: old.change_members("orders", "n1", {"7": "{}"}, []),
        lambda: old.members("orders"),
    ):
        with pytest.raises(StoreError, match=INEXACT):
            call()
    assert [event.name for event in old.read("Orders", own.previous).events] == ["private"]


def test_a_relay_in_a_database_that_ignores_case_moves_no_event_to_another_topic(
    old: DatabaseStore,
) -> None:
    with transaction.atomic(using=old.alias):
        rows = [OutboxEntry(uid="1", topic="Orders", name="x", json="1", created=1.0)]
        OutboxEntry.objects.using(old.alias).bulk_create(rows)
    with pytest.raises(StoreError, match=INEXACT):
        old.append_claimed("orders", lambda: outbox._take(old.alias, "orders"))
    with pytest.raises(StoreError, match=INEXACT):
        outbox._lease(old.alias, "orders")
    assert OutboxEntry.objects.using(old.alias).count() == 1
    assert list(old.topics()) == []


def test_a_layer_refuses_a_database_that_ignores_case(old: DatabaseStore) -> None:
    storage = LayerStorage(old.alias, "c0ffee", 60, 60, lambda channel: 100)
    with pytest.raises(StoreError, match="does not compare names exactly"):
        storage.register([])
    migrate(old.alias)
    storage.register([])


# Packets


def test_events_of_more_than_a_packet_are_appended_and_relayed(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_relay_after_commit", lambda alias, topics: None)
    large = '"' + "x" * 60_000 + '"'
    drafts = [Draft("large", large)] * 100  # six megabytes; the server takes four
    begin = store.heads(["large"])["large"]
    assert store.append("large", drafts).events[-1].seq == 100
    with transaction.atomic(using=store.alias):
        outbox.put(store.alias, [("large", draft) for draft in drafts])
    assert store.append_claimed("large", lambda: outbox._take(store.alias, "large"))
    assert store.heads(["large"])["large"].seq == 200
    assert len(store.read("large", begin, limit=200, max_bytes=10**9).events) == 200


def test_members_and_layer_messages_of_more_than_a_packet_are_written(
    store: DatabaseStore,
) -> None:
    large = "x" * 60_000
    members = {str(number): f'"{large}"' for number in range(100)}
    assert len(store.change_members("large", "n1", members, []).events) == 100
    storage = LayerStorage(store.alias, "c0ffee", 60, 60, lambda channel: 100)
    storage.outgoing.write_rows([("large", large.encode())] * 100)
    claimed, _ = storage.claim_shared("large", 200)
    assert len(claimed) == 100


def test_text_of_four_byte_characters_is_kept(store: DatabaseStore) -> None:
    begin = store.append("t", []).previous
    store.append("t", [Draft("🦊", '"🦊"', origin="🦊")])
    (event,) = store.read("t", begin).events
    assert (event.name, event.json, event.origin) == ("🦊", '"🦊"', "🦊")


# Isolation, locks and connections


@pytest.fixture
def snapshots(add_database: AddDatabase, mariadb_dsn: str) -> str:
    """The session's MariaDB at REPEATABLE READ, as MariaDB 11.6.2 and newer behave there."""
    entry = database_config(mariadb_dsn)
    entry["OPTIONS"] = {
        "isolation_level": "repeatable read",
        "init_command": "SET SESSION innodb_snapshot_isolation = ON",
    }
    return add_database(entry)


def test_a_transaction_whose_snapshot_is_outdated_is_repeated(
    store: DatabaseStore, snapshots: str
) -> None:
    store.append("t", X)
    tries = []

    def read_and_write(_: BaseDatabaseWrapper) -> None:
        rows = Log.objects.using(snapshots).filter(name="t")
        tries.append(rows.get().seq)
        if len(tries) == 1:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(append_elsewhere).result(DEADLINE)
        rows.update(time=0)

    def append_elsewhere() -> None:
        store.append("t", X)
        connections[store.alias].close()

    DatabaseAccess(snapshots, "test", 1.0).write(read_and_write)
    assert tries == [1, 2]


def test_new_topics_are_made_at_repeatable_read_by_many_threads_at_once(
    store: DatabaseStore, snapshots: str
) -> None:
    own = DatabaseStore(options={"using": snapshots})
    topics = [f"race.{number}" for number in range(5)]
    together = threading.Barrier(8)

    def append(_: int) -> list[int]:
        seqs = []
        for topic in topics:
            together.wait(DEADLINE)
            # All threads append the same id, and one succeeds.
            appended = own.append(topic, [Draft("once", "1", id="once"), *X])
            seqs += [event.seq or 0 for event in appended.events]
        connections[own.alias].close()
        return seqs

    with ThreadPoolExecutor(8) as pool:
        seqs = sorted(seq for found in pool.map(append, range(8)) for seq in found)
    own.close()
    assert seqs == sorted([*range(1, 10)] * len(topics))
    assert {head.seq for head in store.heads(topics).values()} == {9}


def test_an_append_waits_a_limited_time_for_a_row_that_another_transaction_holds(
    store: DatabaseStore, add_database: AddDatabase, mariadb_dsn: str
) -> None:
    class Impatient(DatabaseStore):
        LOCKED_SECONDS = 0.3

    store.append("t", X)
    other = add_database(database_config(mariadb_dsn))
    with transaction.atomic(using=other):
        list(Log.objects.using(other).select_for_update().filter(name="t"))
        with pytest.raises(StoreUnavailable, match=r"another transaction held a lock for 0\.3 s"):
            Impatient(options={"using": store.alias}).append("t", X)
    name = "innodb_lock_wait_timeout"
    session, default = query(store.alias, f"SELECT @@SESSION.{name}, @@GLOBAL.{name}")
    assert session == default
    assert store.append("t", X).events[0].seq == 2


@pytest.mark.parametrize("in_store_thread", [True, False])
def test_a_connection_that_the_server_ended_is_opened_again_with_djangos_settings(
    store: DatabaseStore, in_store_thread: bool
) -> None:
    call = STORE_THREADS.run_in_each if in_store_thread else lambda function: function()
    store.append("ended", X)
    STORE_THREADS.submit(int).result()  # starts the threads
    numbers, states = list[int](), list[tuple[Any, ...]]()
    call(lambda: numbers.append(query(store.alias, "SELECT CONNECTION_ID()")[0]))
    for number in numbers:
        end_connection(store.alias, number)
    call(lambda: store.append("ended", X))
    assert store.heads(["ended"])["ended"].seq == 1 + len(numbers)
    state = "SELECT @@tx_isolation, @@autocommit"
    call(lambda: states.append(query(store.alias, state)))
    assert set(states) == {("READ-COMMITTED", 1)}


def query(alias: str, sql: str) -> tuple[Any, ...]:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return tuple(cursor.fetchone())


def end_connection(alias: str, number: int) -> None:
    def kill() -> None:
        try:
            with connections[alias].cursor() as cursor:
                cursor.execute(f"KILL CONNECTION {number}")
        finally:
            connections[alias].close()

    thread = threading.Thread(target=kill)
    thread.start()
    thread.join(DEADLINE)
