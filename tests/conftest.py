"""Fixtures for all tests."""

import pytest

from realtime import outbox

pytest_plugins = ["tests.support.fixtures"]


@pytest.fixture(scope="session")
def django_db_modify_db_settings_xdist_suffix() -> None:
    """Keep the names of the databases: each worker has its own folder for them."""


@pytest.fixture
def two_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relay only the outboxes of this project's databases, without those that other tests added."""
    monkeypatch.setattr(outbox, "_aliases", lambda: ["default", "other"])
