"""Who is there, and from which page: origins, users and tokens.

``make_token()`` and ``Identity`` are for the project; they are resolved at first use, like the
names of ``realtime``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realtime.auth.tokens import make_token
    from realtime.auth.users import Identity

__all__ = ["Identity", "make_token"]

_HOME = {"Identity": "users", "make_token": "tokens"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'realtime.auth' has no attribute {name!r}")
    return getattr(import_module(f"realtime.auth.{_HOME[name]}"), name)
