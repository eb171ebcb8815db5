"""Tests that use the database from several threads; one class for each process in parallel."""

from django.test import TestCase, TransactionTestCase


class ReadingTests(TestCase):
    def test_a_view_that_reads(self) -> None:
        assert self.client.get("/read/").json() == {"head": 0, "events": 0, "members": 0}


class UserCodeTests(TestCase):
    def test_code_that_runs_for_a_client(self) -> None:
        assert self.client.get("/ask/").json() == {"users": 0}


class WritingTests(TestCase):
    def test_a_view_that_publishes(self) -> None:
        assert self.client.get("/write/").status_code == 200


class CommittingTests(TransactionTestCase):
    def test_a_view_that_publishes_and_commits(self) -> None:
        assert self.client.get("/write/").status_code == 200
        assert self.client.get("/read/").json() == {"head": 1, "events": 1, "members": 0}
