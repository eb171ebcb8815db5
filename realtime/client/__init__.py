"""The Python client: ``async for event in client.subscribe("orders.42")``.

It needs neither Django nor settings; from ``realtime`` it imports only the protocol and the errors.
See ``docs/python-client.md``.
"""

from __future__ import annotations

from realtime.import_name import check_files

try:
    import httpx
    import websockets
except ImportError as error:
    raise ImportError(
        f"realtime.client needs {error.name}: pip install 'django-channels-realtime[client]'"
    ) from error
else:
    check_files()
    del httpx, websockets

from realtime.client.client import Client
from realtime.client.subscription import Subscription
from realtime.exceptions import AnswerLost, CommandRefused, ConnectionEnded, EventsLost
from realtime.protocol.events import Cursor, Event, Member

__all__ = [
    "AnswerLost",
    "Client",
    "CommandRefused",
    "ConnectionEnded",
    "Cursor",
    "Event",
    "EventsLost",
    "Member",
    "Subscription",
]
