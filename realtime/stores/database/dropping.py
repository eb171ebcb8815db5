"""Close this app's connections before Django drops or copies a test database.

PostgreSQL refuses both while a connection is open, and the threads of this app keep theirs.
Django has no signal for that moment, so two methods of its test databases are wrapped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db.backends.base.creation import BaseDatabaseCreation
from django.dispatch import Signal

__all__ = ["before_drop"]

# Receivers finish their work on ``alias`` and close its connections. Receivers are called in the
# order in which they were connected.
before_drop = Signal()


def _announced(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def announced(self: BaseDatabaseCreation, *args: Any, **kwargs: Any) -> Any:
        before_drop.send(BaseDatabaseCreation, alias=self.connection.alias)
        return method(self, *args, **kwargs)

    return announced


for _name in ("clone_test_db", "destroy_test_db"):
    setattr(BaseDatabaseCreation, _name, _announced(getattr(BaseDatabaseCreation, _name)))
