"""Several processes append to one log, and some of them are killed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
from django.db import connections

from realtime.models import Log, LogEvent
from realtime.protocol.events import Cursor, Draft, Event
from realtime.stores.database import DatabaseStore
from tests.support.waiting import SCALE, wait_until

PROCESSES, APPENDS = 8, 500
# With a rollback journal, each append waits for the disk; PyMySQL builds its packets in Python.
FEW_APPENDS = 150


class Database:
    """A database that this process and its child processes use."""

    def __init__(self, kind: str, alias: str) -> None:
        self.kind = kind
        self.alias = alias
        self.entry = json.dumps(connections.settings[alias])
        self.store = DatabaseStore(options={"using": alias})

    def new_events(self, topic: str, after: Cursor) -> tuple[Event, ...]:
        return self.store.read(topic, after).events

    @contextmanager
    def appender(self, topic: str, count: int) -> "Iterator[subprocess.Popen[str]]":
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.stores.database.appender", self.entry, topic, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=30)


@pytest.fixture(params=["sqlite", "wal", "postgres", "mariadb"])
def db(request: pytest.FixtureRequest, database: None) -> Iterator[Database]:
    db = Database(request.param, request.getfixturevalue(f"{request.param}_alias"))
    yield db
    db.store.close()


def start(processes: "list[subprocess.Popen[str]]") -> None:
    """Wait until all processes are ready, then start them together."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def test_eight_processes_number_their_events_without_a_hole(db: Database) -> None:
    topic = f"eight.{db.alias}"
    after = db.store.heads([topic])[topic]
    appends = FEW_APPENDS if db.kind in ("sqlite", "mariadb") else APPENDS
    total = PROCESSES * appends
    with ExitStack() as stack:
        processes = [stack.enter_context(db.appender(topic, appends)) for _ in range(PROCESSES)]
        start(processes)
        seen: list[int] = []
        while len(seen) < total:
            events = wait_until(
                partial(db.new_events, topic, after), "an event arrives", timeout=60
            )
            numbers = [event.seq or 0 for event in events]
            assert numbers == list(range(after.seq + 1, after.seq + 1 + len(numbers)))
            seen += numbers
            assert events[-1].cursor is not None
            after = events[-1].cursor
        printed = [process.communicate(timeout=60 * SCALE)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * PROCESSES
    assert seen == list(range(1, total + 1))
    assert sorted(int(number) for text in printed for number in text.split()) == seen
    times = LogEvent.objects.using(db.alias).filter(log__name=topic).order_by("seq")
    assert list(times.values_list("time", flat=True)) == sorted(
        times.values_list("time", flat=True)
    )


def test_a_killed_process_leaves_a_log_without_a_hole(db: Database) -> None:
    topic = f"killed.{db.alias}"
    begin = db.store.heads([topic])[topic]
    for _ in range(5):
        with db.appender(topic, 1_000_000) as process:
            start([process])
            assert process.stdout is not None
            acknowledged = [int(process.stdout.readline()) for _ in range(20)][-1]
            process.kill()
            process.wait(30)
            acknowledged = max([acknowledged, *map(int, process.stdout.read().split("\n")[:-1])])
        head = db.store.append(topic, [Draft("after", "1")]).previous
        # It may have been killed between its last append and the print.
        assert head.seq in (acknowledged, acknowledged + 1)
    numbers, after = [], begin
    while after != db.store.heads([topic])[topic]:
        page = db.store.read(topic, after)
        numbers += [event.seq for event in page.events]
        assert page.events[-1].cursor is not None
        after = page.events[-1].cursor
    assert numbers == list(range(1, after.seq + 1))
    assert Log.objects.using(db.alias).get(name=topic).seq == after.seq
