"""What every transport of the client is: a link, which carries frames of the wire protocol."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ssl import SSLContext, create_default_context
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from realtime.protocol.frames import HEARTBEAT_SECONDS, SILENCE_SECONDS, VERSION

__all__ = ["Address", "Frame", "Hear", "Link", "LinkClosed", "Silence", "decode", "refused"]

Frame: TypeAlias = dict[str, Any]
Hear: TypeAlias = Callable[[Frame], None]

OPEN_SECONDS = 10.0  # from the attempt until the server has said something
CLOSING_SECONDS = 5.0  # from the announcement of a close to the close
GRACE_SECONDS = SILENCE_SECONDS - HEARTBEAT_SECONDS  # that a heartbeat may be late

DENIALS = {401: 4401, 403: 4403}  # close codes of statuses that refuse somebody

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_COOKIE = re.compile(r"[\x21-\x3a\x3c-\x7e]*")  # no space and no semicolon


class LinkClosed(Exception):
    """A link came to its end, or could not be opened.

    Attributes:
        code: a WebSocket close code; 4400 to 4499 say not to come back.
        reason: for people.
        retry_after: seconds that the server asked for, or None.
        blocked: this transport does not get through; another one may.
        status: the HTTP status that refused it, or None.
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


def refused(status: int, url: str, headers: Mapping[str, str], said: str = "") -> LinkClosed:
    """Return what an HTTP status other than success means for a link.

    Args:
        status: the status.
        url: what was asked.
        headers: of the answer.
        said: what our server says about it; empty if the answer may be somebody else's, such as a
            proxy's, which does not speak for the server: another transport may get through.
    """
    reason = f"{url} answered with HTTP {status}" + (f": {said}" if said else "")
    if status in DENIALS:
        reason = f"{reason}; check the URL, and the token or the cookies"
        if said:
            return LinkClosed(DENIALS[status], reason, status=status)
    seconds = headers.get("Retry-After", "")
    after = None
    if seconds.isascii() and seconds.isdigit() and len(seconds) < 9:
        after = int(seconds) * (1 + random.random())  # the same for all clients, who must not herd
    return LinkClosed(1006, reason, retry_after=after, blocked=True, status=status)


@dataclass(frozen=True)
class Address:
    """Where the app is mounted, and what each request there carries.

    Attributes:
        url: such as ``https://shop.example/realtime/``.
        headers: of each request; they hold secrets and stay out of ``repr``.
        ssl: whose certificates are believed; made once, since reading them takes a while.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    ssl: SSLContext = field(repr=False)

    @classmethod
    def build(
        cls,
        url: str,
        token: str | None,
        headers: Mapping[str, str] | None,
        cookies: Mapping[str, str] | None,
        ssl: SSLContext | None,
    ) -> Address:
        """Check what somebody gave and put it together.

        Raises:
            ValueError: one of them cannot be used; the text says which and why.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the URL {parts.scheme}:… is none such as https://host/realtime/")
        if parts.query or parts.fragment or parts.username or parts.password:
            # The URL itself is not in the text: it may hold a secret.
            raise ValueError("the URL must end with its path; a token is given apart from it")
        if ssl is not None and parts.scheme != "https":
            raise ValueError("ssl= is for a URL that begins with https://")
        ours = dict(headers or {})
        names = {name.lower() for name in ours}
        for given, name in ((token, "authorization"), (cookies, "cookie")):
            if given is not None and name in names:
                raise ValueError(f"{name} is given twice: once in headers")
        if token is not None:
            if not _TOKEN.fullmatch(token):
                raise ValueError("the token is empty or has spaces or other than ASCII characters")
            ours["Authorization"] = f"Bearer {token}"
        if cookies:
            if not all(map(_COOKIE.fullmatch, (*cookies, *cookies.values()))):
                raise ValueError("a cookie has a space, a semicolon or other than ASCII characters")
            ours["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        for name, value in ours.items():
            if _CONTROL.search(name + value):
                raise ValueError(f"the header {name!r} has a control character")
        base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"
        return cls(base, ours, ssl or create_default_context())

    @property
    def origin(self) -> str:
        """The site: its scheme, host and port."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def of(self, name: str) -> str:
        """Return the URL of a transport."""
        return f"{self.url}{name}?v={VERSION}"


def decode(text: str | bytes) -> Frame | None:
    """Return the frame of a text; None for what is none, which clients ignore."""
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) and isinstance(frame.get("type"), str) else None


class Silence:
    """How long nothing may be heard.

    Attributes:
        seconds: without a frame, after which the connection counts as lost.
    """

    def __init__(self) -> None:
        self.seconds: float = SILENCE_SECONDS

    def heed(self, frame: Frame) -> None:
        """Take what a frame says about it."""
        if frame["type"] == "welcome" and isinstance(beat := frame.get("heartbeat"), int | float):
            self.seconds = max(1.0, beat) + GRACE_SECONDS
        elif frame["type"] == "closing":
            self.seconds = CLOSING_SECONDS


class Link(Protocol):
    """One connection over one transport; used once.

    ``open()``, then ``run()``; ``close()`` comes last, also after a failed ``open()``.
    What the server says comes as frames to what ``open()`` was given.
    """

    @property
    def name(self) -> str:
        """The transport's name."""

    async def open(self, hear: Hear) -> None:
        """Connect; when it returns, the server has answered.

        Raises:
            LinkClosed: it could not.
        """

    async def run(self) -> None:
        """Carry frames until the end.

        Raises:
            LinkClosed: always, unless it is cancelled.
        """

    def send(self, frame: Frame) -> None:
        """Send a frame, as soon as possible and in order; what comes after the end is dropped."""

    async def close(self) -> None:
        """Let go of everything."""
