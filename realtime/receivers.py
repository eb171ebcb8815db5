"""What this app hears of from Django's signals."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from django.core.signals import request_started

if TYPE_CHECKING:
    from django.http import HttpRequest

__all__ = ["began", "connect"]

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
    request_started.connect(_stamp, dispatch_uid="realtime.receivers.stamp")
