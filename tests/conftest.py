"""Fixtures for all tests."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from realtime import outbox, repeated_errors

pytest_plugins = ["tests.support.fixtures"]


@pytest.fixture(scope="session")
def django_db_modify_db_settings_xdist_suffix() -> None:
    """Keep the names of the databases: each worker has its own folder for them."""


@pytest.fixture(autouse=True)
def _errors_of_other_tests_do_not_count() -> Iterator[None]:
    """Log the first error of each kind in each test."""
    with patch.object(repeated_errors, "_periods", {}):
        yield


@pytest.fixture
def two_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relay only the outboxes of this project's databases, without those that other tests added."""
    monkeypatch.setattr(outbox, "_aliases", lambda: ["default", "other"])
