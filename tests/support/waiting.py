"""Wait for a condition with a deadline: the only place in the tests that sleeps."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

SCALE = float(os.environ.get("REALTIME_TEST_TIMEOUT_SCALE", "1"))  # for slow machines
POLL_SECONDS = 0.01


def wait_until(condition: Callable[[], T], what: str, timeout: float = 10.0) -> T:
    """Return the first true value of the condition, asked until the deadline.

    Args:
        condition: called again and again; must not block long.
        what: completes "waited in vain until ...".
        timeout: seconds, before scaling.
    """
    deadline = time.monotonic() + timeout * SCALE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain until {what} ({timeout * SCALE:g} s)")
        time.sleep(POLL_SECONDS)
    return value


async def await_until(
    condition: Callable[[], T | Awaitable[T]], what: str, timeout: float = 10.0
) -> T:
    """Do the same without blocking the event loop; the condition may be async."""
    deadline = time.monotonic() + timeout * SCALE
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain until {what} ({timeout * SCALE:g} s)")
        await asyncio.sleep(POLL_SECONDS)
