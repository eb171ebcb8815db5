"""The contract of every store: each sentence of `realtime/stores/base.py` as a test.

A test module subclasses `StoreContract`, and defines its `store` fixture and `pass_time()`.
"""

import asyncio
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from django.db import connections
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.exceptions import CursorExpired
from realtime.protocol.events import Cursor, Draft, Event
from realtime.stores import base
from realtime.stores.base import SEEN_SECONDS, Appended, Page, Retention, Store, beginning
from tests.stores.contract_members import MembersContract
from tests.support.waiting import wait_until

DAY = 86_400.0
FORGETTING = Retention(1000, DAY, forget_after=30 * DAY)


class Subject:
    """One topic of a store, used through the methods (`sync`) or their async versions."""

    def __init__(self, store: Store, mode: str, topic: str | None = None) -> None:
        self.store = store
        self.mode = mode
        self.topic = topic or f"contract.{uuid.uuid4().hex}"

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self.mode == "sync":
            return getattr(self.store, name)(*args, **kwargs)
        return asyncio.run(getattr(self.store, f"a{name}")(*args, **kwargs))

    def other(self) -> "Subject":
        return Subject(self.store, self.mode)

    def append(self, *drafts: str | Draft) -> Appended:
        full = [Draft(d, '"…"') if isinstance(d, str) else d for d in drafts]
        return self.call("append", self.topic, full)

    def fill(self, count: int) -> list[Event]:
        return list(self.append(*(f"e{number}" for number in range(1, count + 1))).events)

    def head(self) -> Cursor:
        return self.call("heads", [self.topic])[self.topic]

    def read(self, after: Cursor, **limits: int) -> Page:
        return self.call("read", self.topic, after, **limits)

    def names(self, after: Cursor) -> list[str]:
        return [event.name for event in self.read(after).events]

    def locate(self, **wanted: Any) -> Cursor:
        return self.call("locate", self.topic, **wanted)

    def trim(self, max_events: int = 1000, max_age: float = DAY) -> int:
        return self.call("trim", self.topic, Retention(max_events, max_age))

    def renew(self, epoch: str) -> Cursor:
        return self.call("renew", self.topic, epoch)

    def delete(self) -> Cursor:
        return self.call("delete", self.topic)

    def expired(self, after: Cursor) -> CursorExpired:
        with pytest.raises(CursorExpired) as caught:
            self.read(after)
        return caught.value


def cursor(event: Event) -> Cursor:
    assert event.cursor is not None
    return event.cursor


class StoreContract(MembersContract):
    """The tests; each subclass tests one store."""

    #: How many examples the property test runs.
    examples = 60

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        raise NotImplementedError("a subclass defines its store")

    def pass_time(self, store: Store, topic: str, seconds: float) -> None:
        """Make everything that is stored for the topic older, including the ids that were seen."""
        raise NotImplementedError("a subclass changes the times in its store")

    #: Does `pass_time()` move the store's clock, not the stored times?
    moves_clock = False

    def with_the_same_store_id(self, log: Subject) -> Subject:
        """Return another topic with the same store id."""
        return log.other()

    @pytest.fixture(params=["sync", "async"])
    def log(self, store: Store, request: pytest.FixtureRequest) -> Subject:
        return Subject(store, request.param)

    # Log and cursors

    def test_events_are_numbered_from_one_without_a_hole(self, log: Subject) -> None:
        events = [*log.fill(3), *log.append("x").events, *log.fill(2)]
        assert [event.seq for event in events] == [1, 2, 3, 4, 5, 6]

    def test_topics_that_differ_only_in_case_have_logs_of_their_own(self, log: Subject) -> None:
        upper = Subject(log.store, log.mode, log.topic.upper())
        begin = {each.topic: each.head() for each in (log, upper)}
        log.append("private", "again")
        assert upper.read(upper.head()).events == ()
        assert upper.locate(last=9) == upper.head()
        upper.append("Another")
        assert log.names(begin[log.topic]) == ["private", "again"]
        assert upper.names(begin[upper.topic]) == ["Another"]
        heads = log.call("heads", [log.topic, upper.topic])
        assert [heads[each.topic].seq for each in (log, upper)] == [2, 1]
        upper.delete()
        assert log.names(begin[log.topic]) == ["private", "again"]

    def test_an_append_returns_the_events_that_a_read_returns(self, log: Subject) -> None:
        start = log.head()
        drafts = [Draft("shipped", '{"a": "ü\\n"}', "origin"), Draft("x", "null")]
        appended = log.append(*drafts)
        assert appended.previous == start
        assert appended.kept == 2
        assert log.read(start) == Page(appended.events, cursor(appended.events[-1]))
        first = appended.events[0]
        assert (first.topic, first.name, first.json, first.origin) == (
            log.topic,
            "shipped",
            '{"a": "ü\\n"}',
            "origin",
        )
        assert appended.events[1].origin is None

    def test_previous_is_the_head_before_the_append(self, log: Subject) -> None:
        last = cursor(log.fill(2)[-1])
        appended = log.append("x")
        assert appended.previous == last
        assert appended.kept == 3

    def test_an_append_of_nothing_changes_nothing(self, log: Subject) -> None:
        head = cursor(log.fill(1)[0])
        assert log.append() == Appended(head, (), 1)
        assert log.head() == head

    def test_an_append_is_all_or_none(self, log: Subject) -> None:
        head = cursor(log.fill(1)[0])
        with pytest.raises(Exception):  # noqa: B017, PT011 - the error depends on the store
            log.append(Draft("x", "1"), None)  # type: ignore[arg-type]
        assert log.head() == head
        assert log.names(head) == []

    def test_tags_differ(self, log: Subject) -> None:
        assert len({cursor(event).tag for event in log.fill(50)}) >= 49

    def test_the_head_of_a_topic_without_events_is_the_beginning(self, log: Subject) -> None:
        head = log.head()
        assert head == beginning(head.epoch, log.topic)
        assert head.epoch == self.with_the_same_store_id(log).head().epoch
        assert log.read(head) == Page((), head)

    def test_reads_write_nothing(self, log: Subject) -> None:
        log.read(log.head())
        log.locate(last=3)
        log.trim(0)
        assert log.topic not in set(log.store.topics())

    def test_the_store_id_is_the_epoch_of_a_new_log(self, log: Subject) -> None:
        head = log.head()
        assert cursor(log.fill(1)[0]).epoch == head.epoch
        assert log.names(head) == ["e1"]

    def test_heads_returns_the_head_of_every_name(self, log: Subject) -> None:
        last = cursor(log.fill(2)[-1])
        empty = log.other()
        heads = log.call("heads", [log.topic, empty.topic])
        assert heads == {log.topic: last, empty.topic: empty.head()}
        assert log.call("heads", []) == {}

    def test_topics_are_independent(self, log: Subject) -> None:
        other = log.other()
        log.fill(2)
        assert [event.seq for event in other.fill(1)] == [1]
        assert log.head().seq == 2
        other.delete()
        assert log.head().seq == 2

    def test_topics_lists_every_log_once(self, log: Subject) -> None:
        subjects = [log.other() for _ in range(3)]
        for subject in subjects:
            subject.fill(1)
        names = list(log.store.topics())
        assert {subject.topic for subject in subjects} <= set(names)
        assert len(names) == len(set(names))
        assert "" not in names

    def test_search_finds_the_newest_events_of_all_topics(self, log: Subject) -> None:
        topics = [log.topic, log.other().topic, f"$internal.{log.topic}"]
        for topic in (*topics, log.topic):
            log.call("append", topic, [Draft("Paid", "1"), Draft("tick", "2")])
        search = log.store.search
        part = log.topic[:20].upper()
        found = search(100, topic=log.topic)
        assert [(e.topic, e.name, e.seq) for e in found] == [
            (log.topic, name, seq)
            for name, seq in [("tick", 4), ("Paid", 3), ("tick", 2), ("Paid", 1)]
        ]
        assert found == list(log.read(log.locate(last=100)).events)[::-1]
        assert [event.seq for event in search(1, topic=part)] == [4]
        assert search(100, topic=log.topic, exact=True) == found
        assert search(100, topic=part, exact=True) == []
        assert {event.name for event in search(100, topic=log.topic, name="pai")} == {"Paid"}
        assert not search(100, topic=log.topic, name="nothing")
        newest = found[0].time or 0.0
        assert not search(100, topic=log.topic, since=newest + 1)
        assert not search(100, topic=log.topic, until=newest - DAY)
        assert search(100, topic=log.topic, since=newest - DAY, until=newest) == found
        everything = search(1_000)
        assert {log.topic, topics[1]} <= {event.topic for event in everything}
        assert topics[2] not in {event.topic for event in everything}
        times = [event.time or 0.0 for event in everything]
        assert times == sorted(times, reverse=True)

    # Reading

    def test_a_log_can_be_read_from_any_kept_event(self, log: Subject) -> None:
        start = log.head()
        events = log.fill(5)
        for count, after in enumerate([start, *map(cursor, events)]):
            assert list(log.read(after).events) == events[count:]

    def test_a_read_stops_at_its_limit_and_repeated_reads_reach_the_head(
        self, log: Subject
    ) -> None:
        after = log.head()
        events = log.fill(200)
        pages = []
        while not pages or after != pages[-1].head:
            pages.append(log.read(after, limit=70))
            after = cursor(pages[-1].events[-1])
        assert [len(page.events) for page in pages] == [70, 70, 60]
        assert [event for page in pages for event in page.events] == events

    def test_a_read_stops_at_max_bytes_but_returns_at_least_one_event(self, log: Subject) -> None:
        start = log.head()
        log.append(*(Draft("x", f'"{"ü" * 49}"') for _ in range(150)))  # 100 bytes each
        assert len(log.read(start, max_bytes=300).events) == 3
        assert len(log.read(start, max_bytes=399).events) == 3
        assert len(log.read(start, max_bytes=10_000).events) == 100
        assert len(log.read(start, max_bytes=1).events) == 1
        assert len(log.read(start, limit=2, max_bytes=300).events) == 2

    def test_a_forged_beginning_contradicts_the_log(self, log: Subject) -> None:
        start = log.head()
        forged = replace(start, tag=start.tag ^ 1)
        assert log.expired(forged).contradicts
        log.fill(2)
        assert log.expired(forged).contradicts
        assert log.expired(self.with_the_same_store_id(log).head()).contradicts  # of another topic

    def test_an_unknown_tag_contradicts_the_log(self, log: Subject) -> None:
        events = log.fill(3)
        for event in events:
            wrong = replace(cursor(event), tag=cursor(event).tag ^ 1)
            error = log.expired(wrong)
            assert error.contradicts
            assert (error.topic, error.cursor, error.head) == (log.topic, wrong, log.head())
        log.trim(max_events=1)
        floor = replace(cursor(events[1]), tag=cursor(events[1]).tag ^ 1)
        assert log.expired(floor).contradicts

    def test_a_cursor_ahead_of_the_head_contradicts_the_log(self, log: Subject) -> None:
        log.fill(2)
        assert log.expired(replace(log.head(), seq=3)).contradicts
        assert log.expired(replace(log.head(), seq=10**18 - 1)).contradicts
        empty = log.other()
        assert empty.expired(replace(empty.head(), seq=1)).contradicts

    def test_a_cursor_of_another_epoch_does_not_contradict(self, log: Subject) -> None:
        log.fill(2)
        assert not log.expired(replace(log.head(), epoch="other")).contradicts
        assert not log.expired(replace(log.head(), epoch="other", seq=9)).contradicts

    # Locating cursors

    def test_locate_finds_the_newest_events(self, log: Subject) -> None:
        start = log.head()
        events = log.fill(5)
        assert log.locate(last=2) == cursor(events[2])
        assert log.locate(last=5) == start
        assert log.locate(last=10**9) == start
        assert log.locate(last=0) == log.locate() == log.head()

    def test_locate_finds_the_events_from_a_time_on(self, log: Subject) -> None:
        start = log.head()
        old = log.fill(2)
        self.pass_time(log.store, log.topic, 100)
        new = log.fill(2)
        moment = new[0].time
        assert moment is not None
        assert log.locate(since=moment) == cursor(old[1])
        assert log.locate(since=moment - 50) == cursor(old[1])
        assert log.locate(since=moment - 1000) == start
        assert log.locate(since=moment + 1000) == log.head()

    def test_locate_with_both_limits_finds_the_fewer_events(self, log: Subject) -> None:
        start = log.head()
        log.fill(2)
        self.pass_time(log.store, log.topic, 100)
        new = log.fill(3)
        moment = (new[0].time or 0) - 50
        assert log.locate(last=1, since=moment) == cursor(new[1])
        assert log.locate(last=4, since=moment).seq == 2
        assert log.locate(last=9, since=0) == start
        assert log.locate(last=0, since=0) == log.head()

    def test_locate_of_the_newest_leaves_out_trimmed_events(self, log: Subject) -> None:
        events = log.fill(5)
        log.trim(max_events=2)
        for found in (log.locate(last=5), log.locate(last=5, since=0)):
            assert found == cursor(events[2])
            assert list(log.read(found).events) == events[3:]

    def test_locate_raises_if_events_from_the_time_on_were_trimmed(self, log: Subject) -> None:
        start = log.head()
        log.fill(2)
        self.pass_time(log.store, log.topic, 100)
        log.fill(2)
        events = log.read(start).events
        trimmed, kept = events[1].time, events[2].time
        assert trimmed is not None
        assert kept is not None
        log.trim(max_events=2)
        for moment in (0.0, trimmed - 1, trimmed):
            with pytest.raises(CursorExpired) as expired:
                log.locate(since=moment)
            assert not expired.value.contradicts
        assert log.locate(since=trimmed + 1) == log.locate(since=kept) == cursor(events[1])
        log.trim(max_events=0)
        assert log.locate(since=kept + 1) == log.head()
        with pytest.raises(CursorExpired):
            log.locate(since=kept)

    def test_locate_raises_if_the_log_was_deleted_after_the_time(self, log: Subject) -> None:
        before = log.fill(1)[0].time
        assert before is not None
        log.call("delete", log.topic)
        with pytest.raises(CursorExpired):
            log.locate(since=before)
        assert log.locate(since=before + 1000) == log.head()

    def test_locate_in_a_topic_without_events_returns_its_head(self, log: Subject) -> None:
        assert log.locate(last=5) == log.locate(since=0) == log.head()

    # Trimming

    def test_trim_keeps_the_newest_events(self, log: Subject) -> None:
        start = log.head()
        events = log.fill(10)
        assert log.trim(max_events=4) == 6
        assert log.trim(max_events=4) == 0
        assert log.append("x").kept == 5
        assert list(log.read(cursor(events[5])).events)[:4] == events[6:]
        for lost in [start, *map(cursor, events[:5])]:
            assert not log.expired(lost).contradicts

    def test_trim_removes_thousands_of_events_in_one_call(self, log: Subject) -> None:
        events = log.fill(2_500)
        assert log.trim(max_events=10) == 2_490
        assert list(log.read(cursor(events[2_489])).events) == events[2_490:]

    def test_trim_removes_events_that_are_too_old(self, log: Subject) -> None:
        old = log.fill(3)
        self.pass_time(log.store, log.topic, 100)
        log.fill(2)
        assert log.trim(max_age=50) == 3
        assert log.names(cursor(old[-1])) == ["e1", "e2"]
        assert log.trim(max_age=1000) == 0

    def test_the_stricter_limit_of_a_trim_applies(self, log: Subject) -> None:
        log.fill(3)
        self.pass_time(log.store, log.topic, 100)
        log.fill(3)
        assert log.trim(max_events=2, max_age=50) == 4

    def test_head_and_floor_outlive_the_events(self, log: Subject) -> None:
        last = cursor(log.fill(3)[-1])
        assert log.trim(max_events=0) == 3
        assert log.head() == last
        assert log.read(last) == Page((), last)
        assert log.locate(last=2) == last
        assert log.append("x").previous == last
        assert log.names(last) == ["x"]
        assert log.head().seq == 4

    # What is due, and forgetting

    def due(self, log: Subject) -> bool:
        return log.topic in set(log.store.due())

    def test_a_log_is_due_after_its_first_event_and_when_its_oldest_event_is_too_old(
        self, log: Subject
    ) -> None:
        assert not self.due(log)
        log.fill(2)
        assert self.due(log)
        log.trim(max_age=100)
        assert not self.due(log)
        log.fill(1)  # is younger than what is looked at already
        assert not self.due(log)
        self.pass_time(log.store, log.topic, 101)
        assert self.due(log)
        assert log.trim(max_age=100) == 3
        assert not self.due(log)
        log.fill(1)
        assert self.due(log)

    def test_due_names_each_log_once_though_it_stays_due(self, log: Subject) -> None:
        log.fill(1)
        assert list(log.store.due()).count(log.topic) == 1

    def test_a_log_whose_retention_is_unknown_is_due_again_after_a_while(
        self, log: Subject
    ) -> None:
        log.fill(1)
        retention = Retention(10**15, 1e11, look_again=100.0)
        assert log.call("trim", log.topic, retention) == 0
        assert not self.due(log)
        self.pass_time(log.store, log.topic, 101)
        assert self.due(log)

    def forget(self, log: Subject) -> bool:
        """Trim the log, which forgets it after 30 days; return whether it was forgotten."""
        log.call("trim", log.topic, FORGETTING)
        head = log.head()
        return head.seq == 0 and head.epoch == self.with_the_same_store_id(log).head().epoch

    def test_a_log_that_is_empty_and_idle_for_long_is_forgotten(self, log: Subject) -> None:
        log.append(Draft("x", "1", id="a"))
        assert not self.forget(log)
        self.pass_time(log.store, log.topic, 29 * DAY)
        assert not self.forget(log)
        assert not self.due(log)
        self.pass_time(log.store, log.topic, DAY)
        assert self.due(log)
        assert self.forget(log)
        assert log.topic not in set(log.store.topics())
        assert not self.due(log)
        head = log.head()
        assert head == beginning(head.epoch, log.topic)
        assert [event.seq for event in log.append("x", "y").events] == [1, 2]
        assert log.names(head) == ["x", "y"]

    def test_a_trim_that_empties_an_idle_log_forgets_it(self, log: Subject) -> None:
        log.fill(3)
        self.pass_time(log.store, log.topic, 31 * DAY)
        assert self.forget(log)

    def test_a_log_is_not_forgotten_without_a_time_to_forget_it(self, log: Subject) -> None:
        log.fill(1)
        self.pass_time(log.store, log.topic, 1000 * DAY)
        assert log.trim() == 1
        assert log.topic in set(log.store.topics())
        assert not self.due(log)

    def test_a_log_that_must_be_kept_is_looked_at_again_after_a_while(self, log: Subject) -> None:
        kept = Retention(1000, DAY, forget_after=math.inf, look_again=100.0)
        log.fill(1)
        self.pass_time(log.store, log.topic, 1000 * DAY)
        assert log.call("trim", log.topic, kept) == 1
        assert log.topic in set(log.store.topics())
        assert not self.due(log)
        self.pass_time(log.store, log.topic, 101)
        assert self.due(log)
        assert self.forget(log)

    def test_a_renewed_and_a_deleted_log_are_not_forgotten_at_once(self, log: Subject) -> None:
        other = log.other()
        log.fill(1)
        self.pass_time(log.store, log.topic, 31 * DAY)
        log.trim()
        log.renew(log.head().epoch)
        other.delete()
        assert not self.forget(log)
        assert not self.forget(other)
        for each in (log, other):
            self.pass_time(log.store, each.topic, 31 * DAY)
            assert self.due(each)
            assert self.forget(each)

    def test_a_presence_log_with_members_is_not_forgotten(self, log: Subject) -> None:
        node = uuid.uuid4().hex
        log.call("change_members", log.topic, node, {"1": '{"id":"1"}'}, ())
        self.pass_time(log.store, log.topic, 31 * DAY)
        assert not self.forget(log)
        assert not self.due(log)  # until a day has passed
        assert log.call("members", log.topic).members == {"1": '{"id":"1"}'}
        log.call("change_members", log.topic, node, {}, ("1",))
        self.pass_time(log.store, log.topic, 31 * DAY)
        assert self.forget(log)

    def test_whoever_comes_back_to_a_forgotten_log_is_reset(
        self, log: Subject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start = log.head()
        old = [start, *map(cursor, log.fill(3))]
        self.pass_time(log.store, log.topic, 31 * DAY)
        assert self.forget(log)
        pass_periods(monkeypatch, 31 * DAY)
        now = log.call("clock")
        for count in range(6):
            for each in old:
                log.expired(each)
            with pytest.raises(CursorExpired):
                log.locate(since=now - 32 * DAY)
            assert log.locate(since=now - 30 * DAY).seq == 0
            log.append(f"e{count}")

    def test_the_beginning_is_valid_for_weeks_but_not_until_its_log_can_be_forgotten(
        self, log: Subject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start = log.head()
        pass_periods(monkeypatch, -1 * DAY)  # a process whose clock is behind
        assert log.read(start).events == ()
        pass_periods(monkeypatch, 10 * DAY)
        later = log.head()
        assert log.read(start) == Page((), later)
        log.fill(2)
        assert log.names(start) == log.names(later) == ["e1", "e2"]
        pass_periods(monkeypatch, 29 * DAY)
        assert log.expired(start).contradicts
        assert log.names(beginning(start.epoch, log.topic)) == ["e1", "e2"]

    def test_an_append_is_never_lost_to_a_concurrent_forget(self, log: Subject) -> None:
        for _ in range(5):
            log.fill(1)
            self.pass_time(log.store, log.topic, 31 * DAY)

            def act(number: int) -> list[Event]:
                if number:
                    self.forget(log)
                    return []
                return list(log.append("new").events)

            [event] = in_threads(2, act)[0]
            assert log.read(log.locate(last=1)).events == (event,)

    def test_nobody_misses_an_event_silently(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @settings(max_examples=max(self.examples // 3, 15), deadline=None)
        @given(st.data())
        def run(data: st.DataObject) -> None:
            with monkeypatch.context() as patch:
                run_forgetting(self, Subject(store, "sync"), patch, data)

        run()

    # Ids

    def test_an_id_is_appended_once(self, log: Subject) -> None:
        first = log.append(Draft("x", "1", id="a"), Draft("y", "2", id="b"))
        again = log.append(Draft("y", "2", id="b"), Draft("z", "3"), Draft("u", "4", id="c"))
        assert [event.name for event in first.events] == ["x", "y"]
        assert [event.name for event in again.events] == ["z", "u"]
        assert [event.seq for event in again.events] == [3, 4]
        assert log.append(Draft("u", "4", id="c")) == Appended(log.head(), (), 4)

    def test_an_id_that_comes_twice_in_one_call_is_appended_once(self, log: Subject) -> None:
        assert len(log.append(Draft("x", "1", id="a"), Draft("x", "1", id="a")).events) == 1

    def test_an_id_is_remembered_per_topic(self, log: Subject) -> None:
        log.append(Draft("x", "1", id="a"))
        assert len(log.other().append(Draft("x", "1", id="a")).events) == 1

    def test_an_id_is_remembered_for_an_hour(self, log: Subject) -> None:
        log.append(Draft("x", "1", id="a"))
        self.pass_time(log.store, log.topic, SEEN_SECONDS - 60)
        log.trim(max_events=0)
        assert log.append(Draft("x", "1", id="a")).events == ()
        self.pass_time(log.store, log.topic, 120)
        assert len(log.append(Draft("x", "1", id="a")).events) == 1
        self.pass_time(log.store, log.topic, SEEN_SECONDS + 60)
        log.trim()
        assert len(log.append(Draft("x", "1", id="a")).events) == 1

    # Epochs

    def test_renew_keeps_the_events_under_a_new_epoch(self, log: Subject) -> None:
        events = log.fill(3)
        old = log.head()
        new = log.renew(old.epoch)
        assert new == log.head() == replace(old, epoch=new.epoch)
        assert new.epoch != old.epoch
        assert not log.expired(old).contradicts
        assert log.names(log.locate(last=3)) == ["e1", "e2", "e3"]
        assert log.names(replace(cursor(events[0]), epoch=new.epoch)) == ["e2", "e3"]
        assert cursor(log.append("x").events[0]).epoch == new.epoch

    def test_renew_of_an_earlier_epoch_changes_nothing(self, log: Subject) -> None:
        log.fill(1)
        new = log.renew(log.head().epoch)
        assert log.renew("other") == log.head() == new
        empty = log.other()
        assert empty.renew("other") == empty.head()

    def test_renew_expires_the_beginning_of_a_topic_without_events(self, log: Subject) -> None:
        start = log.head()
        new = log.renew(start.epoch)
        assert new == log.head() == beginning(new.epoch, log.topic)
        assert new.epoch != start.epoch
        assert not log.expired(start).contradicts
        assert log.renew(start.epoch) == new

    def test_concurrent_renews_begin_one_epoch(self, log: Subject) -> None:
        log.fill(1)
        epoch = log.head().epoch
        heads = in_threads(6, lambda _: log.renew(epoch))
        assert set(heads) == {log.head()}
        assert log.head().epoch != epoch

    def test_delete_begins_a_new_epoch_at_seq_zero(self, log: Subject) -> None:
        start = log.head()
        events = log.fill(3)
        log.trim(max_events=1)
        new = log.delete()
        assert new == log.head() == beginning(new.epoch, log.topic)
        assert log.read(new) == Page((), new)
        for lost in [start, *map(cursor, events)]:
            assert not log.expired(lost).contradicts
        assert [event.seq for event in log.append("x", "y").events] == [1, 2]
        assert log.names(new) == ["x", "y"]

    # Quotas

    def test_a_quota_is_taken_up_to_its_limit_and_no_further(self, log: Subject) -> None:
        quota, other = f"q.{log.topic}", f"other.{log.topic}"
        assert log.call("take", quota, 3, 5, 60.0)
        assert not log.call("take", quota, 3, 5, 60.0)
        assert log.call("take", quota, 2, 5, 60.0)  # the refused call added nothing
        assert not log.call("take", quota, 1, 5, 60.0)
        assert log.call("take", other, 5, 5, 60.0)
        assert not log.call("take", f"new.{log.topic}", 6, 5, 60.0)

    def test_a_quota_restarts_after_its_seconds(self, log: Subject) -> None:
        assert log.call("take", log.topic, 5, 5, 0.05)
        wait_until(lambda: log.call("take", log.topic, 1, 1, 60.0), "the quota restarts")
        assert not log.call("take", log.topic, 1, 1, 60.0)

    def test_concurrent_calls_do_not_exceed_a_quota_together(self, log: Subject) -> None:
        taken = in_threads(6, lambda _: log.call("take", log.topic, 1, 2, 60.0))
        assert taken.count(True) == 2

    # Time and threads

    def test_times_are_by_the_stores_clock(self, log: Subject) -> None:
        before = log.call("clock")
        time = log.fill(1)[0].time
        after = log.call("clock")
        assert before <= (time or 0) <= after

    def test_times_never_decrease(self, log: Subject) -> None:
        log.fill(1)
        self.pass_time(log.store, log.topic, -100)  # the clock was set back
        ahead = log.read(log.locate(last=1)).events[0].time
        assert ahead is not None
        assert ahead > log.call("clock") + 50
        assert log.append("x").events[0].time == ahead
        log.delete()
        assert (log.append("y").events[0].time or 0) >= ahead

    def test_concurrent_appends_leave_no_hole(self, log: Subject) -> None:
        start = log.head()

        def append(number: int) -> list[Event]:
            return [log.append(f"t{number}", f"t{number}").events[-1] for _ in range(15)]

        lasts = [event for events in in_threads(4, append) for event in events]
        events = log.read(start).events
        assert [event.seq for event in events] == list(range(1, 121))
        assert {event.seq for event in lasts} == set(range(2, 121, 2))  # pairs are contiguous

    def test_a_page_has_no_hole_under_concurrent_appends_and_trims(self, log: Subject) -> None:
        log.fill(30)
        done = threading.Event()

        def change(_: int) -> None:
            try:
                for _ in range(25):
                    log.fill(6)
                    log.trim(max_events=20)
            finally:
                done.set()
                connections.close_all()

        with ThreadPoolExecutor(1) as pool:
            changing = pool.submit(change, 0)
            highest = 0
            while not done.is_set():
                try:
                    after = log.locate(last=20)
                    page = log.read(after, limit=7)
                except CursorExpired:
                    continue  # trimmed between the two calls
                found = [event.seq for event in page.events]
                assert found == list(range(after.seq + 1, after.seq + 1 + len(found)))
                assert page.head.seq >= highest
                highest = page.head.seq
            changing.result()

    def test_any_sequence_of_calls_behaves_as_the_model(self, store: Store) -> None:
        @settings(max_examples=self.examples, deadline=None)
        @given(st.data())
        def run(data: st.DataObject) -> None:
            run_actions(Subject(store, "sync"), data)

        run()


def pass_periods(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Move the clock that the tag of a cursor before the first event depends on."""
    period = int((time.time() + seconds) // base.BEGINNING_SECONDS)
    monkeypatch.setattr(base, "_period", lambda: period)


def run_forgetting(
    contract: "StoreContract", log: Subject, patch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """Append, trim, forget and let days pass; who resumes gets every event, or is reset."""
    written: list[str] = []
    # What clients hold: how many events were written before, a cursor, a time, the days until then.
    held = [(0, log.head(), log.call("clock"), 0.0)]
    age = 0.0
    actions = st.sampled_from(["append", "trim", "forget", "wait", "wait", "read"])
    for action in data.draw(st.lists(actions, min_size=4, max_size=14), "actions"):
        if action == "append":
            written.append(f"n{len(written)}")
            log.append(written[-1])
        elif action == "trim":
            log.trim(max_events=data.draw(st.integers(0, 2), "kept"), max_age=5 * DAY)
        elif action == "forget":
            log.call("trim", log.topic, FORGETTING)
        elif action == "wait":
            days = data.draw(st.sampled_from([1, 10, 16, 31]), "days") * DAY
            contract.pass_time(log.store, log.topic, days)
            age += days
            pass_periods(patch, age)
        held.append((len(written), log.head(), log.call("clock"), age))
        count, after, then, age_then = data.draw(st.sampled_from(held), "client")
        with suppress(CursorExpired):
            assert log.names(after) == written[count:]
        with suppress(CursorExpired):
            passed = 0.0 if contract.moves_clock else age - age_then
            names = log.names(log.locate(since=then - passed - 0.001))
            assert len(names) >= len(written) - count
            assert names == written[len(written) - len(names) :]
        assert log.names(log.head()) == []


def in_threads(count: int, function: Callable[[int], Any]) -> list[Any]:
    """Run a function in several threads that start together; return the results."""
    barrier = threading.Barrier(count)

    def run(number: int) -> Any:
        barrier.wait(30)
        try:
            return function(number)
        finally:
            connections.close_all()  # this thread's

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


class Model:
    """The simplest implementation of a log that keeps the contract."""

    def __init__(self, start: Cursor) -> None:
        self.events: list[Event] = []  # of this epoch, including trimmed ones
        self.floor = 0
        self.start = start
        self.known = [start]  # every cursor that a client could have

    @property
    def head(self) -> Cursor:
        return cursor(self.events[-1]) if self.events else self.start

    def verdict(self, after: Cursor) -> str:
        """Return what a read from a cursor does: "kept" if it succeeds, else how it expires."""
        if after.epoch != self.start.epoch:
            return "expired"
        if after.seq > len(self.events):
            return "contradicts"
        own = cursor(self.events[after.seq - 1]) if after.seq else self.start
        if (after.seq == 0 or after.seq >= self.floor) and after != own:
            return "contradicts"
        return "kept" if after.seq >= self.floor else "expired"

    def renewed(self, start: Cursor) -> None:
        self.start = start
        self.events = [
            replace(event, cursor=replace(cursor(event), epoch=start.epoch))
            for event in self.events
        ]


def run_actions(log: Subject, data: st.DataObject) -> None:
    """Do random actions with a log, and compare it with the model after each."""
    model = Model(log.head())
    actions = st.sampled_from(["append", "append", "trim", "renew", "stale renew", "delete"])
    for action in data.draw(st.lists(actions, max_size=8), "actions"):
        number = data.draw(st.integers(0, 6), "number")
        if action == "append":
            appended = log.append(*(f"e{n}" for n in range(number)))
            assert appended.previous == model.head
            model.events += appended.events
            model.known += map(cursor, appended.events)
            assert appended.kept == len(model.events) - model.floor
        elif action == "trim":
            removed = max(len(model.events) - model.floor - number, 0)
            assert log.trim(max_events=number) == removed
            model.floor += removed
        elif action == "renew":
            head = log.renew(model.start.epoch)
            model.renewed(beginning(head.epoch, log.topic))
            model.known += [head, model.start]
        elif action == "stale renew":
            assert log.renew("stale") == model.head
        else:
            head = log.delete()
            model = _after_delete(model, head)
        check(log, model, data)


def _after_delete(model: Model, head: Cursor) -> Model:
    fresh = Model(head)
    fresh.known = [*model.known, head]
    return fresh


def check(log: Subject, model: Model, data: st.DataObject) -> None:
    assert log.head() == model.head
    after = data.draw(st.sampled_from(model.known), "cursor")
    change = data.draw(st.sampled_from(["none", "none", "tag", "seq"]), "forgery")
    if change == "tag":
        after = replace(after, tag=after.tag ^ 1)
    elif change == "seq":
        after = replace(after, seq=after.seq + 1)
    limit = data.draw(st.integers(1, 8), "limit")
    verdict = model.verdict(after)
    if verdict == "kept":
        page = log.read(after, limit=limit)
        assert list(page.events) == model.events[after.seq : after.seq + limit]
        assert page.head == model.head
    else:
        assert log.expired(after).contradicts == (verdict == "contradicts")
    seq = max(len(model.events) - limit, model.floor)
    assert log.locate(last=limit) == (cursor(model.events[seq - 1]) if seq else model.start)
