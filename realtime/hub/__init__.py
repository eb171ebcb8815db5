"""The hub of this process, which passes events from the channel layer to the connections."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from realtime.hub.hub import Hub

__all__ = ["Hub", "close_hub", "get_hub"]

_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def get_hub() -> Hub:
    """Return the hub of the running loop, started at the first call.

    A server process has one loop and so one hub; in tests, each test can have its own loop.
    """
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = Hub()
        hub.start()
    return hub


async def close_hub() -> None:
    """Close the hub of the running loop, if there is one: the process stops."""
    hub = _hubs.pop(asyncio.get_running_loop(), None)
    if hub is not None:
        await hub.close()
