"""Links: a link is one connection over one transport, which carries frames in both directions.

``WebSocketLink`` and ``StreamLink`` implement ``Link``; the connector opens and uses them.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ssl import SSLContext, create_default_context
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from realtime.client.token import Token, TokenSource, TokenUnavailable
from realtime.protocol.frames import HEARTBEAT_SECONDS, SILENCE_SECONDS, VERSION

__all__ = [
    "Address",
    "Frame",
    "Link",
    "LinkClosed",
    "OnFrame",
    "Silence",
    "closed_by_status",
    "decode",
]

Frame: TypeAlias = dict[str, Any]
OnFrame: TypeAlias = Callable[[Frame], None]

OPEN_SECONDS = 10.0  # timeout from opening a link to the first frame of the server
CLOSING_SECONDS = 5.0  # timeout from the ``closing`` frame to the close
GRACE_SECONDS = SILENCE_SECONDS - HEARTBEAT_SECONDS  # how late a heartbeat can be

DENIALS = {401: 4401, 403: 4403}  # HTTP statuses that deny access, and the equivalent close codes

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_COOKIE = re.compile(r"[\x21-\x3a\x3c-\x7e]*")  # no space and no semicolon


class LinkClosed(Exception):
    """A link was closed, or could not be opened.

    Attributes:
        code: a WebSocket close code; after 4400 to 4499, do not reconnect.
        reason: the reason, for logs and error messages.
        retry_after: the delay in seconds that the server asked for, with jitter; or None.
        blocked: True if something blocks this transport; another transport can still work.
        status: the HTTP status with which opening the link was refused, or None.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        *,
        retry_after: float | None = None,
        blocked: bool = False,
        status: int | None = None,
    ) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.retry_after = retry_after
        self.blocked = blocked
        self.status = status


def closed_by_status(
    status: int, url: str, headers: Mapping[str, str], explanation: str = ""
) -> LinkClosed:
    """Return the error for a link that was refused with an HTTP status.

    Args:
        status: the HTTP status.
        url: the URL that was requested.
        headers: the headers of the response.
        explanation: the error message of our own server. Empty if the response might come from a
            proxy: then the server has decided nothing, and another transport can still work.
    """
    reason = f"{url} answered with HTTP {status}" + (f": {explanation}" if explanation else "")
    if status in DENIALS:
        reason = f"{reason}; check the URL, and the token or the cookies"
        if explanation:
            return LinkClosed(DENIALS[status], reason, status=status)
    seconds = headers.get("Retry-After", "")
    after = None
    if seconds.isascii() and seconds.isdigit() and len(seconds) < 9:
        # All clients receive the same value; the jitter spreads their reconnects.
        after = int(seconds) * (1 + random.random())
    return LinkClosed(1006, reason, retry_after=after, blocked=True, status=status)


@dataclass(frozen=True)
class Address:
    """The URL of the app, and the headers, token and SSL context of each request.

    Attributes:
        url: the URL at which the app is mounted, such as ``https://shop.example/realtime/``.
        headers: the headers of each request without the token; they contain secrets and are left
            out of ``repr()``.
        token: sent with each request, in the header ``Authorization``.
        ssl: the SSL context, created once because loading the certificates is slow.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    token: Token = field(repr=False)
    ssl: SSLContext = field(repr=False)

    @classmethod
    def build(
        cls,
        url: str,
        token: TokenSource | None,
        headers: Mapping[str, str] | None,
        cookies: Mapping[str, str] | None,
        ssl: SSLContext | None,
    ) -> Address:
        """Check the arguments of a client and combine them.

        Raises:
            ValueError: an argument is not valid; the error says which one and why.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"the URL {parts.scheme}:… is not valid: use one such as https://host/realtime/"
            )
        if parts.query or parts.fragment or parts.username or parts.password:
            # The message does not quote the URL, which can contain a secret.
            raise ValueError(
                "the URL must not have a query, a fragment, a user or a password; pass a token as "
                "token="
            )
        if ssl is not None and parts.scheme != "https":
            raise ValueError("ssl= needs a URL that begins with https://")
        combined = dict(headers or {})
        names = {name.lower() for name in combined}
        for given, name in ((token, "authorization"), (cookies, "cookie")):
            if given is not None and name in names:
                raise ValueError(
                    f"the header {name} is given twice: remove it from headers=, or remove the "
                    "argument that sets it"
                )
        if cookies:
            if not all(map(_COOKIE.fullmatch, (*cookies, *cookies.values()))):
                raise ValueError(
                    "a cookie has a space, a semicolon or characters outside ASCII; quote it"
                )
            combined["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        for name, value in combined.items():
            if _CONTROL.search(name + value):
                raise ValueError(f"the header {name!r} has a control character; remove it")
        base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"
        return cls(base, combined, Token(token), ssl or create_default_context())

    async def authorization(self) -> dict[str, str]:
        """Return the header with the token; empty without a token.

        Raises:
            LinkClosed: the function that returns the token failed.
            ValueError: the function returned something that is not a token.
        """
        try:
            token = await self.token.get()
        except TokenUnavailable as error:
            raise LinkClosed(1006, str(error)) from error
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    @property
    def origin(self) -> str:
        """The origin of the URL: scheme, host and port."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def of(self, name: str) -> str:
        """Return the URL of an endpoint, such as ``ws``."""
        return f"{self.url}{name}?v={VERSION}"


def decode(text: str | bytes) -> Frame | None:
    """Parse a frame; return None for any other text, which clients ignore."""
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) and isinstance(frame.get("type"), str) else None


class Silence:
    """The timeout after which a silent connection counts as broken.

    Attributes:
        seconds: the timeout, counted from the last frame.
    """

    def __init__(self) -> None:
        self.seconds: float = SILENCE_SECONDS

    def update(self, frame: Frame) -> None:
        """Adjust the timeout to a frame: the ``welcome`` or a ``closing``."""
        if frame["type"] == "welcome" and isinstance(beat := frame.get("heartbeat"), int | float):
            self.seconds = max(1.0, beat) + GRACE_SECONDS
        elif frame["type"] == "closing":
            self.seconds = CLOSING_SECONDS


class Link(Protocol):
    """One connection over one transport; it cannot be reused.

    Call ``open()``, then ``run()``, and finally ``close()``, even if ``open()`` failed.
    The callback that is passed to ``open()`` receives the frames of the server.
    """

    @property
    def name(self) -> str:
        """The transport's name."""

    async def open(self, on_frame: OnFrame) -> None:
        """Connect and wait for the first frame of the server.

        Raises:
            LinkClosed: the link could not be opened.
            ValueError: the function that returns the token returned something else.
        """

    async def run(self) -> None:
        """Receive frames until the link is closed.

        Raises:
            LinkClosed: the link was closed. The method ends in no other way, except if cancelled.
        """

    def send(self, frame: Frame) -> None:
        """Queue a frame to be sent in order; it is dropped if the link is closed."""

    async def close(self) -> None:
        """Close the connection and stop all tasks."""
