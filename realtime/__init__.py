"""Push events from Django to connected clients: in order, each once, with no hole.

The public names are imported on first use. So this package can be imported before
``django.setup()``, and ``realtime.asgi`` in any order.
"""

from __future__ import annotations

import importlib
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
    try:
        module = importlib.import_module(f"realtime.{_MODULES[name]}")
    except KeyError:
        raise AttributeError(f"module 'realtime' has no attribute {name!r}") from None
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
