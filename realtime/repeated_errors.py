"""Log an error that many clients can cause at most once a minute, and count the rest.

A client that repeats a command would otherwise fill the disk: a traceback has some kilobytes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field

__all__ = ["log_error"]

_logger = logging.getLogger("realtime")

PERIOD_SECONDS = 60.0
MAX_KEYS = 1_000  # kinds of errors that are counted; the oldest is forgotten


@dataclass(slots=True)
class _Period:
    """The errors of one kind since the one that was logged."""

    what: str
    began: float = field(default_factory=time.monotonic)
    more: int = 0


_periods: dict[tuple[Hashable, type[BaseException]], _Period] = {}
_lock = threading.Lock()  # guards _periods


def log_error(where: Hashable, error: BaseException, message: str, *args: object) -> None:
    """Log an error with its traceback, unless one of its kind was logged within a minute.

    After the minute, one line tells how many more there were. Thread-safe.

    Args:
        where: what failed; together with the error's type it is the kind of the error.
        error: the error.
        message: the message, with ``%s`` for each of the arguments.
        args: the arguments of the message.
    """
    key = where, type(error)
    now = time.monotonic()
    with _lock:
        period = _periods.get(key)
        if period is not None and now - period.began < PERIOD_SECONDS:
            period.more += 1
            return
        _periods.pop(key, None)
        _periods[key] = new = _Period(message % args)
        if len(_periods) > MAX_KEYS:
            del _periods[next(iter(_periods))]
    if period is not None:
        _log_count(period, type(error))
    _logger.error(message, *args, exc_info=error)
    with suppress(RuntimeError):  # without an event loop, the next error logs the count
        loop = asyncio.get_running_loop()
        loop.call_later(PERIOD_SECONDS, _end, key, new)


def _end(key: tuple[Hashable, type[BaseException]], period: _Period) -> None:
    with _lock:
        if _periods.get(key) is period:
            del _periods[key]
    _log_count(period, key[1])


def _log_count(period: _Period, kind: type[BaseException]) -> None:
    if period.more:
        count, period.more = period.more, 0
        _logger.error("%s: %d more times with %s", period.what, count, kind.__name__)
