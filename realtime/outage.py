"""Outages: tell them from other errors, and log each once when it begins and once when it ends.

While a database or a channel layer is unreachable, many calls a second fail.
Only the first failure is logged, and each retry waits longer than the one before.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from django.db import DatabaseError, DataError, InterfaceError

from realtime.exceptions import StoreError

__all__ = ["Outage", "means_unavailable"]

_logger = logging.getLogger("realtime")


def means_unavailable(error: BaseException) -> bool:
    """Tell whether an error means that something could not be asked, instead of an answer.

    It is an error of a database, a store, Redis or the operating system, such as a timeout or a
    refused connection. A ``DataError`` is not: a value that no column can hold will stay so.
    """
    if isinstance(error, DatabaseError | InterfaceError | StoreError | OSError):
        return not isinstance(error, DataError)
    with suppress(ImportError):
        from redis import RedisError

        return isinstance(error, RedisError)
    return False


class Outage:
    """The failures of one operation since its last success.

    Args:
        begins: the message logged at the first failure; ``%s`` stands for the error.
        ends: the message logged at the next success; "" logs nothing.
        backoff: the first and the longest delay before a retry, in seconds; each delay is twice the
            one before.
        level: the log level of ``begins``.
        ends_level: the log level of ``ends``.
        expected: the type of errors that need no traceback; other errors are logged with one.
        logger: where to log; by default ``realtime``.

    Attributes:
        failures: the number of failures since the last success.
    """

    __slots__ = (
        "_backoff",
        "_begins",
        "_delay",
        "_ends",
        "_ends_level",
        "_expected",
        "_level",
        "_logger",
        "failures",
    )

    def __init__(
        self,
        begins: str,
        ends: str = "",
        *,
        backoff: tuple[float, float] = (0.1, 5.0),
        level: int = logging.WARNING,
        ends_level: int = logging.WARNING,
        expected: type[BaseException] = StoreError,
        logger: logging.Logger = _logger,
    ) -> None:
        self._begins = begins
        self._ends = ends
        self._backoff = backoff
        self._delay = backoff[0]
        self._level = level
        self._ends_level = ends_level
        self._expected = expected
        self._logger = logger
        self.failures = 0

    @property
    def is_on(self) -> bool:
        """Whether the operation has failed since its last success."""
        return self.failures > 0

    def failed(self, error: BaseException) -> float:
        """Record a failure, log the first one, and return the seconds to wait before a retry."""
        if not self.failures:
            unexpected = None if isinstance(error, self._expected) else error
            self._logger.log(self._level, self._begins, error, exc_info=unexpected)
        self.failures += 1
        delay, self._delay = self._delay, min(self._delay * 2, self._backoff[1])
        return delay

    def over(self) -> None:
        """Record a success; log it if it ends an outage."""
        if self.failures:
            self.failures = 0
            self._delay = self._backoff[0]
            if self._ends:
                self._logger.log(self._ends_level, self._ends)
