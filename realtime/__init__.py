"""Push events from Django to connected clients: in order, each exactly once, without gaps.

The public names are imported on first use. So this package and ``realtime.asgi`` can be imported
before ``django.setup()``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from realtime.exceptions import PublishError, UnknownTopic
    from realtime.protocol.events import Cursor, Event
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
    "publish": "publishing",
    "publish_many": "publishing",
    "register": "topics",
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
    "publish",
    "publish_many",
    "register",
    "user_topic",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'realtime' has no attribute {name!r}")
    return getattr(importlib.import_module(f"realtime.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
