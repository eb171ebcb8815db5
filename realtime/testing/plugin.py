"""Fixtures for pytest, which finds them by itself where this package is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from realtime.testing import CapturedEvents, RealtimeClient

__all__ = ["realtime_connect", "realtime_events"]


@pytest.fixture
def realtime_events() -> Iterator[CapturedEvents]:
    """What the test publishes: ``capture_events()`` around it."""
    from realtime.testing import capture_events

    with capture_events() as events:
        yield events


@pytest.fixture
def realtime_connect(
    realtime_events: CapturedEvents,
) -> Iterator[Callable[..., RealtimeClient]]:
    """Connect clients that are disconnected after the test: ``realtime_connect(user)``.

    It takes what ``RealtimeClient`` takes, and is for synchronous tests; a coroutine writes
    ``async with RealtimeClient(user)``.
    """
    from realtime.testing import RealtimeClient

    with ExitStack() as clients:

        def connect(user: Any = None, **options: Any) -> RealtimeClient:
            return clients.enter_context(RealtimeClient(user, **options))

        yield connect
