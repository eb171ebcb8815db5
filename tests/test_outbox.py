"""The relay: each row is appended once and in order, whatever dies and whatever else relays."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models import F
from django.db.utils import ConnectionHandler
from django.test import override_settings

from realtime import outbox
from realtime.exceptions import StoreUnavailable
from realtime.log import history
from realtime.models import OutboxEntry
from realtime.publishing import publish
from realtime.stores import get_store
from realtime.stores.database.access import TablesMissing
from realtime.stores.memory import MemoryStore
from tests.support.server import Server
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("two_aliases"),
]

TOPIC = "public.news"
all_aliases = outbox._aliases  # the fixture two_aliases replaces it
sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


class SharedMemoryStore(MemoryStore):
    """Stands for any durable store that is not the database."""

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
    """The alias of the outbox; the log is in the same database, another one, or another store."""
    if request.param == "another store":
        with override_settings(REALTIME=ELSEWHERE):
            yield "default"
    else:
        yield "other" if request.param == "another database" else "default"


def test_rows_of_a_dead_process_are_relayed_in_order(alias: str) -> None:
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


def test_rows_are_relayed_after_the_clock_was_set_back(alias: str) -> None:
    leave_behind(1, alias)
    OutboxEntry.objects.using(alias).update(
        created=F("created") + 3600, leased_until=F("created") + 3600
    )
    assert outbox.relay_stale() == 1
    assert names() == ["e0"]


def test_more_rows_than_a_batch_are_relayed(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "BATCH", 3)
    leave_behind(10, alias)
    assert outbox.relay(alias, TOPIC) == 10
    assert names() == [f"e{number}" for number in range(10)]


def relay_together(aliases: Sequence[str]) -> None:
    together = threading.Barrier(len(aliases))
    failed: list[BaseException] = []

    def work(alias: str) -> None:
        try:
            together.wait(10)
            outbox.relay(alias, TOPIC)
        except BaseException as error:
            failed.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=[alias]) for alias in aliases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_concurrent_relays_append_each_row_once_and_in_order(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BATCH", 2)
    leave_behind(40, alias)
    relay_together([alias] * 4)
    assert names() == [f"e{number}" for number in range(40)]
    assert waiting(alias) == 0


def test_a_store_that_fails_leaves_the_rows_and_no_lease(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise StoreUnavailable("the store", "gone")

    leave_behind(2, alias)
    with monkeypatch.context() as patch:
        patch.setattr(get_store(), "append", fail)
        if get_store().alias is not None:
            patch.setattr(get_store(), "append_claimed", fail)
        assert outbox.relay_stale(older_than=-1) == 0
    assert waiting(alias) == 2
    assert outbox.relay_stale(older_than=-1) == 2
    assert names() == ["e0", "e1"]


def test_rows_of_a_relay_that_died_after_the_append_are_not_repeated() -> None:
    """The log is in another database, so append and deletion are two steps."""
    leave_behind(3, "other")

    die_after_the_append("other")
    assert waiting("other") == 3
    assert outbox.relay_stale(older_than=-1) == 0, "the lease of the dead relay is still running"
    leave_behind(1, "other")
    OutboxEntry.objects.using("other").update(leased_until=F("leased_until") - 60)
    assert outbox.relay_stale(older_than=-1) == 1, "only the event that was not appended"
    assert names() == ["e0", "e1", "e2", "e0"]
    assert waiting("other") == 0


@pytest.fixture(scope="module", params=["SQLite", "PostgreSQL", "MariaDB"])
def same(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make "direct" and "pooled" aliases of one database, before the test may use them."""
    fixtures = {"PostgreSQL": "postgres_alias", "MariaDB": "mariadb_alias"}
    fixture = fixtures.get(request.param)
    name = "default" if fixture is None else request.getfixturevalue(fixture)
    for alias in ("direct", "pooled"):
        connections.settings[alias] = connections.settings[name]
    yield
    for alias in ("direct", "pooled"):
        del connections[alias], connections.settings[alias]


@pytest.fixture
def one_database(same: None, transactional_db: None) -> Iterator[None]:
    """Keep the log on the alias "direct"; "pooled" is the same database."""
    store = {"BACKEND": "realtime.stores.database.DatabaseStore", "OPTIONS": {"using": "direct"}}
    with override_settings(REALTIME={"STORE": store}):
        yield
        get_store().close()


of_one_database = pytest.mark.django_db(transaction=True, databases=["direct", "pooled"])


class Died(BaseException):
    pass


def die_after_the_append(alias: str) -> None:
    """Relay as a process does that dies between the append and the deletion of the rows."""
    real = outbox.DatabaseAccess.write

    def die_at_the_deletion(self: Any, operation: Any) -> Any:
        if self.store == "the outbox" and names():
            raise Died
        return real(self, operation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox.DatabaseAccess, "write", die_at_the_deletion)
        with pytest.raises(Died):
            outbox.relay(alias, TOPIC)


@of_one_database
def test_two_aliases_of_one_database_publish_rows_of_a_dead_relay_once(one_database: None) -> None:
    leave_behind(3, "pooled")
    die_after_the_append("pooled")
    assert outbox.relay("direct", TOPIC) == 0, "the lease of the dead relay is still running"
    leave_behind(1, "direct")
    assert outbox.relay("direct", TOPIC) == 0, "the new row comes after those that are leased"
    OutboxEntry.objects.using("direct").update(leased_until=F("leased_until") - 60)
    assert outbox.relay("direct", TOPIC) == 1
    assert names() == ["e0", "e1", "e2", "e0"]
    assert waiting("direct") == 0


@of_one_database
def test_two_aliases_of_one_database_publish_once_after_an_append_of_unknown_outcome(
    one_database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = get_store().append

    def append_and_fail(*args: Any) -> None:
        real(*args)
        raise StoreUnavailable("the store", "the answer was lost")

    leave_behind(2, "pooled")
    with monkeypatch.context() as patch:
        patch.setattr(get_store(), "append", append_and_fail)
        with pytest.raises(StoreUnavailable):
            outbox.relay("pooled", TOPIC)
    assert outbox.relay("direct", TOPIC) == 0
    assert (names(), waiting("direct")) == (["e0", "e1"], 0)


@of_one_database
def test_two_aliases_of_one_database_relay_each_row_once_and_in_order(
    one_database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BATCH", 2)
    leave_behind(60, "pooled")
    relay_together(["pooled", "direct"] * 2)
    assert outbox.relay("direct", TOPIC) == 0
    assert (names(), waiting("direct")) == ([f"e{number}" for number in range(60)], 0)


def test_a_database_without_the_tables_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    leave_behind(1)
    table, away = "realtime_outboxentry", "realtime_outboxentry_away"
    with connections["other"].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {away}")
        try:
            assert outbox.relay_stale(older_than=-1) == 1
        finally:
            cursor.execute(f"ALTER TABLE {away} RENAME TO {table}")
    assert "cannot be read" not in caplog.text  # some aliases are never migrated


class Queue:
    """Stands for the threads of an alias: keeps the functions that they are to run."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []

    def submit(self, *job: Any) -> Future[int]:
        self.jobs.append(job)
        return Future()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> dict[str, Queue]:
    queues: dict[str, Queue] = defaultdict(Queue)
    monkeypatch.setattr(outbox, "RELAY_THREADS", queues)
    return queues


def test_stale_rows_are_searched_at_most_once_a_second_and_never_twice_at_once(
    threads: dict[str, Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_aliases", lambda: ["default"])
    jobs = threads["default"].jobs
    outboxes = outbox._Outboxes()
    outboxes.last = 99.5
    clock = iter([100.0, 100.6, 105.0, 105.1, 105.9])
    monkeypatch.setattr(outbox, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    outboxes.start_if_due()
    assert jobs == []
    outboxes.start_if_due()
    outboxes.start_if_due()
    assert len(jobs) == 1, "the first search is still running"
    jobs.pop()[0]()
    outboxes.start_if_due()
    assert jobs == [], "within the second"


def test_an_alias_that_hangs_delays_no_other(
    threads: dict[str, Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    outboxes = outbox._Outboxes()
    for _ in range(3):
        outboxes.last = -1e9
        outboxes["default"].due = 0.0
        outboxes.start_if_due()
        threads["default"].jobs[-1][0]()
    assert len(threads["default"].jobs) == 3
    assert len(threads["other"].jobs) == 1, "its search has not ended"


def test_an_alias_without_the_tables_is_asked_once_a_minute_until_it_has_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any) -> None:
        raise TablesMissing("it was not migrated")

    outboxes = outbox._Outboxes()
    monkeypatch.setattr(outbox, "_outboxes", outboxes)
    with monkeypatch.context() as patch:
        patch.setattr(outbox.DatabaseAccess, "read", fail)
        outboxes["other"].relay_stale(-1)
    assert outboxes["other"].due > time.monotonic() + outbox.EMPTY_SECONDS / 2
    leave_behind(1, "other")
    assert outboxes["other"].due == 0.0


def test_an_alias_that_fails_is_asked_less_and_less_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise StoreUnavailable("the outbox", "gone")

    other = outbox._Outbox("other")
    with monkeypatch.context() as patch:
        patch.setattr(outbox.DatabaseAccess, "read", fail)
        for _ in range(5):
            other.relay_stale(-1)
        assert other.due > time.monotonic() + outbox.RETRY_SECONDS[1] / 2
    other.relay_stale(-1)
    assert [record.getMessage() for record in caplog.records] == [
        "the outbox of 'other' cannot be searched for events of dead processes: "
        "the outbox is not available: gone",
        "the outbox of 'other' can be searched again",
    ]


def test_a_replica_leaves_its_rows_to_the_primary(caplog: pytest.LogCaptureFixture) -> None:
    """SQLite that only reads stands for it: it shows rows and refuses to lease them."""
    leave_behind(1, "other")
    with connections["other"].cursor() as cursor:
        cursor.execute("PRAGMA query_only = 1")
        try:
            assert outbox._outboxes["other"].relay_stale(-1) == 0
        finally:
            cursor.execute("PRAGMA query_only = 0")
    assert outbox._outboxes["other"].due > time.monotonic() + outbox.EMPTY_SECONDS / 2
    assert caplog.records == []
    assert outbox._outboxes["other"].relay_stale(-1) == 1


def test_only_aliases_that_can_have_rows_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Router:
        def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
            return False if db == "legacy" else None

    names = {"default": {}, **dict.fromkeys(["main", "legacy", "replica"], sqlite)}
    names["replica"] = {**sqlite, "TEST": {"MIRROR": "main"}}
    databases = ConnectionHandler(names)
    monkeypatch.setattr(outbox, "connections", databases)
    with override_settings(DATABASE_ROUTERS=[Router()]):
        assert all_aliases() == ["main"]


def test_a_request_does_not_wait_while_relays_take_longer_than_a_second(
    threads: dict[str, Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def wait(futures: Any, timeout: float) -> Any:
        waited.append(timeout)
        return SimpleNamespace(not_done={one for one in futures if not one.done()})

    monkeypatch.setattr(outbox.concurrent.futures, "wait", wait)
    relays = outbox._Relays()
    slow = relays.start("default", TOPIC)
    relays.wait("default", [slow])
    relays.wait("default", [relays.start("default", "public.other")])
    assert waited == [outbox.COMMIT_WAIT_SECONDS, 0.0]
    relays.wait("other", [relays.start("other", TOPIC)])
    assert waited[-1] == outbox.COMMIT_WAIT_SECONDS, "an alias does not speak for another"
    for future in relays.overdue["default"]:
        future.set_result(1)
    relays.wait("default", [slow])
    assert waited[-1] == outbox.COMMIT_WAIT_SECONDS, "it is over"


def test_a_topic_has_at_most_one_queued_relay(threads: dict[str, Queue]) -> None:
    jobs = threads["default"].jobs
    relays = outbox._Relays()
    first = relays.start("default", TOPIC)
    assert relays.start("default", TOPIC) is first
    assert relays.start("other", TOPIC) is not first
    assert (len(jobs), len(threads["other"].jobs)) == (1, 1)
    run, *arguments = jobs[0]
    run(*arguments)
    assert relays.start("default", TOPIC) is not first, (
        "the first misses what commits after its start"
    )


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
def test_a_process_killed_at_any_point_publishes_all_or_nothing(
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


BESIDE_A_SILENT_ALIAS = """
import sys
from django.core.management import call_command
from django.db import transaction
from realtime import outbox, publish
from realtime.log import history
from tests.support.waiting import wait_until

outbox.CONNECT_SECONDS = 2
call_command("migrate", "realtime", database="main", verbosity=0)
for line in sys.stdin:
    publish("public.news", "searches", using="main")
    if line == "commit\\n":
        with transaction.atomic(using="main"):
            publish("public.news", "committed", using="main")
        wait_until(lambda: history("public.news")[-1].name == "committed", "it is relayed", 30)
    print("done", flush=True)
"""


def test_an_alias_that_never_answers_delays_no_event_and_no_exit(tmp_path: Path) -> None:
    """The default alias is empty, too, which Django allows."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        address = {"HOST": "127.0.0.1", "PORT": str(silent.getsockname()[1])}
        databases = {
            "default": {},
            "main": {**sqlite, "NAME": str(tmp_path / "main.sqlite3")},
            "silent": {"ENGINE": "django.db.backends.postgresql", "NAME": "x", **address},
        }
        using = {"OPTIONS": {"using": "main"}}
        store = {"BACKEND": "realtime.stores.database.DatabaseStore", **using}
        settings = {"DATABASES": databases, "REALTIME": {"STORE": store}}
        asked: list[socket.socket] = []
        server = Server(tmp_path, settings=settings)
        with server.popen(BESIDE_A_SILENT_ALIAS, stdin=subprocess.PIPE) as process:

            def do(what: str) -> None:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(f"{what}\n")
                process.stdin.flush()
                if process.stdout.readline() != "done\n":
                    raise AssertionError(process.communicate()[1])

            def is_asked() -> bool:
                do("search")
                with suppress(BlockingIOError):
                    asked.append(silent.accept()[0])
                return bool(asked)

            wait_until(is_asked, "the silent alias is searched", 30)
            for _ in range(3):
                do("commit")
            _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        asked[0].close()
