"""What every test may ask for."""

import pytest

from realtime import outbox

pytest_plugins = ["tests.support.fixtures"]


@pytest.fixture(scope="session")
def django_db_modify_db_settings_xdist_suffix() -> None:
    """Leave the names of the databases: each worker has a folder of its own for them."""


@pytest.fixture
def two_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep the outboxes of this project's own databases, not of those that other tests added."""
    monkeypatch.setattr(outbox, "_aliases", lambda: ["default", "other"])
