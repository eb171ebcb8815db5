"""Capturing published events in the tests of a project.

Covers capture.py and commits.py.
"""

import datetime
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from unittest.mock import ANY, patch

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TestCase, TransactionTestCase, override_settings

from realtime import apublish, log, publish, publish_many, user_topic
from realtime.exceptions import AmbiguousTransaction, InvalidEventName, UnknownTopic
from realtime.stores import get_store
from realtime.testing import RealtimeClient, capture_events
from tests.support.waiting import wait_until
from tests.testapp.topics import OrderTopic


class Fault(Exception):
    """Raised to roll back a transaction."""


def names(events: Any) -> list[str]:
    return [event.name for event in events]


def rows() -> tuple[int, int]:
    """Return the numbers of stored events and of outbox entries in the database."""
    return tuple(  # type: ignore[return-value]
        apps.get_model("realtime", model)._default_manager.count()
        for model in ("LogEvent", "OutboxEntry")
    )


class CaptureInTestCaseTests(TestCase):
    databases = {"default", "other"}

    def test_events_are_captured_in_order_and_the_database_has_none(self) -> None:
        before = rows()
        with capture_events() as events:
            publish("orders.42", "shipped", {"eta": "2026-11-24"})
            publish_many([("orders.43", "opened", None), (OrderTopic(pk=42), "paid", 7)])
            publish("orders.42", "typing", ephemeral=True)
            assert rows() == before
        assert [(one.topic, one.name, one.data, one.seq) for one in events] == [
            ("orders.42", "shipped", {"eta": "2026-11-24"}, 1),
            ("orders.42", "paid", 7, 2),
            ("orders.43", "opened", None, 1),
            ("orders.42", "typing", None, None),
        ]

    def test_events_before_and_after_the_block_are_not_captured(self) -> None:
        events = capture_events()
        with events:
            assert len(events) == 0
        with capture_events():
            publish("orders.1", "later")
        assert len(events) == 0

    def test_publish_outside_atomic_returns_the_event(self) -> None:
        with capture_events():
            event = publish("orders.42", "shipped")
            assert event is not None
            assert event.cursor == log.head("orders.42")
            assert log.history("orders.42") == [event]

    def test_an_event_inside_atomic_appears_with_the_commit(self) -> None:
        with capture_events() as events:
            with transaction.atomic():
                with transaction.atomic():
                    assert publish("orders.42", "shipped") is None
                assert names(events) == []
            assert names(events) == ["shipped"]

    def test_a_rollback_discards_the_event(self) -> None:
        with capture_events() as events:
            with pytest.raises(Fault), transaction.atomic():
                publish("orders.42", "shipped")
                raise Fault
            assert names(events) == []
            publish("orders.42", "next")
        assert names(events) == ["next"]

    def test_a_rollback_of_a_savepoint_discards_only_its_own_events(self) -> None:
        with capture_events() as events, transaction.atomic():
            publish("orders.42", "first")
            with pytest.raises(Fault), transaction.atomic():
                publish("orders.42", "second")
                raise Fault
            publish("orders.42", "third")
        assert names(events) == ["first", "third"]

    def test_a_rollback_of_the_outer_transaction_discards_events_of_the_inner_one(self) -> None:
        with capture_events() as events:
            with pytest.raises(Fault), transaction.atomic():
                with transaction.atomic():
                    publish("orders.42", "shipped")
                raise Fault
            assert names(events) == []

    def test_committed_events_precede_later_ones(self) -> None:
        with capture_events() as events:
            with transaction.atomic():
                publish("orders.42", "first")
            publish("orders.42", "second")
        assert [(event.name, event.seq) for event in events] == [("first", 1), ("second", 2)]

    def test_hooks_of_the_project_run_with_the_commit(self) -> None:
        with capture_events() as events:
            with transaction.atomic():
                transaction.on_commit(lambda: publish("orders.42", "from-the-hook"))  # type: ignore[arg-type, return-value]
                transaction.on_commit(lambda: publish("orders.42", "from-the-next"))  # type: ignore[arg-type, return-value]
            assert names(events) == ["from-the-hook", "from-the-next"]

    def test_a_hook_that_fails_raises_unless_it_is_robust(self) -> None:
        def fail() -> None:
            raise Fault

        with capture_events() as events, self.assertLogs("realtime", "ERROR"):
            with transaction.atomic():
                transaction.on_commit(fail, robust=True)
            assert names(events) == []
        with pytest.raises(Fault), capture_events(), transaction.atomic():
            transaction.on_commit(fail)

    def test_events_that_were_committed_before_an_error_are_captured(self) -> None:
        events = capture_events()
        with pytest.raises(Fault), events:
            with transaction.atomic():
                publish("orders.42", "committed")
            with transaction.atomic():
                publish("orders.42", "rolled-back")
                raise Fault
        assert names(events) == ["committed"]
        with capture_events() as later:
            publish("orders.42", "next")
        assert names(later) == ["next"]

    def test_hooks_after_a_failed_hook_never_run(self) -> None:
        calls: list[str] = []

        def fail() -> None:
            raise Fault

        with pytest.raises(Fault), capture_events(), transaction.atomic():
            transaction.on_commit(fail)
            transaction.on_commit(lambda: calls.append("after"))
        with capture_events() as later:
            publish("orders.42", "next")
        assert (calls, names(later)) == ([], ["next"])

    def test_a_hook_that_fails_does_not_hide_the_exception_of_the_code(self) -> None:
        def fail() -> None:
            raise RuntimeError("the hook's own")

        with self.assertLogs("realtime", "ERROR"), pytest.raises(Fault), capture_events():
            with transaction.atomic():
                transaction.on_commit(fail)
            raise Fault

    def test_events_of_a_transaction_precede_those_of_its_hooks(self) -> None:
        """As with the outbox, whose relay processes all rows of a topic at once."""
        with capture_events() as events:
            with transaction.atomic():
                publish("orders.42", "1")
                transaction.on_commit(lambda: publish("orders.42", "3"))  # type: ignore[arg-type, return-value]
                publish("orders.42", "2")
                with pytest.raises(Fault), transaction.atomic():
                    publish("orders.42", "rolled-back")
                    raise Fault
            assert names(events) == ["1", "2", "3"]

    def test_hooks_from_before_the_block_are_not_run(self) -> None:
        calls: list[str] = []
        transaction.on_commit(lambda: calls.append("before"))
        with capture_events():
            publish("orders.42", "shipped")
        assert calls == []

    def test_hooks_run_once_when_django_captures_them_too(self) -> None:
        calls: list[str] = []
        with capture_events() as events:
            with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
                publish("orders.42", "shipped")
                transaction.on_commit(lambda: calls.append("hook"))
            assert names(events) == ["shipped"]
        assert calls == ["hook"]

    def test_transactions_of_the_test_case_do_not_count_as_ambiguous(self) -> None:
        with capture_events() as events:
            publish("orders.42", "default")
            with transaction.atomic(using="other"):
                publish("orders.42", "other", using="other")
                with pytest.raises(AmbiguousTransaction):
                    publish("orders.42", "unclear")
                assert names(events) == ["default"]
        assert names(events) == ["default", "other"]

    def test_views_are_captured(self) -> None:
        with capture_events() as events:
            assert self.client.get("/publish/sync/").content == b"1"
            assert self.client.get("/publish/atomic/").content == b"waits"
            assert self.client.get("/publish/async/").content == b"3"
            self.client.raise_request_exception = False
            self.client.get("/publish/atomic/?fail")
        assert names(events) == ["sync", "atomic", "async"]

    def test_captures_can_overlap(self) -> None:
        first, second = capture_events(), capture_events()
        first.__enter__()
        publish("orders.1", "a")
        second.__enter__()
        publish("orders.1", "b")
        first.__exit__(None, None, None)
        publish("orders.1", "c")
        second.__exit__(None, None, None)
        assert (names(first), names(second)) == (["a", "b"], ["b", "c"])

    def test_an_active_capture_cannot_be_entered_again(self) -> None:
        with capture_events() as events, pytest.raises(RuntimeError, match="already active"):
            events.__enter__()

    def test_the_store_of_the_project_is_restored_afterwards(self) -> None:
        before = get_store()
        with pytest.raises(Fault), capture_events():
            assert get_store() is not before
            raise Fault
        assert get_store() is before

    def test_settings_can_be_overridden_inside(self) -> None:
        before = rows()
        with capture_events() as events:
            with override_settings(REALTIME={"LIMITS": {"event_bytes": 1000}}):
                publish("orders.42", "shipped")
            publish("orders.42", "more")
            assert [event.seq for event in events] == [1, 2]
        assert rows() == before

    def test_no_other_thread_uses_the_database(self) -> None:
        user = User.objects.create_user("ada")
        here = threading.current_thread().name
        with recorded_threads() as threads:
            with capture_events() as events, RealtimeClient(user) as browser:
                browser.subscribe(user_topic(user))
                browser.subscribe("tiny.log")
                for number in range(20):  # more than max_events, so the log is trimmed
                    publish("tiny.log", "counted", number)
                with transaction.atomic():
                    publish(user_topic(user), "greeted")
                assert len(events) == 21
                hub = browser._connected().server.hub
                # After a tick, its jobs have run, such as the relay of a database's outbox.
                due = hub.jobs.relay.due
                wait_until(lambda: hub.jobs.relay.due > due, "the relay was started")
                wait_until(lambda: not hub.jobs.relay.is_running, "the relay has run")
            User.objects.count()
        assert threads == {here}

    def test_the_publisher_thread_is_not_started(self) -> None:
        before = {thread.name for thread in threading.enumerate()}
        with capture_events(), RealtimeClient() as browser:
            publish("public.news", "said")
            browser.subscribe("public.news", last=1)
            assert browser.receive_event().name == "said"
        assert {thread.name for thread in threading.enumerate()} <= before

    # Assertions

    def test_an_assertion_returns_the_event_that_matches(self) -> None:
        day = datetime.date(2026, 11, 24)
        with capture_events() as events:
            publish("orders.42", "shipped", {"eta": day, "price": Decimal("9.50")})
            publish("orders.42", "shipped", {"eta": None})
        assert events.assert_published("orders.42", "shipped").seq == 1
        assert events.assert_published("orders.42", "shipped", {"eta": None}).seq == 2
        expected = {"eta": day, "price": Decimal("9.50")}
        assert events.assert_published(OrderTopic(pk=42), "shipped", expected).seq == 1
        expected = {"eta": "2026-11-24", "price": ANY}
        assert events.assert_published("orders.42", "shipped", expected, count=1).seq == 1
        events.assert_not_published("orders.43")
        events.assert_not_published("orders.42", "reopened")
        events.assert_not_published("orders.42", "shipped", {"eta": "2026-11-25"})
        with capture_events() as counted:
            publish("orders.42", "counted", 1)
        counted.assert_not_published("orders.42", "counted", True)
        counted.assert_published("orders.42", "counted", 1)
        assert names(events.of("orders.42")) == ["shipped", "shipped"]
        assert events.of("orders.42", "paid") == events.of(name="paid") == []

    def test_a_failed_assertion_lists_what_was_published(self) -> None:
        with capture_events() as events:
            publish("orders.42", "shipped", {"eta": "2026-11-24"})
            publish("public.news", "said", "x" * 1000)
        with pytest.raises(AssertionError) as failure:
            events.assert_published("orders.42", "shipped", {"eta": "2026-11-25"})
        lines = str(failure.value).splitlines()
        assert lines[:3] == [
            "'shipped' should have been published to orders.42"
            ' with {"eta":"2026-11-25"}; it was not.',
            "Published:",
            '  orders.42 shipped {"eta":"2026-11-24"}',
        ]
        assert lines[3].startswith('  public.news said "xxx')
        assert len(lines[3]) < 350
        with pytest.raises(AssertionError, match="2 times; it was published 1 times"):
            events.assert_published("orders.42", "shipped", count=2)
        with pytest.raises(AssertionError, match=r"this should not .*\n  orders.42 shipped"):
            events.assert_not_published("orders.42")
        with pytest.raises(AssertionError, match="these 2 should not have been published"):
            events.assert_not_published()

    def test_a_failed_assertion_mentions_an_open_transaction(self) -> None:
        with capture_events() as events, transaction.atomic():
            publish("orders.42", "shipped")
            with pytest.raises(AssertionError) as failure:
                events.assert_published("orders.42", "shipped")
        assert "Nothing was published.\nHooks that wait for the commit" in str(failure.value)

    def test_an_assertion_about_an_impossible_event_raises(self) -> None:
        with capture_events() as events:
            publish("orders.42", "shipped")
        with pytest.raises(UnknownTopic):
            events.assert_not_published("odrers.42")
        with pytest.raises(InvalidEventName):
            events.assert_not_published("orders.42", "not shipped")

    def test_clear_discards_the_captured_events(self) -> None:
        with capture_events() as events:
            publish("orders.42", "setup")
            with transaction.atomic():
                publish("orders.42", "committed")
            events.clear()
            publish("orders.42", "shipped")
        assert names(events) == ["shipped"]

    def test_captured_events_are_a_sequence_with_a_readable_repr(self) -> None:
        with capture_events() as events:
            publish("orders.42", "a")
            publish("orders.42", "b", [1])
        assert names(events[0:1]) == ["a"]
        assert events[-1].data == [1]
        assert events[0] in events
        assert repr(events) == "<CapturedEvents: orders.42 a null, orders.42 b [1]>"

    # Coroutines

    async def test_coroutines_can_capture_events(self) -> None:
        async with capture_events() as events:
            event = await apublish("orders.42", "direct")
            assert event is not None
            assert names(events) == ["direct"]
            await self.async_client.get("/publish/atomic/")
            with pytest.raises(SynchronousOnlyOperation, match="asettle"):
                len(events)
            await events.asettle()
            assert names(events) == ["direct", "atomic"]
            await self.async_client.get("/publish/atomic/")
        assert names(events) == ["direct", "atomic", "atomic"]


class CaptureOfRealCommitsTests(TransactionTestCase):
    def test_real_commits_and_rollbacks_are_respected(self) -> None:
        before = rows()
        with capture_events() as events:
            with transaction.atomic():
                publish("orders.42", "first")
                with pytest.raises(Fault), transaction.atomic():
                    publish("orders.42", "second")
                    raise Fault
                assert names(events) == []
            assert names(events) == ["first"]
            with transaction.atomic():
                publish("orders.42", "third")
                transaction.on_commit(lambda: publish("orders.42", "fifth"))  # type: ignore[arg-type, return-value]
                publish("orders.42", "fourth")
        assert names(events) == ["first", "third", "fourth", "fifth"]
        assert rows() == before


def test_capturing_needs_no_database() -> None:
    with capture_events() as events:
        publish("orders.42", "shipped")
    assert names(events) == ["shipped"]


@contextmanager
def recorded_threads() -> Iterator[set[str]]:
    """Collect the names of the threads that use a database connection."""
    threads: set[str] = set()
    ensure = BaseDatabaseWrapper.ensure_connection

    def recording(self: BaseDatabaseWrapper) -> None:
        threads.add(threading.current_thread().name)
        ensure(self)

    with patch.object(BaseDatabaseWrapper, "ensure_connection", recording):
        assert connection.alias == "default"
        yield threads
