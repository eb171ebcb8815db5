"""Logs are trimmed in the background."""

import threading
from typing import Any

import pytest
from django.test import override_settings

from realtime import retention
from realtime.log import aheads, ahistory, delete, head, heads, history, new_epoch
from realtime.publishing import apublish, publish, publish_many
from realtime.stores import get_store
from realtime.topics import isolated, register, unregister
from tests.support.waiting import wait_until
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
