"""What every error is."""

from __future__ import annotations

__all__ = ["RealtimeError", "shorten"]


def shorten(text: str, length: int = 80) -> str:
    """Return the text quoted and cut to a length that fits an error message."""
    return repr(text if len(text) <= length else text[: length - 1] + "…")


class RealtimeError(Exception):
    """Base of every error of this package."""
