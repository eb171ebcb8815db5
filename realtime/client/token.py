"""The token of a client, which a function can renew."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

__all__ = ["Token", "TokenSource", "TokenUnavailable"]

TokenSource: TypeAlias = str | Callable[[], str | Awaitable[str]]

FUNCTION_SECONDS = 10.0  # timeout for the function; as long as for opening a link

_TOKEN = re.compile(r"[\x21-\x7e]+")

logger = logging.getLogger("realtime.client")


class TokenUnavailable(Exception):
    """The function that returns the token has failed; the next attempt calls it again."""


class Token:
    """The token of a client, if it has one; it belongs to one event loop.

    Args:
        source: the token, or a function or coroutine function that returns it. The function is
            called when the client connects, and again after the server has refused the token; a
            function that is not a coroutine function runs in a thread.

    Raises:
        ValueError: the token is not valid.
    """

    def __init__(self, source: TokenSource | None) -> None:
        self._source = source
        self._text = None if source is None or callable(source) else _checked(source)
        self._is_renewed = False  # whether a new token was requested since one was accepted
        self._lock = asyncio.Lock()  # the function runs once for all who wait for its token

    async def get(self) -> str | None:
        """Return the token, or None if the client has none.

        Raises:
            TokenUnavailable: the function failed, or did not return in time.
            ValueError: the function returned something that is not a token.
        """
        async with self._lock:
            if self._text is None and callable(self._source):
                self._text = _checked(await _call(self._source))
            return self._text

    def accepted(self) -> None:
        """Record that the server accepted the token."""
        self._is_renewed = False

    @property
    def is_renewable(self) -> bool:
        """Whether there can be another token."""
        return callable(self._source)

    def refused(self) -> bool:
        """Record that the server refused the token; return whether to try again with a new one."""
        if not self.is_renewable or self._is_renewed:
            return False
        self._is_renewed, self._text = True, None
        return True


async def _call(function: Callable[[], Any]) -> object:
    try:
        async with asyncio.timeout(FUNCTION_SECONDS):
            if inspect.iscoroutinefunction(function):
                return await function()
            returned = await asyncio.to_thread(function)
            return await returned if inspect.isawaitable(returned) else returned
    except Exception as error:
        logger.warning("the function that returns the token failed", exc_info=True)
        raise TokenUnavailable(f"the function that returns the token failed: {error!r}") from error


def _checked(text: object) -> str:
    # The message does not quote the text, which can be a secret.
    if not isinstance(text, str):
        raise ValueError(f"the token is {type(text).__name__}, not text")
    if not _TOKEN.fullmatch(text):
        raise ValueError("the token is empty or has characters other than visible ASCII characters")
    return text
