"""Logs are trimmed in the background."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import transaction
from django.db.models import F
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.test import override_settings

from realtime import retention
from realtime.hub.jobs import TRIM_SECONDS, Jobs
from realtime.log import aheads, ahistory, delete, head, heads, history, new_epoch
from realtime.models import Log, LogEvent, SeenEvent
from realtime.protocol.events import Draft
from realtime.protocol.names import presence_log
from realtime.publishing import apublish, publish, publish_many
from realtime.stores import get_store
from realtime.stores.base import Node
from realtime.stores.memory import MemoryStore
from realtime.topics import isolated, register, unregister
from tests.support.waiting import wait_until
from tests.testapp.models import Note
from tests.testapp.topics import PublicTopic

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_log_keeps_as_many_events_as_its_topic_says() -> None:
    for number in range(12):
        publish("tiny.log", "tick", number)
    wait_until(lambda: len(history("tiny.log")) == 5, "the log is trimmed")
    assert [event.data for event in history("tiny.log")] == [7, 8, 9, 10, 11]
    assert head("tiny.log").seq == 12


def test_a_publisher_does_not_wait_for_the_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    store = get_store()
    real = store.trim
    may_continue = threading.Event()
    began = threading.Event()

    def slow(*args: Any) -> int:
        began.set()
        assert may_continue.wait(30)
        return real(*args)

    monkeypatch.setattr(store, "trim", slow)
    for number in range(8):
        publish("tiny.slow", "tick", number)  # would block if it waited
    assert began.wait(30)
    may_continue.set()
    wait_until(lambda: len(history("tiny.slow")) <= 5, "the log is trimmed")


def test_a_failed_trim_is_logged_and_repeated_by_a_later_append(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from realtime.exceptions import StoreUnavailable

    def locked(*args: Any) -> int:
        raise StoreUnavailable("DatabaseStore", "locked")

    with monkeypatch.context() as patch:
        patch.setattr(get_store(), "trim", locked)
        publish_many([("tiny.later", "tick", number) for number in range(8)])
        wait_until(lambda: "was not trimmed" in caplog.text, "the failure is logged")
    publish("tiny.later", "tick", 8)
    wait_until(lambda: len(history("tiny.later")) == 5, "the log is trimmed")


def test_trim_all_trims_every_log_except_those_of_unknown_topics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention.STORE_THREADS, "submit", lambda *args: None)
    with isolated():

        @register("gone.<slug:name>")
        class GoneTopic(PublicTopic):
            max_events = 1

        publish_many([("gone.x", "tick", number) for number in range(3)])
        unregister(GoneTopic)
    publish_many([("tiny.a", "tick", number) for number in range(9)])
    publish("public.a", "tick")
    assert retention.trim_all() == {"tiny.a": 4, "public.a": 0}
    retention._waiting.clear()


def log_of(topic: str) -> Log | None:
    return Log.objects.filter(name=topic).first()


def age(topic: str, seconds: float) -> None:
    """Make a log and its events older."""
    log = Log.objects.filter(name=topic)
    log.update(**{name: F(name) - seconds for name in ("time", "trim_at", "floor_time")})
    LogEvent.objects.filter(log__name=topic).update(time=F("time") - seconds)


def test_a_pass_trims_what_is_too_old_and_forgets_what_is_empty_for_30_days() -> None:
    publish("public.a", "tick")
    publish("public.b", "tick")
    retention.trim_due()
    age("public.a", 86_401)
    retention.trim_due()
    assert history("public.a") == []
    assert len(history("public.b")) == 1
    age("public.a", 29 * 86_400)
    retention.trim_due()
    assert log_of("public.a") is None
    assert log_of("public.b") is not None


@override_settings(REALTIME={"FORGET_AFTER": None})
def test_nothing_is_forgotten_if_the_setting_says_so() -> None:
    publish("public.a", "tick")
    age("public.a", 1_000 * 86_400)
    retention.trim_due()
    assert history("public.a") == []
    log = log_of("public.a")
    assert log is not None
    assert log.trim_at is None
    publish("public.a", "tick")
    age("public.a", 86_401)
    retention.trim_due()
    assert history("public.a") == []


def test_the_command_of_all_logs_forgets_too() -> None:
    publish("public.a", "tick")
    age("public.a", 31 * 86_400)
    assert retention.trim_all() == {"public.a": 1}
    assert log_of("public.a") is None


def test_a_topic_that_is_no_longer_registered_keeps_its_events_and_is_looked_at_once_a_day() -> (
    None
):
    with isolated():

        @register("gone.<slug:name>")
        class GoneTopic(PublicTopic):
            max_events = 1

        publish("gone.x", "tick")
        unregister(GoneTopic)
    age("gone.x", 10 * 86_400)
    retention.trim_due()
    assert LogEvent.objects.filter(log__name="gone.x").count() == 1
    assert "gone.x" not in set(get_store().due())
    age("gone.x", 86_401)
    assert "gone.x" in set(get_store().due())
    LogEvent.objects.all().delete()
    Log.objects.filter(name="gone.x").update(floor_seq=F("seq"), time=5.0)
    retention.trim_due()
    assert log_of("gone.x") is None


def test_a_presence_log_that_nobody_is_in_is_trimmed_and_forgotten() -> None:
    log, store = presence_log("public.a"), get_store()
    store.change_members(log, "node", {"1": '{"id":"1"}'}, ())
    store.change_members(log, "node", {}, ("1",))
    age(log, 31 * 86_400)
    retention.trim_due()
    assert log_of(log) is None


def test_a_topic_that_clients_follow_is_not_forgotten_until_they_have_left() -> None:
    store = get_store()
    node = Node("n", "host", 1, "1.0", followers={"public.a": 2})
    store.beat(node, is_known=False)
    publish("public.a", "tick")
    store.change_members(presence_log("public.a"), "m", {"1": '{"id":"1"}'}, ())
    store.change_members(presence_log("public.a"), "m", {}, ("1",))
    for log in ("public.a", presence_log("public.a")):
        age(log, 31 * 86_400)
        retention.trim_due()
        retention.trim_all()
        assert log_of(log) is not None
        assert log not in set(store.due())
    store.beat(replace(node, followers={}), is_known=True)
    for log in ("public.a", presence_log("public.a")):
        age(log, 86_401)
        retention.trim_due()
        assert log_of(log) is None


class LaterStore(MemoryStore):
    """A memory store whose clock a test can move."""

    shift = 0.0

    def clock(self) -> float:
        return super().clock() + self.shift


async def test_of_several_nodes_one_does_the_hourly_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    monkeypatch.setattr(retention, "trim_due", lambda: passes.append(1))
    store = LaterStore()
    member_writer: Any = SimpleNamespace(node=SimpleNamespace(look_after_others=None))
    nodes = [Jobs(store, member_writer) for _ in range(3)]
    for hour in range(1, 4):
        for node in nodes:
            await node._trim()
        assert len(passes) == hour
        store.shift += TRIM_SECONDS


@pytest.fixture
def signals() -> Iterator[list[type]]:
    """The senders of all signals of models; the receiver also publishes, as a project's could."""
    senders: list[type] = []

    def receive(sender: type, **_: Any) -> None:
        senders.append(sender)
        if len(senders) < 50:
            publish("public.audit", "changed")

    all_signals = (pre_save, post_save, pre_delete, post_delete)
    for signal in all_signals:
        signal.connect(receive)
    yield senders
    for signal in all_signals:
        signal.disconnect(receive)


def test_a_projects_receivers_of_all_models_get_no_signal_of_this_apps_rows(
    signals: list[type],
) -> None:
    store = get_store()
    node = Node("n", "host", 1, "1.0")
    store.beat(node, is_known=False)
    store.beat(node, is_known=True)
    store.change_members(presence_log("public.a"), "n", {"1": '{"id":"1"}'}, ())
    store.change_members(presence_log("public.a"), "n", {}, ("1",))
    assert store.expire_node("n", 0.0)
    store.append("public.a", [Draft("x", "1", id="a")])
    SeenEvent.objects.update(time=5.0)
    store.append("public.a", [Draft("x", "1", id="a")])
    SeenEvent.objects.update(time=5.0)
    with transaction.atomic():
        publish("public.a", "tick")  # through the outbox
    wait_until(lambda: len(history("public.a")) == 3, "the event is relayed")
    delete("public.b")
    age("public.a", 31 * 86_400)
    retention.trim_due()
    assert log_of("public.a") is None
    assert store.take("a", 1, 1, 60.0)
    assert signals == []
    Note.objects.create(text="x").delete()
    assert signals == [Note] * 4  # a project's own model


def test_delete_and_new_epoch_start_a_new_epoch() -> None:
    publish_many([("public.life", "tick", number) for number in range(3)])
    first = head("public.life")
    second = new_epoch("public.life")
    assert (second.seq, second.tag) == (first.seq, first.tag)
    assert second.epoch != first.epoch
    assert len(history("public.life")) == 3
    third = delete("public.life")
    assert third.seq == 0
    assert third.epoch not in {first.epoch, second.epoch}
    assert history("public.life") == []
    assert head("public.life") == third


def test_history_returns_the_newest_events() -> None:
    publish_many([("public.long", "tick", number) for number in range(700)])
    assert [event.data for event in history("public.long", last=3)] == [697, 698, 699]
    assert [event.data for event in history("public.long", last=650)] == list(range(50, 700))


def test_heads_are_returned_in_the_given_order() -> None:
    publish_many([("public.two", "tick", 1), ("public.two", "tick", 2), ("public.one", "tick", 1)])
    found = heads(["public.two", "public.none", PublicTopic(name="one")])
    assert [cursor.seq for cursor in found] == [2, 0, 1]
    assert found[2] == head("public.one")


async def test_async_versions_return_the_same() -> None:
    event = await apublish("public.two", "tick", 1)
    assert event is not None
    assert await aheads(["public.two"]) == [event.cursor]
    assert [e.cursor for e in await ahistory("public.two")] == [event.cursor]


@override_settings(REALTIME={"STORE": {"BACKEND": "realtime.stores.memory.MemoryStore"}})
def test_a_memory_store_is_trimmed_too() -> None:
    publish_many([("tiny.memory", "tick", number) for number in range(12)])
    wait_until(lambda: len(history("tiny.memory")) == 5, "the log is trimmed")
