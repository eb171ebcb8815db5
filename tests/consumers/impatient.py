"""The test project, with less patience for incomplete messages and slow identification."""

import asyncio
from contextlib import suppress
from typing import Any

from django.conf import settings

from realtime.writers import daphne
from tests.asgi import application

__all__ = ["application", "authenticate"]

daphne.MESSAGE_SECONDS = 1.0
settings.REALTIME = {"AUTHENTICATE": f"{__name__}.authenticate"}


async def authenticate(scope: Any, token: str | None) -> None:
    """Find nobody, slowly if the client's token asks for it."""
    if token == "slow":
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 1.0)
