"""LISTEN on PostgreSQL: what is heard, how it is proved, and that polling takes over."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.db import connections, transaction
from pytest_django import DjangoDbBlocker

from realtime.layers import notify, worker
from realtime.layers.messages import pack
from realtime.layers.notify import Listener
from realtime.layers.sql import insert_messages
from tests.layers.conftest import Database, await_hearing, end_connections
from tests.layers.contract import MakeLayer, next_is, receive
from tests.layers.pooler import Pooler
from tests.support.databases import database_config
from tests.support.services import PostgresServer
from tests.support.waiting import await_until

NEVER = 3600.0  # a polling interval at which nothing is found by polling


@pytest.fixture
def database(postgres: Database) -> Database:
    connections[postgres.alias].close()  # the test's own is not to be ended
    return postgres


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try LISTEN again soon."""
    monkeypatch.setattr(notify, "RETRY_SECONDS", (0.05, 0.1))


class TestLetters:
    """Of layers that never look."""

    async def test_are_heard_of(self, make_layer: MakeLayer) -> None:
        here, there = make_layer(polling_interval=NEVER), make_layer(polling_interval=NEVER)
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await await_hearing(there)
        for number in range(0, 30, 3):
            await here.group_send("orders", {"number": number})
            await next_is(there, theirs, number)
            await here.send(theirs, {"number": number + 1})
            await next_is(there, theirs, number + 1)

    async def test_of_a_shared_channel_are_heard_of(self, make_layer: MakeLayer) -> None:
        here, there = make_layer(polling_interval=NEVER), make_layer(polling_interval=NEVER)
        readers = [
            asyncio.create_task(receive(layer, "worker")) for layer in (here, there) for _ in "ab"
        ]
        for layer in (here, there):
            await await_hearing(layer)
        sender = make_layer()
        for number in range(4):
            await sender.send("worker", {"number": number})
        got = [message["number"] for message in await asyncio.gather(*readers)]
        assert sorted(got) == [0, 1, 2, 3]

    async def test_of_a_transaction_are_heard_of(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        here, there = make_layer(polling_interval=NEVER), make_layer(polling_interval=NEVER)
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await await_hearing(there)

        def view() -> None:
            with transaction.atomic(using=database.alias):
                for number in range(3):
                    async_to_sync(here.group_send)("orders", {"number": number})

        await database.run(view)
        for number in range(3):
            await next_is(there, theirs, number)
        assert not here._worker.running  # nor does a process that only sends need a thread

    async def test_joins_of_other_processes_are_heard_of(self, make_layer: MakeLayer) -> None:
        here, there = make_layer(polling_interval=NEVER), make_layer(polling_interval=NEVER)
        theirs = await there.new_channel()
        reading = asyncio.create_task(receive(there, theirs))
        await await_hearing(there)
        await here.group_add("orders", theirs)
        await await_until(there._local.members, "the owner knows of it")
        reading.cancel()

    async def test_that_nobody_told_of_are_found_and_listening_is_proved_anew(
        self, make_layer: MakeLayer, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "SAFETY_SECONDS", 0.05)
        layer = make_layer()
        channel = await layer.new_channel()
        reading = asyncio.create_task(receive(layer, channel))
        await await_hearing(layer)
        token = layer._worker._listener._token

        def write() -> None:
            letter = pack(["message", [channel], pack({"number": 1})])
            rows = database.rows("LayerMessage")
            insert_messages(connections[rows.db], rows.model, [(layer.inbox, letter)], 60)

        await database.run(write)
        assert (await reading)["number"] == 1
        again = asyncio.create_task(receive(layer, channel))
        await await_until(
            lambda: layer._worker._listener._token != token and layer._worker._listener.verified,
            "another proof came",
        )
        again.cancel()

    async def test_process_that_hears_of_them_hardly_looks(self, make_layer: MakeLayer) -> None:
        layer = make_layer(polling_interval=0.001)
        await layer.group_add("orders", await layer.new_channel())
        await await_hearing(layer)
        await await_until(
            lambda: layer._worker._poll_at - time.monotonic() > worker.SAFETY_SECONDS / 2,
            "the next look is seconds away",
        )


class TestConnection:
    async def test_that_is_ended_is_made_anew(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        here, there = make_layer(polling_interval=NEVER), make_layer(polling_interval=NEVER)
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        for number in range(3):
            await await_hearing(there)
            first = there._worker._listener._connection
            await database.run(lambda: end_connections(database.alias, "LISTEN%"))
            await await_until(
                lambda first=first: there._worker._listener._connection is not first,
                "the end was noticed",
            )
            await await_hearing(there)
            await here.group_send("orders", {"number": number})
            await next_is(there, theirs, number)

    async def test_that_cannot_be_made_is_polled_for_until_it_can(
        self,
        make_layer: MakeLayer,
        database: Database,
        impatient: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        here, there = make_layer(), make_layer()
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await await_hearing(there)

        def refuse(self: Listener) -> None:
            raise OSError("too many connections")

        with monkeypatch.context() as patch:
            patch.setattr(Listener, "_connect", refuse)
            await database.run(lambda: end_connections(database.alias, "LISTEN%"))
            await await_until(
                lambda: not there._worker._listener.verified, "it knows that it is deaf"
            )
            for number in range(3):
                await here.group_send("orders", {"number": number})
                await next_is(there, theirs, number)
            assert not there._worker._listener.verified
        await await_hearing(there)

    async def test_is_not_one_of_djangos_and_ends_with_the_thread(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        layer = make_layer()
        await layer.group_add("orders", await layer.new_channel())
        await await_hearing(layer)
        connection = layer._worker._listener._connection
        assert connection.autocommit
        await layer.close()
        assert connection.closed


class TestPooler:
    @pytest.fixture
    def pooler(self, postgres: Database) -> Iterator[Pooler]:
        with contextlib.closing(Pooler(postgres.url)) as pooler:
            yield pooler

    @pytest.fixture
    def database(self, pooler: Pooler) -> Iterator[Database]:
        alias = "pooled"
        config = {"default": {}, alias: database_config(pooler.url)}
        connections.settings[alias] = connections.configure_settings(config)[alias]
        yield Database(alias, pooler.url)
        connections[alias].close()
        del connections[alias], connections.settings[alias]

    async def test_that_swallows_notifications_is_polled_through(
        self,
        make_layer: MakeLayer,
        pooler: Pooler,
        impatient: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(notify, "VERIFY_SECONDS", 0.1)
        here, there = make_layer(), make_layer()
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        for number in range(10):
            await here.group_send("orders", {"number": number})
            await next_is(there, theirs, number)
        await await_until(
            lambda: there._worker._listener._outage.failures > 1, "it tried repeatedly"
        )
        assert pooler.dropped
        assert not there._worker._listener.verified
        monkeypatch.setattr(notify, "VERIFY_SECONDS", 5.0)
        pooler.transparent = True
        await await_hearing(there)


class TestRestart:
    @pytest.fixture
    def database(
        self,
        postgres_server: PostgresServer,
        django_db_setup: None,
        django_db_blocker: DjangoDbBlocker,
    ) -> Iterator[Database]:
        alias = "restarted"
        config = {"default": {}, alias: database_config(postgres_server.url)}
        connections.settings[alias] = connections.configure_settings(config)[alias]
        with django_db_blocker.unblock():
            call_command("migrate", "realtime", database=alias, verbosity=0)
            connections[alias].close()
            yield Database(alias, postgres_server.url)
            connections[alias].close()
        del connections[alias], connections.settings[alias]

    async def test_of_the_server_is_survived(
        self, make_layer: MakeLayer, postgres_server: PostgresServer, impatient: None
    ) -> None:
        here, there = make_layer(polling_interval=NEVER), make_layer(polling_interval=NEVER)
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await await_hearing(there)
        await asyncio.to_thread(postgres_server.stop)
        await await_until(lambda: not there._worker._listener.verified, "it noticed")
        await asyncio.to_thread(postgres_server.start)
        await await_hearing(there)
        await here.group_send("orders", {"number": 1})
        await next_is(there, theirs, 1)
