"""Something that fails for a while: logged once when it begins and once when it is over.

A database or a channel layer that is away fails every caller many times a second; the log gets one
line, and the retries get slower.
"""

from __future__ import annotations

import logging

from realtime.exceptions import StoreError

__all__ = ["Outage"]

logger = logging.getLogger("realtime")


class Outage:
    """The failures of one operation, between its last success and its next.

    Args:
        begins: what to log at the first failure; ``%s`` stands for the error.
        ends: what to log at the next success, or "" for nothing.
        backoff: seconds to wait before the first retry, and at most; each wait is twice the one
            before.
        level: the level of the first line.
    """

    __slots__ = ("_backoff", "_begins", "_delay", "_ends", "_level", "is_on")

    def __init__(
        self,
        begins: str,
        ends: str = "",
        *,
        backoff: tuple[float, float] = (0.1, 5.0),
        level: int = logging.WARNING,
    ) -> None:
        self._begins = begins
        self._ends = ends
        self._backoff = backoff
        self._delay = backoff[0]
        self._level = level
        self.is_on = False

    def failed(self, error: BaseException) -> float:
        """Note a failure, log it if it is the first, and return the seconds until the next try."""
        if not self.is_on:
            # A store's error says all there is to know; any other one needs its traceback.
            unexpected = None if isinstance(error, StoreError) else error
            logger.log(self._level, self._begins, error, exc_info=unexpected)
        self.is_on = True
        delay, self._delay = self._delay, min(self._delay * 2, self._backoff[1])
        return delay

    def over(self) -> None:
        """Note a success; log it if the operation failed before."""
        if self.is_on:
            self.is_on = False
            self._delay = self._backoff[0]
            if self._ends:
                logger.warning(self._ends)
