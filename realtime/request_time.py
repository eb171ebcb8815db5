"""Determine when a request began, by the store's clock.

A page can lack the events that were published after its request began, so it subscribes from that
time.
Events carry the store's time. The start of a request is read from this machine's monotonic clock,
which nobody can change. The offset between the two clocks is measured once a minute.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from django.core.signals import request_started
from django.db import connections

from realtime.stores import get_store
from realtime.stores.base import Store

if TYPE_CHECKING:
    from django.http import HttpRequest

__all__ = ["ameasure", "began", "connect", "store_time"]

logger = logging.getLogger("realtime")

MEASURE_SECONDS = 60.0  # between measurements; in that time, clocks drift by a few ms
UNKNOWN_SECONDS = 5.0  # subtracted if the store's clock is unknown; NTP keeps clocks closer
MARGIN_SECONDS = 1.0  # subtracted if it is known: an event's time is a few ms before its commit


@dataclass(frozen=True, slots=True)
class _Measured:
    """A measurement of the store's clock.

    Attributes:
        store: the store.
        time: the store's time in seconds since 1970; None if it was never read.
        at: ``time.monotonic()`` after it was read, so slightly later than ``time``.
        asked: ``time.monotonic()`` after the store was last asked. A call that failed is not
            retried before ``MEASURE_SECONDS`` have passed.
    """

    store: Store
    time: float | None
    at: float
    asked: float


_measured: _Measured | None = None
_lock = threading.Lock()


def store_time(monotonic: float) -> float:
    """Convert a monotonic time to the store's clock; the result is early, never late.

    It asks the store once a minute. It does not ask if an event loop runs in this thread, because
    the hub asks then, nor in a transaction on the store's database, which can hold a lock that
    the store needs.

    Args:
        monotonic: a value of ``time.monotonic()``.

    Returns:
        Seconds since 1970 by the store's clock: one second early, or five seconds if the store's
        clock is not known.
    """
    store = get_store()
    if _is_due(store) and _can_ask(store) and _lock.acquire(blocking=False):
        try:
            _measure(store)
        finally:
            _lock.release()
    measured = _measured
    if measured is None or measured.store is not store or measured.time is None:
        return time.time() - (time.monotonic() - monotonic) - UNKNOWN_SECONDS
    return measured.time + (monotonic - measured.at) - MARGIN_SECONDS


async def ameasure(store: Store) -> None:
    """Measure the store's clock if that is due; the hub calls this regularly."""
    if not _is_due(store):
        return
    try:
        now = await store.aclock()
    except Exception as error:  # store_time() works without it
        logger.debug("the store's clock could not be read: %s", error)
        _set_measured(store, None)
    else:
        _set_measured(store, now)


def _measure(store: Store) -> None:
    try:
        now = store.clock()
    except Exception as error:  # store_time() works without it
        logger.debug("the store's clock could not be read: %s", error)
        _set_measured(store, None)
    else:
        _set_measured(store, now)


def _set_measured(store: Store, now: float | None) -> None:
    global _measured
    asked = time.monotonic()
    if now is None and _measured is not None and _measured.store is store:
        _measured = replace(_measured, asked=asked)  # its time is still the best estimate
    else:
        _measured = _Measured(store, now, asked, asked)


def _is_due(store: Store) -> bool:
    measured = _measured
    if measured is None or measured.store is not store:
        return True
    return time.monotonic() - measured.asked > MEASURE_SECONDS


def _can_ask(store: Store) -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return store.alias is None or not connections[store.alias].in_atomic_block
    return False


KEY = "realtime.began"  # in the scope or environ of a request


def _stamp(
    sender: object,
    scope: dict[str, Any] | None = None,
    environ: dict[str, Any] | None = None,
    **kwargs: object,
) -> None:
    """Record when a request began; the signal needs no middleware and comes before any query."""
    request = scope if scope is not None else environ
    if request is not None:
        request[KEY] = time.monotonic()


def began(request: HttpRequest) -> float | None:
    """Return the ``time.monotonic()`` at which a request began.

    Return None for a request that did not come through a handler, such as ``RequestFactory``'s.
    """
    attributes = getattr(request, "scope", None) or getattr(request, "environ", None) or {}
    started: float | None = attributes.get(KEY)
    return started


def connect() -> None:
    """Connect to ``request_started``; the app's ``ready()`` calls this."""
    request_started.connect(_stamp, dispatch_uid="realtime.request_time.stamp")
