"""Who is there, and from which page: origins, users and tokens.

``make_token()`` is for the project; it is resolved at first use, like the names of ``realtime``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realtime.auth.tokens import make_token

__all__ = ["make_token"]


def __getattr__(name: str) -> Any:
    if name != "make_token":
        raise AttributeError(f"module 'realtime.auth' has no attribute {name!r}")
    from realtime.auth.tokens import make_token

    return make_token
