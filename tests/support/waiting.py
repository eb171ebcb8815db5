"""Wait for a condition with a deadline; no other module of the tests sleeps."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

SCALE = float(os.environ.get("REALTIME_TEST_TIMEOUT_SCALE", "1"))  # for slow machines
POLL_SECONDS = 0.01


def wait_until(condition: Callable[[], T], what: str, timeout: float = 10.0) -> T:
    """Call a condition until it is true, and return its value.

    Args:
        condition: called every `POLL_SECONDS`; it must not block for long.
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
    """Async version of `wait_until()`; the condition can be async too."""
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
