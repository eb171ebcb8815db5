"""The promise, end to end, with real Daphne processes that are killed and real sockets.

Per topic, a client gets every event once and in order, across reconnects and restarts, or it gets
one reset.
"""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from realtime import outbox
from realtime.hub import hub, jobs
from tests.support.server import DEADLINE, Client, Server, connect
from tests.support.waiting import await_until
from tests.test_outbox import BETWEEN_APPEND_AND_WAKE_UP, BETWEEN_COMMIT_AND_APPEND, KILLED

TOPIC = "public.news"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as running:
        yield running


async def in_thread(function: object, *args: object) -> None:
    await asyncio.to_thread(function, *args)  # type: ignore[arg-type]


async def test_a_client_misses_nothing_when_it_resumes_after_the_server_was_killed(
    server: Server,
) -> None:
    async with connect(server) as client:
        await client.subscribe(TOPIC)
        await in_thread(server.publish, TOPIC, 3)
        cursor = (await client.events(3))[-1]["cursor"]
        server.kill9()
        with pytest.raises(Exception):  # noqa: B017, PT011 - the library decides which
            await client.receive()
    await in_thread(server.publish, TOPIC, 20, "tick", 3)
    server.start()
    async with connect(server) as client:
        answer = await client.subscribe(TOPIC, since=cursor)
        assert (answer["recovered"], answer["replayed"]) == (True, 20)
        events = await client.events(20)
        assert [event["data"] for event in events] == list(range(3, 23))
        assert [event["seq"] for event in events] == list(range(4, 24))
        await in_thread(server.publish, TOPIC, 1, "tick", 23)
        assert (await client.events(1))[0]["seq"] == 24, (
            "live events follow the replay, and none is repeated"
        )


async def test_a_cursor_older_than_the_log_causes_exactly_one_reset(server: Server) -> None:
    topic = "tiny.news"
    async with connect(server) as client:
        await client.subscribe(topic)
        await in_thread(server.publish, topic, 1)
        old = (await client.events(1))[0]["cursor"]
    server.kill9()
    server.publish(topic, 30)
    server.run("from realtime.retention import trim_all; print(trim_all())")
    server.start()
    async with connect(server) as client:
        answer = await client.subscribe(topic, since=old)
        assert answer["recovered"] is False
        assert answer["replayed"] == 0
        await in_thread(server.publish, topic, 1, "after")
        event = await client.receive()
        assert (event["type"], event["event"], event["seq"]) == ("event", "after", 32)


@pytest.mark.parametrize(
    "where", [BETWEEN_COMMIT_AND_APPEND, BETWEEN_APPEND_AND_WAKE_UP], ids=["append", "wake-up"]
)
async def test_another_process_delivers_the_events_of_a_killed_one(
    server: Server, where: str
) -> None:
    async with connect(server) as client:
        await client.subscribe(TOPIC)
        # Let the head check that follows a join pass, because it could find the events by chance.
        for _ in range(2):
            await in_thread(server.publish, TOPIC, 1)
            await client.events(1)
        await in_thread(server.run, KILLED.format(where=where), -signal.SIGKILL)
        # The relay or a head check finds them within 5 s; the next test adds up the intervals.
        events = await client.events(20)
        assert [event["event"] for event in events] == [f"e{number}" for number in range(20)]
        assert [event["seq"] for event in events] == list(range(3, 23))


def test_the_intervals_find_events_of_a_dead_process_within_five_seconds() -> None:
    relayed = outbox.STALE_SECONDS + jobs.RELAY_SECONDS + jobs.TICK_SECONDS
    announced = hub.HEAD_CHECK_SECONDS + jobs.TICK_SECONDS
    assert max(relayed, announced) < 5


async def test_a_restored_backup_resets_every_client_once_and_events_go_on(server: Server) -> None:
    live = server.folder / "default.sqlite3"
    backup = server.folder / "backup.sqlite3"
    async with connect(server) as client, connect(server) as other:
        await client.subscribe(TOPIC)
        await other.subscribe(TOPIC)
        await in_thread(server.publish, TOPIC, 5)
        await client.events(5)
        await other.events(5)
        copy(live, backup)
        await in_thread(server.publish, TOPIC, 5)
        lost = (await client.events(5))[-1]["cursor"]
        await other.events(5)
        copy(backup, live)  # as `sqlite3 live.sqlite3 '.restore backup.sqlite3'` does
        for each in (client, other):
            reset = await each.receive()
            assert (reset["type"], reset["reason"]) == ("reset", "restarted")
        await in_thread(server.publish, TOPIC, 1, "after")
        for each in (client, other):
            event = await each.receive()
            assert (event["event"], event["seq"]) == ("after", 6)
        late = await client.ask(type="unsubscribe", topic=TOPIC)
        assert late["type"] == "unsubscribed"
        assert (await client.subscribe(TOPIC, since=lost))["recovered"] is False


async def test_a_database_file_replaced_by_a_backup_resets_every_client_once(
    server: Server,
) -> None:
    live = server.folder / "default.sqlite3"
    backup = server.folder / "backup.sqlite3"
    async with connect(server) as client:
        await client.subscribe(TOPIC)
        await in_thread(server.publish, TOPIC, 5)
        await client.events(5)
        copy(live, backup)
        await in_thread(server.publish, TOPIC, 5)
        await client.events(5)
        for suffix in ("-wal", "-shm"):
            (server.folder / f"default.sqlite3{suffix}").unlink(missing_ok=True)
        shutil.move(backup, live)
        assert (await client.receive())["type"] == "reset"
        await in_thread(server.publish, TOPIC, 1, "after")
        event = await client.receive()
        assert (event["event"], event["seq"]) == ("after", 6)


def copy(source: Path, target: Path) -> None:
    """Copy a database that is in use, with SQLite's backup API."""
    one, two = sqlite3.connect(source, timeout=20), sqlite3.connect(target, timeout=20)
    try:
        one.backup(two)
    finally:
        one.close()
        two.close()


PROCESSES, EVENTS = 4, 100


@pytest.mark.parametrize("database", ["SQLite", "PostgreSQL", "MariaDB"])
async def test_every_client_gets_the_same_contiguous_events_of_many_publishers(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    fixture = {"PostgreSQL": "postgres_dsn", "MariaDB": "mariadb_database"}.get(database)
    url = None if fixture is None else request.getfixturevalue(fixture)
    total = PROCESSES * EVENTS
    async with AsyncExitStack() as stack:
        servers = [Server(tmp_path, url) for _ in range(2)]
        for server in servers:
            await asyncio.to_thread(server.__enter__)
            stack.callback(server.__exit__, None, None, None)
        topic = f"public.many-{os.getpid()}"
        clients: list[Client] = []
        for number in range(6):
            client = await stack.enter_async_context(connect(servers[number % 2]))
            await client.subscribe(topic)
            clients.append(client)
        script = (
            "from django.db import transaction\n"
            "from realtime import publish\n"
            f"for n in range({EVENTS}):\n"
            "    with transaction.atomic():\n"
            f"        publish({topic!r}, 'tick', n)\n"
        )
        publishers = [servers[0].popen(script) for _ in range(PROCESSES)]
        views = await asyncio.gather(*(client.events(total) for client in clients))
        for publisher in publishers:
            out, err = await asyncio.to_thread(publisher.communicate, None, DEADLINE)
            assert publisher.returncode == 0, out + err
    for view in views:
        assert [event["seq"] for event in view] == list(range(1, total + 1))
        assert [event["cursor"] for event in view] == [event["cursor"] for event in views[0]]


async def test_no_client_misses_an_event_when_a_node_is_killed_repeatedly(tmp_path: Path) -> None:
    total = 200
    topic = "public.killed"
    with ExitStack() as stack:
        stays, dies = (stack.enter_context(Server(tmp_path)) for _ in range(2))
        async with connect(stays) as witness:
            await witness.subscribe(topic)
            publisher = stays.popen(
                "import sys\nfrom realtime import publish\n"
                f"for n in range({total}):\n"
                f"    publish({topic!r}, 'tick', n)\n"
                "    sys.stdin.readline() if n % 50 == 49 else None\n",
                stdin=subprocess.PIPE,
            )
            stack.callback(publisher.communicate, timeout=DEADLINE)
            assert publisher.stdin is not None
            seen: list[int] = []
            cursor = None
            for round_ in range(4):
                async with connect(dies) as client:
                    answer = await client.subscribe(topic, since=cursor)
                    if cursor is None:
                        # The first events may be older than the subscription: start over.
                        await client.ask(type="unsubscribe", topic=topic)
                        answer = await client.subscribe(topic, since="@0")
                    else:
                        assert answer["recovered"] is True
                    while len(seen) < 50 * round_ + 25:
                        event = await client.receive()
                        seen.append(event["seq"])
                        cursor = event["cursor"]
                dies.kill9()
                publisher.stdin.write("\n")
                publisher.stdin.flush()
                await asyncio.to_thread(dies.start)
            async with connect(dies) as client:
                assert (await client.subscribe(topic, since=cursor))["recovered"] is True
                while len(seen) < total:
                    seen.append((await client.receive())["seq"])
            assert seen == list(range(1, total + 1))
            assert [event["seq"] for event in await witness.events(total)] == seen


async def test_clients_that_leave_at_once_do_not_disturb_the_server(server: Server) -> None:
    """Connections open and close while events are delivered to another client."""
    stop = asyncio.Event()

    async def connect_repeatedly() -> int:
        count = 0
        while not stop.is_set():
            async with connect(server) as client:
                await client.send(type="subscribe", id=1, topic=TOPIC, last=5)
            count += 1
        return count

    connecting = [asyncio.create_task(connect_repeatedly()) for _ in range(5)]
    async with connect(server) as witness:
        await witness.subscribe(TOPIC)
        await in_thread(server.publish, TOPIC, 200)
        assert [event["seq"] for event in await witness.events(200)] == list(range(1, 201))
    stop.set()
    assert all(await asyncio.gather(*connecting))
    await await_until(
        lambda: "Traceback" not in server.log.read_text(), "the server logged no traceback"
    )
