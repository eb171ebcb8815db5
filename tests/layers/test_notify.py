"""LISTEN on PostgreSQL: notifications, their verification, and polling without them."""

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
from tests.layers.conftest import Database, await_listening, end_connections
from tests.layers.contract import MakeLayer, next_is, receive
from tests.layers.pooler import Pooler
from tests.support.databases import database_config
from tests.support.services import PostgresServer
from tests.support.waiting import await_until

NEVER = 3600.0  # a polling interval so long that polling finds nothing


@pytest.fixture
def database(postgres: Database) -> Database:
    connections[postgres.alias].close()  # the tests must not end their own connection
    return postgres


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry LISTEN soon."""
    monkeypatch.setattr(notify, "RETRY_SECONDS", (0.05, 0.1))


class TestNotifications:
    """On layers that never poll."""

    async def test_they_arrive_for_messages_to_a_group_and_to_a_channel(
        self, make_layer: MakeLayer
    ) -> None:
        here, there = make_layer(polling_interval=NEVER), make_layer(polling_interval=NEVER)
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await await_listening(there)
        for number in range(0, 30, 3):
            await here.group_send("orders", {"number": number})
            await next_is(there, theirs, number)
            await here.send(theirs, {"number": number + 1})
            await next_is(there, theirs, number + 1)

    async def test_they_arrive_for_messages_on_a_shared_channel(
        self, make_layer: MakeLayer
    ) -> None:
        here, there = make_layer(polling_interval=NEVER), make_layer(polling_interval=NEVER)
        readers = [
            asyncio.create_task(receive(layer, "worker")) for layer in (here, there) for _ in "ab"
        ]
        for layer in (here, there):
            await await_listening(layer)
        sender = make_layer()
        for number in range(4):
            await sender.send("worker", {"number": number})
        got = [message["number"] for message in await asyncio.gather(*readers)]
        assert sorted(got) == [0, 1, 2, 3]

    async def test_they_arrive_for_messages_of_a_transaction(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        here, there = make_layer(polling_interval=NEVER), make_layer(polling_interval=NEVER)
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await await_listening(there)

        def view() -> None:
            with transaction.atomic(using=database.alias):
                for number in range(3):
                    async_to_sync(here.group_send)("orders", {"number": number})

        await database.run(view)
        for number in range(3):
            await next_is(there, theirs, number)
        assert not here._worker.running  # a process that only sends needs no thread

    async def test_they_arrive_for_joins_by_other_processes(self, make_layer: MakeLayer) -> None:
        here, there = make_layer(polling_interval=NEVER), make_layer(polling_interval=NEVER)
        theirs = await there.new_channel()
        reading = asyncio.create_task(receive(there, theirs))
        await await_listening(there)
        await here.group_add("orders", theirs)
        await await_until(there._local.members, "the owner has the member")
        reading.cancel()

    async def test_a_message_without_one_is_found_and_listen_is_verified_again(
        self, make_layer: MakeLayer, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "SAFETY_SECONDS", 0.05)
        layer = make_layer()
        channel = await layer.new_channel()
        reading = asyncio.create_task(receive(layer, channel))
        await await_listening(layer)
        token = layer._worker._listener._token

        def write() -> None:
            message = pack(["message", [channel], pack({"number": 1})])
            rows = database.rows("LayerMessage")
            insert_messages(connections[rows.db], rows.model, [(layer.inbox, message)], 60)

        await database.run(write)
        assert (await reading)["number"] == 1
        again = asyncio.create_task(receive(layer, channel))
        await await_until(
            lambda: layer._worker._listener._token != token and layer._worker._listener.verified,
            "LISTEN is verified again",
        )
        again.cancel()

    async def test_a_process_that_gets_them_rarely_polls(self, make_layer: MakeLayer) -> None:
        layer = make_layer(polling_interval=0.001)
        await layer.group_add("orders", await layer.new_channel())
        await await_listening(layer)
        await await_until(
            lambda: layer._worker._poll_at - time.monotonic() > worker.SAFETY_SECONDS / 2,
            "the next poll is seconds away",
        )


class TestConnection:
    async def test_is_opened_again_after_the_server_ended_it(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        here, there = make_layer(polling_interval=NEVER), make_layer(polling_interval=NEVER)
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        for number in range(3):
            await await_listening(there)
            first = there._worker._listener._connection
            await database.run(lambda: end_connections(database.alias, "LISTEN%"))
            await await_until(
                lambda first=first: there._worker._listener._connection is not first,
                "the worker noticed the end",
            )
            await await_listening(there)
            await here.group_send("orders", {"number": number})
            await next_is(there, theirs, number)

    async def test_that_cannot_be_opened_makes_the_process_poll_until_it_can(
        self,
        make_layer: MakeLayer,
        database: Database,
        impatient: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        here, there = make_layer(), make_layer()
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await await_listening(there)

        def refuse(self: Listener) -> None:
            raise OSError("too many connections")

        with monkeypatch.context() as patch:
            patch.setattr(Listener, "_connect", refuse)
            await database.run(lambda: end_connections(database.alias, "LISTEN%"))
            await await_until(
                lambda: not there._worker._listener.verified, "the worker noticed the end"
            )
            for number in range(3):
                await here.group_send("orders", {"number": number})
                await next_is(there, theirs, number)
            assert not there._worker._listener.verified
        await await_listening(there)

    async def test_is_not_one_of_djangos_and_is_closed_with_the_thread(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        layer = make_layer()
        await layer.group_add("orders", await layer.new_channel())
        await await_listening(layer)
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

    async def test_that_drops_notifications_makes_the_process_poll(
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
            lambda: there._worker._listener._outage.failures > 1, "LISTEN was tried repeatedly"
        )
        assert pooler.dropped
        assert not there._worker._listener.verified
        monkeypatch.setattr(notify, "VERIFY_SECONDS", 5.0)
        pooler.transparent = True
        await await_listening(there)


class TestServer:
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

    async def test_that_restarts_is_listened_to_again(
        self, make_layer: MakeLayer, postgres_server: PostgresServer, impatient: None
    ) -> None:
        here, there = make_layer(polling_interval=NEVER), make_layer(polling_interval=NEVER)
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await await_listening(there)
        await asyncio.to_thread(postgres_server.stop)
        await await_until(
            lambda: not there._worker._listener.verified, "the worker noticed the end"
        )
        await asyncio.to_thread(postgres_server.start)
        await await_listening(there)
        await here.group_send("orders", {"number": 1})
        await next_is(there, theirs, 1)
