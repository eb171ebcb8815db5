"""Push events from Django to connected clients: in order, each exactly once, without gaps.

The public names are imported on first use. So this package and ``realtime.asgi`` can be imported
before ``django.setup()``.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from realtime.exceptions import PublishError, UnknownTopic
    from realtime.protocol.events import Cursor, Event
    from realtime.protocol.names import escape_key, unescape_key
    from realtime.publishing import apublish, apublish_many, publish, publish_many
    from realtime.topics import Topic, action, register, user_topic

_MODULES = {
    "Cursor": "protocol.events",
    "Event": "protocol.events",
    "PublishError": "exceptions",
    "Topic": "topics",
    "UnknownTopic": "exceptions",
    "action": "topics",
    "apublish": "publishing",
    "apublish_many": "publishing",
    "escape_key": "protocol.names",
    "publish": "publishing",
    "publish_many": "publishing",
    "register": "topics",
    "unescape_key": "protocol.names",
    "user_topic": "topics",
}

__all__ = [
    "Cursor",
    "Event",
    "PublishError",
    "Topic",
    "UnknownTopic",
    "action",
    "apublish",
    "apublish_many",
    "escape_key",
    "publish",
    "publish_many",
    "register",
    "unescape_key",
    "user_topic",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        # `from realtime import conf` asks here before it imports the submodule.
        if not name.startswith("__") and find_spec(f"realtime.{name}") is None:
            _refuse_name_of_other_package(name)
        raise AttributeError(f"module 'realtime' has no attribute {name!r}")
    return getattr(importlib.import_module(f"realtime.{_MODULES[name]}"), name)


def _refuse_name_of_other_package(name: str) -> None:
    """Raise if another distribution has this import name, because the name is probably its own.

    It is an ``ImportError``: ``from realtime import name`` would drop the text of another error.
    """
    from realtime.import_name import find_others, remedy

    if others := find_others():
        raise ImportError(
            f"django-channels-realtime has no {name!r}. Another distribution has the same import "
            f"name, and its files were overwritten: {' and '.join(others)}. {remedy()}",
            name="realtime",
        )


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
