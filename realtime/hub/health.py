"""Whether the channel layer works: said when that changes, not for every topic and every try."""

from __future__ import annotations

import logging
import sys

from realtime.exceptions import StoreError

__all__ = ["LayerOutage"]

logger = logging.getLogger("realtime")


class LayerOutage:
    """Which parts of the layer's work fail now."""

    def __init__(self) -> None:
        self._failing: set[str] = set()

    def failed(self, part: str) -> None:
        """Log the exception that is being handled, once until the part works again."""
        error = sys.exception()
        if part not in self._failing:
            text = "the channel layer fails; events arrive late until it is back: %s"
            # What a store says of itself needs no traceback.
            logger.error(text, error, exc_info=not isinstance(error, StoreError))
        self._failing.add(part)

    def works(self, part: str) -> None:
        """Say so if the part failed before."""
        if part in self._failing:
            logger.warning("the channel layer is back")
        self._failing.discard(part)
