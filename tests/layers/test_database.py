"""The database layer: the contract, several processes, and an unavailable database."""

import asyncio
import gc
import logging
import math
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from channels.layers import InMemoryChannelLayer
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from realtime.exceptions import StoreUnavailable
from realtime.layers import database as layer_module
from realtime.layers import storage, worker
from realtime.layers.database import DatabaseChannelLayer
from tests.layers.conftest import Database, await_polled, disable_listen, end_connections
from tests.layers.contract import ChannelLayerContract, MakeLayer, next_is, receive
from tests.layers.node import Node
from tests.support.waiting import await_until, wait_until

NEVER = 3600.0  # a polling interval so long that polling finds nothing


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"expiry": -1}, "expiry is -1, which is not a duration; give a number of seconds above 0"),
        ({"expiry": "60"}, "expiry is '60', which is not a duration"),
        ({"expiry": True}, "expiry is True, which is not a duration"),
        ({"group_expiry": 0}, "group_expiry is 0, which is not a duration"),
        ({"polling_interval": -1}, "polling_interval is -1, which is not a duration"),
        ({"polling_interval": math.nan}, "polling_interval is nan, which is not a duration"),
        ({"polling_interval": math.inf}, "polling_interval is inf, which is not a duration"),
        (
            {"capacity": 0},
            "capacity is 0, which is not a number of messages; give an integer above 0",
        ),
        ({"capacity": 1.5}, "capacity is 1.5, which is not a number of messages"),
        (
            {"channel_capacity": {"work*": 0}},
            "channel_capacity['work*'] is 0, which is not a number",
        ),
        ({"channel_capacity": {7: 1}}, "has the key 7; give a glob or a pattern"),
        (
            {"channel_capacity": [("work*", 1)]},
            "which is not a dict; give {glob or pattern: messages}",
        ),
        (
            {"using": "nope"},
            "using is 'nope', which is not an alias in settings.DATABASES; it has 'def",
        ),
        ({"using": ""}, "using is '', which is not an alias in settings.DATABASES"),
    ],
)
def test_an_invalid_option_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=re.escape(complaint)):
        DatabaseChannelLayer(**options)


def has_caught_up(layer: DatabaseChannelLayer, channel: str, readers: int = 1) -> bool:
    """Tell whether so many readers wait here, and the database held no message for them."""
    waiters = layer._local.shared_readers().get(channel, [])
    return len(waiters) == readers and all(waiter.caught_up for waiter in waiters)


class TestDatabaseChannelLayer(ChannelLayerContract):
    """The contract and more, on SQLite, PostgreSQL and MariaDB."""

    @pytest.mark.parametrize("name", ["orders\n", "orders!ä", "b.c!d\n"])
    async def test_invalid_names_that_channels_accepts_are_refused(
        self, make_layer: MakeLayer, name: str
    ) -> None:
        layer = make_layer()
        for call in (layer.send(name, {}), layer.group_add("a", name), layer.receive(name)):
            with pytest.raises(TypeError, match="must be a valid unicode string"):
                await call

    async def test_receive_refuses_a_channel_of_another_process_or_layer(
        self, make_layer: MakeLayer
    ) -> None:
        layer, another = make_layer(), make_layer()
        others = [await another.new_channel(), await InMemoryChannelLayer().new_channel()]
        for name in (*others, "specific.abc!x", "worker!x"):
            with pytest.raises(ValueError, match="belongs to another process or layer"):
                await layer.receive(name)

    async def test_send_refuses_a_value_that_cannot_be_packed(self, make_layer: MakeLayer) -> None:
        layer = make_layer()
        channel = await layer.new_channel()
        for value, error in ((object(), TypeError), (2**64, OverflowError)):
            with pytest.raises(error):
                await layer.send(channel, {"value": value})
            with pytest.raises(error):
                await layer.group_send("orders", {"value": value})

    async def test_capacity_can_depend_on_the_channels_name(self, make_layer: MakeLayer) -> None:
        layer = make_layer(capacity=2, channel_capacity={"work*": 1, "specific.*": 3})
        own = await layer.new_channel()
        for channel, capacity in ((own, 3), ("worker", 1), ("other", 2)):
            for number in range(capacity):
                await layer.send(channel, {"number": number})
            with pytest.raises(ChannelFull):
                await layer.send(channel, {"number": capacity})

    async def test_two_layers_exchange_messages_as_two_processes_do(
        self, make_layer: MakeLayer
    ) -> None:
        here, there = make_layer(), make_layer()
        ours, theirs = await here.new_channel(), await there.new_channel()
        await here.group_add("orders", ours)
        await there.group_add("orders", theirs)
        for number in range(10):
            await here.group_send("orders", {"number": number})
        for layer, channel in ((here, ours), (there, theirs)):
            for number in range(10):
                await next_is(layer, channel, number)
        await here.send(theirs, {"number": 10})
        await next_is(there, theirs, 10)

    async def test_groups_and_channels_that_differ_only_in_case_are_apart(
        self, make_layer: MakeLayer
    ) -> None:
        layer, another = make_layer(), make_layer()
        lower, upper = await another.new_channel(), await another.new_channel()
        await another.group_add("orders", lower)
        await another.group_add("Orders", upper)
        for number, (group, shared) in enumerate([("orders", "worker"), ("Orders", "Worker")]):
            await layer.group_send(group, {"number": number})
            await layer.send(shared, {"number": number})
        await another.group_discard("orders", lower)
        await layer.group_send("Orders", {"number": 2})
        for number in (1, 2):
            await next_is(another, upper, number)
        await next_is(another, lower, 0)
        await next_is(layer, "Worker", 1)
        await next_is(layer, "worker", 0)

    async def test_another_process_can_add_a_channel_to_a_group(
        self, make_layer: MakeLayer
    ) -> None:
        here, there = make_layer(), make_layer()
        theirs = await there.new_channel()
        reading = asyncio.create_task(receive(there, theirs))
        await here.group_add("orders", theirs)
        await await_until(lambda: there._local.members(), "the owner has the member")
        await there.group_send("orders", {"number": 1})
        assert (await reading)["number"] == 1
        await here.group_discard("orders", theirs)
        reading = asyncio.create_task(receive(there, theirs))
        await await_until(lambda: not there._local.members(), "the owner has removed the member")
        await there.group_send("orders", {"number": 2})
        await here.send(theirs, {"number": 3})
        assert (await reading)["number"] == 3

    async def test_a_message_on_a_shared_channel_is_read_once(self, make_layer: MakeLayer) -> None:
        here, there = make_layer(), make_layer()
        readers = [asyncio.create_task(receive(layer, "worker")) for layer in (here, there) * 10]
        for number in range(20):
            await here.send("worker", {"number": number})
        got = await asyncio.gather(*readers)
        assert sorted(message["number"] for message in got) == list(range(20))

    async def test_a_group_message_costs_one_row_for_each_other_process(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        here, there = make_layer(), make_layer(polling_interval=NEVER)
        disable_listen(there)
        for layer in (here, there):
            for _ in range(5):
                await layer.group_add("orders", await layer.new_channel())
        await await_polled(there)
        await here.group_send("orders", {"number": 1})
        assert await database.count("LayerMessage") == 1

    async def test_messages_of_a_process_that_does_not_read_are_bounded(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        here, there = make_layer(capacity=3), make_layer(polling_interval=NEVER)
        disable_listen(there)
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await await_polled(there)
        for number in range(5):
            await here.group_send("orders", {"number": number})
        with pytest.raises(ChannelFull):
            await here.send(theirs, {"number": 5})
        assert await database.count("LayerMessage") == 3

    async def test_flush_reaches_other_processes(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        here, there = make_layer(), make_layer()
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await here.flush()
        await await_until(
            lambda: not there._local.members(), "the other process removed its members"
        )
        await here.group_send("orders", {"number": 1})
        assert await database.count("LayerMessage") == 0

    async def test_a_process_still_reads_after_a_flush(self, make_layer: MakeLayer) -> None:
        here, there = make_layer(), make_layer()
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await here.flush()
        await await_until(
            lambda: not there._local.members(), "the other process removed its members"
        )
        await there.group_add("orders", theirs)
        await here.group_send("orders", {"number": 1})
        await next_is(there, theirs, 1)

    # Readers that are cancelled while a message arrives

    async def test_the_message_of_a_cancelled_reader_goes_to_another_process(
        self, make_layer: MakeLayer
    ) -> None:
        here, there = make_layer(), make_layer()
        reading = asyncio.create_task(receive(here, "worker"))
        await await_until(lambda: has_caught_up(here, "worker"), "the reader waits")
        other = asyncio.create_task(receive(there, "worker"))
        await await_until(lambda: has_caught_up(there, "worker"), "the other reader waits")
        await here.send("worker", {"number": 1})
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert (await other)["number"] == 1

    async def test_the_message_of_a_cancelled_reader_goes_to_the_next_one_here(
        self, make_layer: MakeLayer
    ) -> None:
        layer = make_layer(polling_interval=NEVER)
        readings = [asyncio.create_task(receive(layer, "worker")) for _ in range(3)]
        await await_until(lambda: has_caught_up(layer, "worker", 3), "the readers wait")
        await layer.send("worker", {"number": 1})
        readings[0].cancel()
        readings[1].cancel()
        assert (await readings[2])["number"] == 1

    async def test_a_message_that_was_claimed_for_a_cancelled_reader_is_written_back(
        self, make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here, there = make_layer(), make_layer()
        reading = asyncio.create_task(receive(here, "worker"))
        await await_until(lambda: has_caught_up(here, "worker"), "the reader waits")
        loop, cancelled = asyncio.get_running_loop(), threading.Event()
        reading.add_done_callback(lambda _: cancelled.set())
        claim = here._worker.storage.claim_shared

        def claim_and_cancel(channel: str, limit: int) -> tuple[list[bytes], bool]:
            messages = claim(channel, limit)
            if messages[0]:
                loop.call_soon_threadsafe(reading.cancel)
                assert cancelled.wait(10)
            return messages

        monkeypatch.setattr(here._worker.storage, "claim_shared", claim_and_cancel)
        await there.send("worker", {"number": 1})
        with pytest.raises(asyncio.CancelledError):
            await reading
        await next_is(there, "worker", 1)

    # In one process

    async def test_a_send_from_a_thread_wakes_an_idle_loop_without_the_database(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        layer = make_layer(polling_interval=NEVER)
        channel = await layer.new_channel()
        for name, send in ((channel, layer.send), ("orders", layer.group_send)):
            reading = asyncio.create_task(receive(layer, channel))
            await await_until(layer._local.needs_polling, "the reader waits")
            thread = threading.Thread(target=async_to_sync(send), args=(name, {"number": 1}))
            thread.start()
            assert (await reading)["number"] == 1
            await asyncio.to_thread(thread.join)
            await layer.group_add("orders", channel)
        assert await database.count("LayerMessage") == 0

    async def test_readers_on_several_loops_are_woken(self, make_layer: MakeLayer) -> None:
        layer = make_layer(polling_interval=NEVER)
        channels = [await layer.new_channel() for _ in range(3)]
        got: list[int] = []

        def read(channel: str) -> None:
            got.append(asyncio.run(receive(layer, channel))["number"])

        threads = [threading.Thread(target=read, args=(channel,)) for channel in channels]
        for thread, channel in zip(threads, channels, strict=True):
            thread.start()
            await layer.group_add("orders", channel)
        await layer.group_send("orders", {"number": 1})
        for thread in threads:
            await asyncio.to_thread(thread.join, 10)
        assert got == [1, 1, 1]

    async def test_the_message_of_a_closed_loop_goes_to_the_next_reader(
        self, make_layer: MakeLayer
    ) -> None:
        layer = make_layer()
        channel = await layer.new_channel()
        loop = asyncio.new_event_loop()
        reading = layer.receive(channel)

        def begin_and_close() -> None:
            task = loop.create_task(reading)
            loop.call_soon(loop.stop)
            loop.run_forever()
            task._log_destroy_pending = False
            loop.close()

        await asyncio.to_thread(begin_and_close)
        await layer.send(channel, {"number": 1})
        await next_is(layer, channel, 1)
        gc.collect()

    async def test_the_membership_of_an_unread_channel_is_removed(
        self, make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("realtime.layers.local.EXPIRE_SECONDS", 0)
        layer = make_layer(expiry=0.05)
        dead, alive = await layer.new_channel(), await layer.new_channel()
        await layer.group_add("orders", dead)
        await layer.group_add("orders", alive)

        async def expired() -> bool:
            await layer.group_send("orders", {"number": 1})
            await receive(layer, alive)
            return len(layer._local.members()) == 1

        await await_until(expired, "the message and the membership expired")
        assert layer._local.members()[0][:2] == ("orders", alive)

    # The thread

    async def test_a_process_that_only_sends_does_not_poll_and_its_thread_stops(
        self, make_layer: MakeLayer, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "IDLE_SECONDS", 0.05)
        layer = make_layer(polling_interval=0.001)
        polls: list[object] = []
        monkeypatch.setattr(layer._worker, "_poll_or_back_off", lambda: polls.append(None))
        await layer.group_send("orders", {"number": 1})
        await await_until(lambda: not layer._worker.running, "the thread has stopped")
        assert polls == []
        assert await database.count("LayerInbox") == 0
        await layer.group_send("orders", {"number": 2})  # a new thread starts

    async def test_close_stops_the_thread_and_removes_the_rows(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        here, there = make_layer(), make_layer(polling_interval=NEVER)
        disable_listen(there)
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await here.send(theirs, {"number": 1})
        thread = there._worker._thread
        await there.close()
        assert not thread.is_alive()
        for model in ("LayerInbox", "LayerMember", "LayerMessage"):
            assert await database.count(model) == 0

    async def test_a_closed_layer_can_be_used_again(self, make_layer: MakeLayer) -> None:
        here, there = make_layer(), make_layer()
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await there.close()
        await there.group_add("orders", theirs)
        await here.group_send("orders", {"number": 1})
        await next_is(there, theirs, 1)

    async def test_the_thread_of_a_dropped_layer_stops(self, database: Database) -> None:
        layer = DatabaseChannelLayer(using=database.alias)
        await layer.group_add("orders", await layer.new_channel())
        thread = layer._worker._thread
        assert thread is not None
        del layer
        gc.collect()
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()

    # Leases and trimming

    async def test_a_dead_process_costs_no_rows_after_its_lease_expired(
        self,
        make_layer: MakeLayer,
        database: Database,
        start_node: Callable[[], Node],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        layer = make_layer()
        node = start_node()
        await asyncio.to_thread(node.wait_ready)
        node.kill()
        await layer.group_send("all", {"number": 1})
        assert await database.count("LayerMessage") == 1
        await database.expire("LayerInbox")
        for number in range(5):
            await layer.group_send("all", {"number": number})
        assert await database.count("LayerMessage") == 1
        await database.expire("LayerMessage")
        await database.run(layer._worker.storage.trim)
        for model in ("LayerInbox", "LayerMember", "LayerMessage"):
            assert await database.count(model) == 0

    async def test_a_process_whose_lease_expired_registers_its_members_again(
        self, make_layer: MakeLayer, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here, there = make_layer(), make_layer()
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await database.expire("LayerInbox")
        await database.run(here._worker.storage.trim)
        assert await database.count("LayerMember") == 0
        there._worker._renew_at = 0.0  # as after a pause of 20 seconds
        there._worker.poll(now=True)

        async def joined() -> bool:
            return await database.count("LayerMember") == 1

        await await_until(joined, "it registered its member again")
        await here.group_send("orders", {"number": 1})
        await next_is(there, theirs, 1)

    async def test_a_process_that_reads_trims_expired_rows_of_others(
        self, make_layer: MakeLayer, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dead, sender = make_layer(polling_interval=NEVER), make_layer(expiry=1)
        disable_listen(dead)
        await dead.group_add("orders", await dead.new_channel())
        await await_polled(dead)
        await sender.group_send("orders", {"number": 1})
        for model in ("LayerInbox", "LayerMember", "LayerMessage"):
            assert await database.count(model) == 1
            await database.expire(model)
        monkeypatch.setattr(worker, "TRIM_SECONDS", 0.01)
        reading = asyncio.create_task(receive(make_layer(), "worker"))

        async def trimmed() -> bool:
            left = [await database.count(model) for model in ("LayerMember", "LayerMessage")]
            return left == [0, 0] and await database.count("LayerInbox") == 1

        await await_until(trimmed, "only its own lease is left")
        await sender.send("worker", {"number": 2})
        assert (await reading)["number"] == 2

    async def test_trim_keeps_what_has_not_expired(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        here, there = make_layer(), make_layer(polling_interval=NEVER)
        disable_listen(there)
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        await await_polled(there)
        await here.group_send("orders", {"number": 1})
        await database.run(here._worker.storage.trim)
        for model in ("LayerInbox", "LayerMember", "LayerMessage"):
            assert await database.count(model) == 1

    # Processes

    async def test_processes_exchange_group_messages_both_ways(
        self, make_layer: MakeLayer, start_node: Callable[[], Node]
    ) -> None:
        layer = make_layer()
        channel = await layer.new_channel()
        await layer.group_add("all", channel)
        nodes = [start_node() for _ in range(2)]
        for node in nodes:
            await asyncio.to_thread(node.wait_ready)
        await layer.group_send("all", {"sender": "test", "number": 0})
        for node in nodes:
            await await_until(lambda node=node: node.got, "the process has the message")
            assert node.got == [{"sender": "test", "number": 0}]
        await next_is(layer, channel, 0)
        nodes[0].send_command(publish=[1, "node"])
        assert await receive(layer, channel) == {"sender": "node", "number": 0}
        await await_until(lambda: len(nodes[1].got) == 2, "the other process has it too")

    def test_four_processes_get_each_of_two_thousand_messages_once_and_in_order(
        self, start_node: Callable[[], Node]
    ) -> None:
        nodes = [start_node() for _ in range(4)]
        for node in nodes:
            node.wait_ready()
        for name, node in zip("abcd", nodes, strict=True):
            node.send_command(publish=[500, name])
        for node in nodes:
            wait_until(lambda node=node: len(node.got) >= 2000, "all arrived", timeout=60)
        for node in nodes:
            for name in "abcd":
                numbers = [got["number"] for got in node.got if got["sender"] == name]
                assert numbers == list(range(500))

    def test_no_message_is_read_twice_after_a_worker_was_killed(
        self, start_node: Callable[[], Node], database: Database
    ) -> None:
        killed, survivor, sender = (start_node() for _ in range(3))
        for node in (killed, survivor, sender):
            node.wait_ready()
        for node in (killed, survivor):
            node.send_command(read="worker")
        sender.send_command(send=[400, "worker"])
        wait_until(lambda: len(killed.got) > 20, "it has read some")
        killed.kill()
        sender.wait_answer("sent")
        sender.send_command(send=[1, "worker"])
        last = {"sender": "worker", "number": 0, "last": True}
        wait_until(lambda: last in survivor.got, "the other process has read the rest", timeout=30)
        killed._reader.join()
        numbers = [got["number"] for node in (killed, survivor) for got in node.got if got != last]
        assert len(numbers) == len(set(numbers))
        # Lost are at most the messages that it had claimed and not reported: one for each reader.
        assert len(numbers) >= 399

    def test_a_forked_child_has_its_own_inbox(self, start_node: Callable[[], Node]) -> None:
        node = start_node()
        channel = node.wait_ready()
        node.send_command(fork=True)
        answer = node.wait_answer("child")
        assert answer["child"].partition("!")[0] != channel.partition("!")[0]
        assert answer["first"] == {"sender": "child", "number": 0}
        assert "belongs to another process" in node.wait_answer("refused")["refused"]
        wait_until(lambda: node.got, "the parent has the child's message")
        node.send_command(publish=[1, "parent"])
        assert node.wait_answer("second")["second"] == {"sender": "parent", "number": 0}


class TestUnavailableDatabase:
    @pytest.fixture
    def database(self, sqlite: Database) -> Database:
        return sqlite

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("realtime.layers.polling.BUSY_MILLISECONDS", 20)
        monkeypatch.setattr(storage, "LOCKED_SECONDS", 0.1)

    async def test_group_send_raises_after_the_members_of_this_process_got_the_message(
        self, make_layer: MakeLayer, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        here, there = make_layer(), make_layer()
        ours, theirs = await here.new_channel(), await there.new_channel()
        await here.group_add("orders", ours)
        await there.group_add("orders", theirs)
        with caplog.at_level(logging.INFO, "realtime.layers"):
            with locked(database):
                for number in range(3):
                    with pytest.raises(StoreUnavailable, match="locked"):
                        await here.group_send("orders", {"number": number})
                    await next_is(here, ours, number)
                there._worker._renew_at = 0.0  # so that it must write too
                await await_until(
                    lambda: there._worker._outage.failures > 1, "polling failed repeatedly"
                )
            await await_until(lambda: not there._worker._outage.is_on, "polling works again")
        await here.group_send("orders", {"number": 3})
        await next_is(there, theirs, 3)
        levels = [record.levelname for record in caplog.records]
        assert levels.count("WARNING") == 1
        assert "INFO" in levels

    async def test_a_failed_group_add_leaves_no_member(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        layer = make_layer()
        channel = await layer.new_channel()
        with locked(database), pytest.raises(StoreUnavailable):
            await layer.group_add("orders", channel)
        assert layer._local.members() == []

    async def test_a_caller_waits_a_bounded_time_for_the_database(
        self, make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(layer_module, "ANSWER_SECONDS", 0.05)
        layer = make_layer()
        answer = threading.Event()
        monkeypatch.setattr(layer._worker, "_perform", lambda tasks: answer.wait(20) and [True])
        with pytest.raises(StoreUnavailable, match="no answer within"):
            await layer.group_send("orders", {"number": 1})
        answer.set()

    async def test_a_replaced_database_file_is_opened(
        self, make_layer: MakeLayer, database: Database
    ) -> None:
        here, there = make_layer(), make_layer()
        theirs = await there.new_channel()
        with sqlite3.connect(database.url) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        shutil.copy(database.url, f"{database.url}.backup")
        await there.group_add("orders", theirs)
        await asyncio.to_thread(Path(f"{database.url}.backup").replace, database.url)

        async def arrives() -> bool:
            await here.group_send("orders", {"number": 1})
            return bool(there._local._channels)

        await await_until(arrives, "both use the new file, which has the member")
        await next_is(there, theirs, 1)

    async def test_missing_tables_are_logged_until_they_exist(
        self, make_layer: MakeLayer, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        connection = sqlite3.connect(database.url)
        connection.execute("ALTER TABLE realtime_layerinbox RENAME TO elsewhere")
        layer = make_layer()
        reading = asyncio.create_task(receive(layer, "worker"))
        await await_until(lambda: "no such table" in caplog.text, "the missing table is logged")
        connection.execute("ALTER TABLE elsewhere RENAME TO realtime_layerinbox")
        connection.close()
        await make_layer().send("worker", {"number": 1})
        assert (await reading)["number"] == 1


class TestServerThatEndsConnections:
    @pytest.fixture
    def database(self, postgres: Database) -> Database:
        connections[postgres.alias].close()  # the tests must not end their own connection
        return postgres

    async def test_they_are_opened_again(self, make_layer: MakeLayer, database: Database) -> None:
        here, there = make_layer(), make_layer()
        theirs = await there.new_channel()
        await there.group_add("orders", theirs)
        for number in range(3):
            await database.run(lambda: end_connections(database.alias, "%realtime_layer%"))
            await here.group_send("orders", {"number": number})
            await next_is(there, theirs, number)


class TestInMemoryDatabase(ChannelLayerContract):
    @pytest.fixture
    def database(self, memory: Database) -> Database:
        return memory

    async def test_the_layer_writes_nothing_and_runs_no_thread(self, make_layer: MakeLayer) -> None:
        layer = make_layer()
        channel = await layer.new_channel()
        await layer.group_add("orders", channel)
        await layer.group_add("orders", "worker")
        await layer.group_send("orders", {"number": 1})
        await next_is(layer, channel, 1)
        await next_is(layer, "worker", 1)
        await layer.group_discard("orders", channel)
        await layer.flush()
        assert not layer._worker.running


class locked:
    """Hold the write lock of a SQLite file."""

    def __init__(self, database: Database) -> None:
        self.connection = sqlite3.connect(database.url, isolation_level=None)

    def __enter__(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *exc: object) -> None:
        self.connection.execute("ROLLBACK")
        self.connection.close()
