"""What every test may ask for."""

import pytest

from realtime import outbox

pytest_plugins = ["tests.support.fixtures"]


@pytest.fixture
def two_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep the outboxes of this project's own databases, not of those that other tests added."""
    monkeypatch.setattr(outbox, "_aliases", lambda: ["default", "other"])
