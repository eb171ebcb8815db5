"""What is sent inside atomic(): part of the transaction, and delivered after its commit."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
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

ON_DISK = pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("database", ["postgres"], indirect=True)


class Rollback(Exception):
    """Rolls back, and is caught."""


@pytest.fixture(params=["sqlite", "postgres", "memory"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each database, and the connection of the test's thread closed at the end."""
    database: Database = request.getfixturevalue(request.param)
    yield database
    close(database.alias)


class Party:
    """A layer, its members of the group "orders" in this process and in another; and "worker"."""

    def __init__(self, database: Database, make_layer: MakeLayer) -> None:
        self.alias = database.alias
        self.here = make_layer()
        # What is in memory is in one process.
        self.there = self.here if database.alias == "memory" else make_layer()

    async def join(self) -> None:
        self.ours, self.theirs = await self.here.new_channel(), await self.there.new_channel()
        await self.here.group_add("orders", self.ours)
        await self.there.group_add("orders", self.theirs)

    @property
    def readers(self) -> list[tuple[DatabaseChannelLayer, str]]:
        return [(self.here, self.ours), (self.there, self.theirs), (self.there, "worker")]

    def send(self, number: int) -> None:
        """Send to every reader, in synchronous code."""
        async_to_sync(self.here.group_send)("orders", {"number": number})
        async_to_sync(self.here.send)("worker", {"number": number})

    async def run(self, function: Callable[[], Any]) -> Any:
        """Call synchronous code as Django calls a view: the coroutines run on this loop."""
        return await sync_to_async(function)()


@pytest.fixture
async def party(database: Database, make_layer: MakeLayer) -> Any:
    party = Party(database, make_layer)
    await party.join()
    yield party

    def forget() -> None:
        close(database.alias)
        del connections[database.alias]  # the next test has another database of this name

    await party.run(forget)


def in_a_thread(function: Callable[[], Any]) -> Any:
    """Call a function in a thread of its own, as a worker of a WSGI server; return its result."""
    future: Future[Any] = Future()

    def call() -> Any:
        try:
            return function()
        finally:
            # Before the test goes on, and takes the alias away.
            for connection in connections.all(initialized_only=True):
                close(connection.alias)

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run).start()
    return asyncio.wrap_future(future)


async def test_committed_messages_arrive_in_order(party: Party) -> None:
    def view() -> None:
        party.send(1)
        with transaction.atomic(using=party.alias):
            party.send(2)
            party.send(3)
        party.send(4)

    for call in (party.run, in_a_thread):
        await call(view)
        for layer, channel in party.readers:
            for number in (1, 2, 3, 4):
                await next_is(layer, channel, number)


async def test_rolled_back_messages_reach_nobody(party: Party) -> None:
    def view() -> None:
        with pytest.raises(Rollback), transaction.atomic(using=party.alias):
            party.send(1)
            raise Rollback
        party.send(2)

    for call in (party.run, in_a_thread):
        await call(view)
        for layer, channel in party.readers:
            await next_is(layer, channel, 2)


async def test_rolled_back_savepoint_takes_its_messages_along(party: Party) -> None:
    def view() -> None:
        with transaction.atomic(using=party.alias):
            party.send(1)
            with transaction.atomic(using=party.alias):
                party.send(2)
            with pytest.raises(Rollback), transaction.atomic(using=party.alias):
                party.send(3)
                raise Rollback
            party.send(4)

    await party.run(view)
    for layer, channel in party.readers:
        for number in (1, 2, 4):
            await next_is(layer, channel, number)


async def test_nothing_arrives_before_the_commit(party: Party) -> None:
    sent, others_sent = threading.Event(), threading.Event()

    def view() -> None:
        with transaction.atomic(using=party.alias):
            party.send(1)
            sent.set()
            others_sent.wait(20)

    viewing = in_a_thread(view)
    await asyncio.to_thread(sent.wait, 20)
    # What comes after it overtakes it, as far as the lock of SQLite lets it be sent.
    readers = (
        party.readers
        if connections[party.alias].vendor == "postgresql"
        else [(party.here, party.ours)]
    )
    for layer, channel in readers:
        await layer.send(channel, {"number": 2})
        await next_is(layer, channel, 2)
    others_sent.set()
    await viewing
    for layer, channel in party.readers:
        await next_is(layer, channel, 1)


async def test_reader_that_waits_is_woken_by_the_commit(party: Party) -> None:
    waiting = [asyncio.create_task(receive(layer, channel)) for layer, channel in party.readers]
    await asyncio.sleep(0)

    def view() -> None:
        with transaction.atomic(using=party.alias):
            party.send(1)

    await in_a_thread(view)
    assert [message["number"] for message in await asyncio.gather(*waiting)] == [1, 1, 1]


async def test_transaction_of_another_alias_is_not_waited_for(party: Party) -> None:
    def view() -> None:
        with pytest.raises(Rollback), transaction.atomic(using="default"):
            party.send(1)
            raise Rollback
        connections["default"].close()

    await in_a_thread(view)
    for layer, channel in party.readers:
        await next_is(layer, channel, 1)


@ON_DISK
async def test_full_channel_raises_and_the_transaction_goes_on(
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
async def test_send_that_fails_leaves_the_transaction_usable(
    party: Party, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fail(connection: Any, letters: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM nowhere")

    def view() -> int:
        with transaction.atomic(using=database.alias):
            with monkeypatch.context() as patch:
                patch.setattr(party.here._worker.storage.outgoing, "_insert", fail)
                with pytest.raises(StoreUnavailable, match="nowhere"):
                    async_to_sync(party.here.send)("worker", {"number": 1})
            count: int = database.rows("LayerMessage").count()
            party.send(2)
        return count

    assert await in_a_thread(view) == 0
    for layer, channel in party.readers:
        await next_is(layer, channel, 2)


@ON_DISK
async def test_letter_of_a_process_that_died_after_its_commit_is_found(
    party: Party, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SAFETY_SECONDS", 0.05)

    def die() -> None:
        raise Rollback

    def view() -> None:
        with pytest.raises(Rollback), transaction.atomic(using=database.alias):
            transaction.on_commit(die, using=database.alias)  # the hooks behind it never run
            async_to_sync(party.here.group_send)("orders", {"number": 1})

    await in_a_thread(view)
    await next_is(party.there, party.theirs, 1)


@ON_POSTGRES
async def test_transaction_that_commits_late_loses_nothing(
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


# Who is in no transaction


@pytest.mark.parametrize("database", ["postgres", "memory"], indirect=True)
async def test_membership_begins_at_once_and_stays_after_a_rollback(party: Party) -> None:
    another = await party.here.new_channel()

    def view() -> None:
        with pytest.raises(Rollback), transaction.atomic(using=party.alias):
            async_to_sync(party.here.group_add)("others", another)
            async_to_sync(party.here.group_discard)("orders", party.ours)
            raise Rollback

    await in_a_thread(view)
    await party.there.group_send("others", {"number": 1})
    await party.there.group_send("orders", {"number": 2})
    await party.here.send(party.ours, {"number": 3})
    await next_is(party.here, another, 1)
    await next_is(party.here, party.ours, 3)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_membership_cannot_begin_while_the_sender_holds_the_lock_of_sqlite(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.layers.polling.BUSY_MILLISECONDS", 20)
    monkeypatch.setattr(storage, "LOCKED_SECONDS", 0.1)
    layer = DatabaseChannelLayer(using=party.alias)

    def view() -> None:
        with transaction.atomic(using=party.alias), pytest.raises(StoreUnavailable):
            async_to_sync(layer.group_add)("others", "worker")

    await in_a_thread(view)
    await layer.close()


@ON_POSTGRES
async def test_transaction_by_hand_is_not_waited_for(party: Party) -> None:
    def view() -> None:
        transaction.set_autocommit(False, using=party.alias)
        party.send(1)
        transaction.rollback(using=party.alias)

    await in_a_thread(view)
    for layer, channel in party.readers:
        await next_is(layer, channel, 1)


async def test_task_that_outlives_its_caller_sends_at_once(party: Party) -> None:
    gone = asyncio.Event()
    tasks = []

    async def begin() -> None:
        async def send_later() -> None:
            await gone.wait()
            await party.here.group_send("orders", {"number": 1})

        tasks.append(asyncio.create_task(send_later()))

    await party.run(lambda: async_to_sync(begin)())
    gone.set()
    await tasks[0]
    await next_is(party.here, party.ours, 1)


async def test_wakeup_of_this_app_belongs_to_no_transaction(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "get_layer", lambda: party.here)
    broadcast.adopt_loop(asyncio.get_running_loop())
    await party.here.group_add(group_name("t"), party.ours)
    arrived = threading.Event()

    def view() -> bool:
        with transaction.atomic(using=party.alias):
            wakeup = Wakeup("t", None, (Event("t", "x", "1"),))
            async_to_sync(broadcast.abroadcast)([wakeup])
            return arrived.wait(20)

    viewing = asyncio.create_task(party.run(view))
    assert (await receive(party.here, party.ours))["topic"] == "t"
    arrived.set()
    assert await viewing


async def test_send_of_a_coroutine_alone_visits_no_thread(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("a thread was asked")

    monkeypatch.setattr("realtime.layers.transactions.sync_to_async", refuse)
    await party.here.group_send("orders", {"number": 1})
    await next_is(party.here, party.ours, 1)


class TestInsideOfATestCase(TestCase):
    """Django never commits there, so that nothing is waited for but a test's own atomic()."""

    def setUp(self) -> None:
        self.layer = DatabaseChannelLayer()
        self.channel = async_to_sync(self.layer.new_channel)()

    def send(self, number: int) -> None:
        async_to_sync(self.layer.send)(self.channel, {"number": number})

    def receive(self) -> int:
        number: int = async_to_sync(receive)(self.layer, self.channel)["number"]
        return number

    def test_message_arrives_at_once(self) -> None:
        self.send(1)
        assert self.receive() == 1

    def test_own_transaction_is_committed_as_django_says(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            with transaction.atomic():
                self.send(1)
            self.send(2)
            with pytest.raises(Rollback), transaction.atomic():
                self.send(3)
                raise Rollback
        assert self.receive() == 2
        assert self.receive() == 1

    async def test_coroutine_sends_at_once(self) -> None:
        await self.layer.send(self.channel, {"number": 1})
        assert (await receive(self.layer, self.channel))["number"] == 1
