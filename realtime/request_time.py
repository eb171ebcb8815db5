"""When something happened on the store's clock, as far as this process knows.

A page is rendered from what the database held after its request had begun; events from that moment
on are what it may lack.
Events carry the store's time, a request the reading of this machine's monotonic clock, which nobody
sets; how the two relate is measured once a minute.
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

__all__ = ["ameasure", "began", "connect", "moment_of"]

logger = logging.getLogger("realtime")

MEASURE_SECONDS = 60.0  # after which a clock may have been set; drift is some ms a minute
UNKNOWN_SECONDS = 5.0  # taken off where the store's clock could not be asked: NTP keeps closer
MARGIN_SECONDS = 1.0  # taken off besides: an event has its time before its commit, by some ms


@dataclass(frozen=True, slots=True)
class _Measured:
    """What the store's clock said.

    Attributes:
        store: whose clock.
        time: seconds since 1970; None after a failed try, which is not repeated at once either.
        at: when it had said so, on ``time.monotonic()``: a little later than it was so.
    """

    store: Store
    time: float | None
    at: float


_measured: _Measured | None = None
_lock = threading.Lock()


def moment_of(moment: float) -> float:
    """Return a time by the store's clock that is not after a moment of this machine.

    Asks the store once a minute, unless an event loop runs in this thread, where the hub does that,
    or the thread is in a transaction, which may hold the lock that the store would wait for.

    Args:
        moment: on ``time.monotonic()``.

    Returns:
        Seconds since 1970 by the store's clock: a second early, and five where it is not known.
    """
    store = get_store()
    if _is_due(store) and _may_ask(store) and _lock.acquire(blocking=False):
        try:
            _measure(store)
        finally:
            _lock.release()
    measured = _measured
    if measured is None or measured.store is not store or measured.time is None:
        return time.time() - (time.monotonic() - moment) - UNKNOWN_SECONDS
    return measured.time + (moment - measured.at) - MARGIN_SECONDS


async def ameasure(store: Store) -> None:
    """Ask the store, if that is due; for the hub, once in a while."""
    if not _is_due(store):
        return
    try:
        theirs = await store.aclock()
    except Exception as error:  # a page can do without
        logger.debug("the store's clock could not be read: %s", error)
        _note(store, None)
    else:
        _note(store, theirs)


def _measure(store: Store) -> None:
    try:
        theirs = store.clock()
    except Exception as error:  # a page can do without
        logger.debug("the store's clock could not be read: %s", error)
        _note(store, None)
    else:
        _note(store, theirs)


def _note(store: Store, theirs: float | None) -> None:
    global _measured
    if theirs is not None or _measured is None or _measured.store is not store:
        _measured = _Measured(store, theirs, time.monotonic())


def _is_due(store: Store) -> bool:
    measured = _measured
    if measured is None or measured.store is not store:
        return True
    return time.monotonic() - measured.at > MEASURE_SECONDS


def _may_ask(store: Store) -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return store.alias is None or not connections[store.alias].in_atomic_block
    return False


KEY = "realtime.began"


def _stamp(
    sender: object,
    scope: dict[str, Any] | None = None,
    environ: dict[str, Any] | None = None,
    **kwargs: object,
) -> None:
    """Note when a request began: before any of its queries, and without a middleware."""
    request = scope if scope is not None else environ
    if request is not None:
        request[KEY] = time.monotonic()


def began(request: HttpRequest) -> float | None:
    """Return when a request began, on ``time.monotonic()``; None if no handler has started it."""
    carrier = getattr(request, "scope", None) or getattr(request, "environ", None) or {}
    moment: float | None = carrier.get(KEY)
    return moment


def connect() -> None:
    """Begin to listen; the app does it when it is ready."""
    request_started.connect(_stamp, dispatch_uid="realtime.request_time.stamp")
