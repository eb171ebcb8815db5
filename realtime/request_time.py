"""When a request began, by the store's clock.

A page can lack the events that were published after its request began, so it subscribes from that
time on.
Events carry the store's time. The start of a request is read from this machine's monotonic clock,
which cannot be set. The offset between the two clocks is measured once a minute.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.signals import request_started
from django.db import connections

from realtime.stores import get_store
from realtime.stores.base import Store

if TYPE_CHECKING:
    from django.http import HttpRequest

__all__ = ["ameasure", "began", "connect", "store_time"]

logger = logging.getLogger("realtime")

MEASURE_SECONDS = 60.0  # between measurements; clocks drift a few ms in that time, or are set
UNKNOWN_SECONDS = 5.0  # subtracted if the store's clock is unknown; NTP keeps clocks closer
MARGIN_SECONDS = 1.0  # subtracted otherwise: an event's time is a few ms before its commit


@dataclass(frozen=True, slots=True)
class _Measured:
    """A measurement of the store's clock.

    Attributes:
        store: the store.
        time: its time in seconds since 1970; None if the call failed, which is not retried before
            ``MEASURE_SECONDS`` have passed.
        at: ``time.monotonic()`` after the call returned, which is slightly later than ``time``.
    """

    store: Store
    time: float | None
    at: float


_measured: _Measured | None = None
_lock = threading.Lock()


def store_time(moment: float) -> float:
    """Convert a time of this machine to the store's clock; the result is never too late.

    Asks the store once a minute. It does not ask if an event loop runs in this thread (the hub asks
    then), or if the thread is in a transaction that can hold the lock which the store needs.

    Args:
        moment: a value of ``time.monotonic()``.

    Returns:
        Seconds since 1970 by the store's clock: one second early, or five if the store's clock is
        not known.
    """
    store = get_store()
    if _is_due(store) and _can_ask(store) and _lock.acquire(blocking=False):
        try:
            _measure(store)
        finally:
            _lock.release()
    measured = _measured
    if measured is None or measured.store is not store or measured.time is None:
        return time.time() - (time.monotonic() - moment) - UNKNOWN_SECONDS
    return measured.time + (moment - measured.at) - MARGIN_SECONDS


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
    if now is not None or _measured is None or _measured.store is not store:
        _measured = _Measured(store, now, time.monotonic())


def _is_due(store: Store) -> bool:
    measured = _measured
    if measured is None or measured.store is not store:
        return True
    return time.monotonic() - measured.at > MEASURE_SECONDS


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
    """Store the time at which a request began: before any of its queries, without a middleware."""
    request = scope if scope is not None else environ
    if request is not None:
        request[KEY] = time.monotonic()


def began(request: HttpRequest) -> float | None:
    """Return the ``time.monotonic()`` at which a request began; None if no handler received it."""
    attributes = getattr(request, "scope", None) or getattr(request, "environ", None) or {}
    moment: float | None = attributes.get(KEY)
    return moment


def connect() -> None:
    """Connect to the signal of a request's start; the app calls this when it is ready."""
    request_started.connect(_stamp, dispatch_uid="realtime.request_time.stamp")
