"""Tools for the tests of a project: capture published events, and a client without a server.

::

    from realtime.testing import RealtimeClient, capture_events

    class ShipTests(TestCase):
        def test_customer_hears_of_it(self):
            with capture_events() as events, RealtimeClient(self.customer) as browser:
                browser.subscribe("orders.42")
                self.client.post("/orders/42/ship/")
                events.assert_published("orders.42", "shipped")
                self.assertEqual(browser.receive_event().name, "shipped")

Inside the ``with`` block, events are stored in memory; the project's own store and channel layer
are not used. The rest of the project runs as usual, and no other thread uses the database.
For pytest, there are the fixtures ``realtime_events`` and ``realtime_connect``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realtime.testing.capture import CapturedEvents, capture_events
    from realtime.testing.client import RealtimeClient

_MODULES = {
    "CapturedEvents": "capture",
    "RealtimeClient": "client",
    "capture_events": "capture",
}

__all__ = ["CapturedEvents", "RealtimeClient", "capture_events"]


# pytest imports this package before Django is configured, so the names are imported on first use.
def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'realtime.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(f"realtime.testing.{_MODULES[name]}"), name)
