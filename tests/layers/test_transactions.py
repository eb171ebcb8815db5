"""Messages that are sent inside atomic(): part of the transaction, delivered after its commit."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.exceptions import ChannelFull
from django.db import connections, transaction
from django.test import TestCase

from realtime import broadcast
from realtime.broadcast import Wakeup, group_name
from realtime.exceptions import StoreUnavailable
from realtime.layers import DatabaseChannelLayer, storage, worker
from realtime.protocol.events import Event
from tests.layers.conftest import Database, close
from tests.layers.contract import MakeLayer, next_is, receive

ON_DISK = pytest.mark.parametrize("database", ["sqlite", "postgres", "mariadb"], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("database", ["postgres"], indirect=True)


class Rollback(Exception):
    """Raised to roll a transaction back."""


@pytest.fixture(params=["sqlite", "postgres", "mariadb", "memory"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each database; the connection of the test's thread is closed at the end."""
    database: Database = request.getfixturevalue(request.param)
    yield database
    close(database.alias)


class TwoLayers:
    """A layer here and one of another process, each with a member of the group "orders"."""

    def __init__(self, database: Database, make_layer: MakeLayer) -> None:
        self.alias = database.alias
        self.here = make_layer()
        # An in-memory database belongs to one process.
        self.there = self.here if database.alias == "memory" else make_layer()

    async def join(self) -> None:
        self.ours, self.theirs = await self.here.new_channel(), await self.there.new_channel()
        await self.here.group_add("orders", self.ours)
        await self.there.group_add("orders", self.theirs)

    @property
    def readers(self) -> list[tuple[DatabaseChannelLayer, str]]:
        return [(self.here, self.ours), (self.there, self.theirs), (self.there, "worker")]

    def send(self, number: int) -> None:
        """Send to the group and to the shared channel "worker", from synchronous code."""
        async_to_sync(self.here.group_send)("orders", {"number": number})
        async_to_sync(self.here.send)("worker", {"number": number})

    async def run(self, function: Callable[[], Any]) -> Any:
        """Call synchronous code as Django calls a view; its coroutines run on this loop."""
        return await sync_to_async(function)()


@pytest.fixture
async def layers(database: Database, make_layer: MakeLayer) -> Any:
    layers = TwoLayers(database, make_layer)
    await layers.join()
    yield layers

    def forget_alias() -> None:
        close(database.alias)
        del connections[database.alias]  # the next test has another database of this name

    await layers.run(forget_alias)


def in_a_thread(function: Callable[[], Any]) -> Any:
    """Call a function in a new thread, as a WSGI server does; return a future of its result."""
    future: Future[Any] = Future()

    def call() -> Any:
        try:
            return function()
        finally:
            # Now, because the test removes the alias when it goes on.
            for connection in connections.all(initialized_only=True):
                close(connection.alias)

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run).start()
    return asyncio.wrap_future(future)


async def test_committed_messages_arrive_in_order(layers: TwoLayers) -> None:
    def view() -> None:
        layers.send(1)
        with transaction.atomic(using=layers.alias):
            layers.send(2)
            layers.send(3)
        layers.send(4)

    for call in (layers.run, in_a_thread):
        await call(view)
        for layer, channel in layers.readers:
            for number in (1, 2, 3, 4):
                await next_is(layer, channel, number)


async def test_rolled_back_messages_are_not_delivered(layers: TwoLayers) -> None:
    def view() -> None:
        with pytest.raises(Rollback), transaction.atomic(using=layers.alias):
            layers.send(1)
            raise Rollback
        layers.send(2)

    for call in (layers.run, in_a_thread):
        await call(view)
        for layer, channel in layers.readers:
            await next_is(layer, channel, 2)


async def test_messages_of_a_rolled_back_savepoint_are_not_delivered(layers: TwoLayers) -> None:
    def view() -> None:
        with transaction.atomic(using=layers.alias):
            layers.send(1)
            with transaction.atomic(using=layers.alias):
                layers.send(2)
            with pytest.raises(Rollback), transaction.atomic(using=layers.alias):
                layers.send(3)
                raise Rollback
            layers.send(4)

    await layers.run(view)
    for layer, channel in layers.readers:
        for number in (1, 2, 4):
            await next_is(layer, channel, number)


async def test_nothing_arrives_before_the_commit(layers: TwoLayers) -> None:
    sent, others_sent = threading.Event(), threading.Event()

    def view() -> None:
        with transaction.atomic(using=layers.alias):
            layers.send(1)
            sent.set()
            others_sent.wait(20)

    viewing = in_a_thread(view)
    await asyncio.to_thread(sent.wait, 20)
    # A later message overtakes it. On SQLite only the channel of this process can be written to,
    # because the transaction holds the lock.
    readers = (
        layers.readers
        if connections[layers.alias].vendor != "sqlite"
        else [(layers.here, layers.ours)]
    )
    for layer, channel in readers:
        await layer.send(channel, {"number": 2})
        await next_is(layer, channel, 2)
    others_sent.set()
    await viewing
    for layer, channel in layers.readers:
        await next_is(layer, channel, 1)


async def test_the_commit_wakes_waiting_readers(layers: TwoLayers) -> None:
    waiting = [asyncio.create_task(receive(layer, channel)) for layer, channel in layers.readers]
    await asyncio.sleep(0)

    def view() -> None:
        with transaction.atomic(using=layers.alias):
            layers.send(1)

    await in_a_thread(view)
    assert [message["number"] for message in await asyncio.gather(*waiting)] == [1, 1, 1]


async def test_a_message_does_not_wait_for_a_transaction_of_another_alias(
    layers: TwoLayers,
) -> None:
    def view() -> None:
        with pytest.raises(Rollback), transaction.atomic(using="default"):
            layers.send(1)
            raise Rollback
        connections["default"].close()

    await in_a_thread(view)
    for layer, channel in layers.readers:
        await next_is(layer, channel, 1)


@ON_DISK
async def test_a_full_channel_raises_and_the_transaction_stays_usable(
    database: Database, make_layer: MakeLayer
) -> None:
    here, there = make_layer(capacity=2), make_layer()

    def view() -> None:
        with transaction.atomic(using=database.alias):
            for number in range(2):
                async_to_sync(here.send)("worker", {"number": number})
            with pytest.raises(ChannelFull):
                async_to_sync(here.send)("worker", {"number": 2})

    await in_a_thread(view)
    for number in range(2):
        await next_is(there, "worker", number)
    await there.send("worker", {"number": 3})
    await next_is(there, "worker", 3)


@ON_DISK
async def test_a_failed_send_leaves_the_transaction_usable(
    layers: TwoLayers, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fail(connection: Any, rows: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM nowhere")

    def view() -> int:
        with transaction.atomic(using=database.alias):
            with monkeypatch.context() as patch:
                patch.setattr(layers.here._worker.storage.outgoing, "_insert", fail)
                with pytest.raises(StoreUnavailable, match="nowhere"):
                    async_to_sync(layers.here.send)("worker", {"number": 1})
            count: int = database.rows("LayerMessage").count()
            layers.send(2)
        return count

    assert await in_a_thread(view) == 0
    for layer, channel in layers.readers:
        await next_is(layer, channel, 2)


@ON_DISK
async def test_the_message_of_a_process_that_died_after_its_commit_is_found(
    layers: TwoLayers, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SAFETY_SECONDS", 0.05)

    def die() -> None:
        raise Rollback

    def view() -> None:
        with pytest.raises(Rollback), transaction.atomic(using=database.alias):
            transaction.on_commit(die, using=database.alias)  # the later callbacks never run
            async_to_sync(layers.here.group_send)("orders", {"number": 1})

    await in_a_thread(view)
    await next_is(layers.there, layers.theirs, 1)


@ON_POSTGRES
async def test_a_transaction_that_commits_late_loses_no_message(
    database: Database, make_layer: MakeLayer
) -> None:
    here, there = make_layer(), make_layer()
    theirs = await there.new_channel()
    written, read = threading.Event(), threading.Event()
    ids: list[int] = []

    def send(number: int) -> None:
        async_to_sync(here.send)(theirs, {"number": number})
        ids.append(database.rows("LayerMessage").latest("id").pk)

    def late() -> None:
        with transaction.atomic(using=database.alias):
            send(1)
            written.set()
            read.wait(20)

    def early() -> None:
        with transaction.atomic(using=database.alias):
            send(2)

    lagging = in_a_thread(late)
    await asyncio.to_thread(written.wait, 20)
    await in_a_thread(early)
    await next_is(there, theirs, 2)
    read.set()
    await lagging
    await next_is(there, theirs, 1)
    assert ids[0] < ids[1]


# Outside of the transaction


@pytest.mark.parametrize("database", ["postgres", "mariadb", "memory"], indirect=True)
async def test_group_add_and_discard_take_effect_at_once_and_survive_a_rollback(
    layers: TwoLayers,
) -> None:
    another = await layers.here.new_channel()

    def view() -> None:
        with pytest.raises(Rollback), transaction.atomic(using=layers.alias):
            async_to_sync(layers.here.group_add)("others", another)
            async_to_sync(layers.here.group_discard)("orders", layers.ours)
            raise Rollback

    await in_a_thread(view)
    await layers.there.group_send("others", {"number": 1})
    await layers.there.group_send("orders", {"number": 2})
    await layers.here.send(layers.ours, {"number": 3})
    await next_is(layers.here, another, 1)
    await next_is(layers.here, layers.ours, 3)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_group_add_fails_while_the_caller_holds_the_lock_of_sqlite(
    layers: TwoLayers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.layers.polling.BUSY_MILLISECONDS", 20)
    monkeypatch.setattr(storage, "LOCKED_SECONDS", 0.1)
    layer = DatabaseChannelLayer(using=layers.alias)

    def view() -> None:
        with transaction.atomic(using=layers.alias), pytest.raises(StoreUnavailable):
            async_to_sync(layer.group_add)("others", "worker")

    await in_a_thread(view)
    await layer.close()


@ON_POSTGRES
async def test_a_message_does_not_wait_while_autocommit_is_off(layers: TwoLayers) -> None:
    def view() -> None:
        transaction.set_autocommit(False, using=layers.alias)
        layers.send(1)
        transaction.rollback(using=layers.alias)

    await in_a_thread(view)
    for layer, channel in layers.readers:
        await next_is(layer, channel, 1)


async def test_a_task_that_outlives_its_caller_sends_at_once(layers: TwoLayers) -> None:
    gone = asyncio.Event()
    tasks = []

    async def begin() -> None:
        async def send_later() -> None:
            await gone.wait()
            await layers.here.group_send("orders", {"number": 1})

        tasks.append(asyncio.create_task(send_later()))

    await layers.run(lambda: async_to_sync(begin)())
    gone.set()
    await tasks[0]
    await next_is(layers.here, layers.ours, 1)


async def test_a_wakeup_of_this_app_does_not_wait_for_a_commit(
    layers: TwoLayers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "get_layer", lambda: layers.here)
    broadcast.adopt_loop(asyncio.get_running_loop())
    await layers.here.group_add(group_name("t"), layers.ours)
    arrived = threading.Event()

    def view() -> bool:
        with transaction.atomic(using=layers.alias):
            wakeup = Wakeup("t", None, (Event("t", "x", "1"),))
            async_to_sync(broadcast.abroadcast)([wakeup])
            return arrived.wait(20)

    viewing = asyncio.create_task(layers.run(view))
    assert (await receive(layers.here, layers.ours))["topic"] == "t"
    arrived.set()
    assert await viewing


async def test_a_send_without_a_waiting_thread_uses_no_thread(
    layers: TwoLayers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("a thread was used")

    monkeypatch.setattr("realtime.layers.transactions.sync_to_async", refuse)
    await layers.here.group_send("orders", {"number": 1})
    await next_is(layers.here, layers.ours, 1)


class TestInsideATestCase(TestCase):
    """Django never commits there, so a message waits only for the test's own atomic()."""

    def setUp(self) -> None:
        self.layer = DatabaseChannelLayer()
        self.channel = async_to_sync(self.layer.new_channel)()

    def send(self, number: int) -> None:
        async_to_sync(self.layer.send)(self.channel, {"number": number})

    def receive(self) -> int:
        number: int = async_to_sync(receive)(self.layer, self.channel)["number"]
        return number

    def test_a_message_arrives_at_once(self) -> None:
        self.send(1)
        assert self.receive() == 1

    def test_a_message_in_atomic_waits_for_the_captured_callbacks(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            with transaction.atomic():
                self.send(1)
            self.send(2)
            with pytest.raises(Rollback), transaction.atomic():
                self.send(3)
                raise Rollback
        assert self.receive() == 2
        assert self.receive() == 1

    async def test_a_coroutine_sends_at_once(self) -> None:
        await self.layer.send(self.channel, {"number": 1})
        assert (await receive(self.layer, self.channel))["number"] == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
async def test_with_djangos_default_options_for_sqlite_a_send_waits_for_another_writer(
    layers: TwoLayers, database: Database, mode: str
) -> None:
    await layers.there.close()  # its memberships go too, and WAL needs a file that nobody reads
    await layers.here.close()
    connections.settings[layers.alias]["OPTIONS"].clear()
    with closing(sqlite3.connect(database.url)) as other:
        other.execute(f"PRAGMA journal_mode = {mode}")
    await layers.join()

    def send() -> None:
        close(layers.alias)  # the next connection has the default options
        with (
            closing(
                sqlite3.connect(database.url, isolation_level=None, check_same_thread=False)
            ) as other,
            transaction.atomic(using=layers.alias),
        ):
            other.execute("BEGIN IMMEDIATE")
            release = threading.Timer(0.2, other.execute, ["ROLLBACK"])
            release.start()
            layers.send(1)
            release.join()

    await layers.run(send)
    for layer, channel in layers.readers:
        await next_is(layer, channel, 1)
