"""Authentication: origins, users and tokens.

``make_token()`` and ``Identity`` are public; they are imported at first use, like the names of
``realtime``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realtime.auth.tokens import make_token
    from realtime.auth.users import Identity

__all__ = ["Identity", "make_token"]

_MODULES = {"Identity": "users", "make_token": "tokens"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'realtime.auth' has no attribute {name!r}")
    return getattr(import_module(f"realtime.auth.{_MODULES[name]}"), name)
