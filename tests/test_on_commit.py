"""Calls of one savepoint share one on_commit() callback."""

from collections.abc import Callable

import pytest
from django.db import connection, transaction
from django.db.transaction import TransactionManagementError
from django.test import TestCase

from realtime.on_commit import CommitHook, on_commit_once

runs: list[list[str]] = []


class Record(CommitHook[str]):
    """Records what each run received."""

    def run(self) -> None:
        runs.append(list(self.items))
        if "bad" in self.items:
            raise ValueError("bad")


class Another(Record):
    """Another class, whose hooks are never joined with those of Record."""

    def run(self) -> None:
        runs.append([f"another {item}" for item in self.items])


class Rollback(Exception):
    pass


@pytest.fixture(autouse=True)
def no_runs() -> None:
    runs.clear()


def add(item: str, kind: type[CommitHook[str]] = Record, keys: str = "") -> None:
    on_commit_once(kind, [item], using="default", keys=keys)


def note(text: str) -> Callable[[], None]:
    return lambda: runs.append([text])


@pytest.mark.django_db(transaction=True)
class TestInATransaction:
    def test_calls_in_a_row_share_a_hook(self) -> None:
        with transaction.atomic():
            for item in "abc":
                add(item)
            assert len(connection.run_on_commit) == 1
            assert runs == []
        assert runs == [["a", "b", "c"]]

    def test_another_callback_in_between_separates_them(self) -> None:
        with transaction.atomic():
            add("a")
            transaction.on_commit(note("callback"))
            add("b")
            add("c", Another)
            add("d")
        assert runs == [["a"], ["callback"], ["b"], ["another c"], ["d"]]

    def test_each_savepoint_has_its_own_hook_which_a_rollback_removes(self) -> None:
        with transaction.atomic():
            add("a")
            with transaction.atomic():
                add("b")
            with pytest.raises(Rollback), transaction.atomic():
                add("c")
                add("d")
                raise Rollback
            add("e")
        assert runs == [["a"], ["b"], ["e"]]

    def test_items_with_a_common_key_run_before_later_callbacks(self) -> None:
        with transaction.atomic():
            add("a", keys="x")
            transaction.on_commit(note("callback"))
            add("b", keys="y")
            add("c", keys="x")
            with transaction.atomic():
                add("d", keys="xz")
            add("e", keys="z")
        assert runs == [["a", "c"], ["d"], ["e"], ["callback"], ["b"]]

    def test_an_error_is_logged_and_the_next_callback_runs(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with transaction.atomic():
            add("bad")
            transaction.on_commit(note("callback"))
        assert runs == [["bad"], ["callback"]]
        assert caplog.messages == ["Record failed after a commit"]

    def test_an_item_that_a_hook_adds_is_processed_at_once(self) -> None:
        class Again(CommitHook[str]):
            def run(self) -> None:
                add("later")
                runs.append(list(self.items))

        with transaction.atomic():
            add("now", Again)
        assert runs == [["later"], ["now"]]


@pytest.mark.django_db(transaction=True)
class TestOutsideATransaction:
    def test_a_hook_runs_at_once(self) -> None:
        add("a")
        add("b")
        assert runs == [["a"], ["b"]]

    def test_a_hook_is_refused_while_autocommit_is_off(self) -> None:
        transaction.set_autocommit(False)
        try:
            with pytest.raises(TransactionManagementError):
                add("a")
        finally:
            transaction.set_autocommit(True)


class TestInsideATestCase(TestCase):
    def test_nothing_is_added_to_a_hook_that_has_run(self) -> None:
        for item in "ab":
            with self.captureOnCommitCallbacks(execute=True):
                add(item)
        assert runs == [["a"], ["b"]]

    def test_a_hook_runs_once(self) -> None:
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            add("a")
        callbacks[0]()
        assert runs == [["a"]]
