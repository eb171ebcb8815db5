"""Fixtures for pytest, which are available wherever this package is installed."""

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
    """The events that the test publishes, captured with ``capture_events()``."""
    from realtime.testing import capture_events

    with capture_events() as events:
        yield events


@pytest.fixture
def realtime_connect(
    realtime_events: CapturedEvents,
) -> Iterator[Callable[..., RealtimeClient]]:
    """A function that connects a client until the end of the test: ``realtime_connect(user)``.

    It takes the arguments of ``RealtimeClient`` and works in synchronous tests only; in a
    coroutine, write ``async with RealtimeClient(user)``.
    """
    from realtime.testing import RealtimeClient

    with ExitStack() as clients:

        def connect(user: Any = None, **options: Any) -> RealtimeClient:
            return clients.enter_context(RealtimeClient(user, **options))

        yield connect
