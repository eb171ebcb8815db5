"""How long to wait before trying again."""

from __future__ import annotations

import random

__all__ = ["Backoff"]

FIRST_SECONDS = 0.5  # a server that restarts quickly is found again quickly
LAST_SECONDS = 20.0  # a herd of thousands then comes back at a rate that a server can bear


class Backoff:
    """Delays with full jitter: anywhere between zero and a bound that doubles up to 20 seconds."""

    def __init__(self) -> None:
        self._bound = FIRST_SECONDS

    def next(self) -> float:
        """Return the next delay in seconds."""
        bound = self._bound
        self._bound = min(LAST_SECONDS, bound * 2)
        return random.random() * bound

    def reset(self) -> None:
        """Begin with the shortest bound again."""
        self._bound = FIRST_SECONDS
