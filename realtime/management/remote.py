"""Follow topics of a remote site, on a terminal."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError, OutputWrapper

from realtime.exceptions import EventsLost
from realtime.management.arguments import WRONG_CALL
from realtime.management.console import Console
from realtime.protocol.encoders import Frame, Kind, event_frame
from realtime.protocol.events import Cursor
from realtime.protocol.frames import Reset, frame

if TYPE_CHECKING:
    from realtime.client import Client

__all__ = ["RemoteListener", "connect_to", "read_token"]

TOKEN_VARIABLE = "REALTIME_TOKEN"  # noqa: S105 - a name, not a secret


def read_token(path: str | None) -> str | Callable[[], str] | None:
    """Return the token from the environment, or a function that reads it from a file; or None.

    The file is read again whenever the site refuses the token.
    The token is not a command-line argument, because every user of the machine can read those.

    Raises:
        CommandError: the file cannot be read.
    """
    if path is None:
        return os.environ.get(TOKEN_VARIABLE)

    def read() -> str:
        return Path(path).read_text().strip()

    try:
        read()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read: {error}.", returncode=WRONG_CALL) from error
    return read


def connect_to(url: str, token: str | Callable[[], str] | None) -> Client:
    """Return a client for a site.

    Raises:
        CommandError: the URL or the token is not valid, or the client is not installed.
    """
    try:
        from realtime.client import Client
        from realtime.client.token import Token
    except ImportError as error:
        raise CommandError(f"{error}.") from error
    try:
        Token(token() if callable(token) else token)  # a bad file is reported before connecting
        return Client(url, token=token)
    except ValueError as error:
        raise CommandError(f"{error}.", returncode=WRONG_CALL) from error


class _Notices(logging.Handler):
    """Writes what the client logs about its connection to stderr."""

    def __init__(self, stderr: OutputWrapper) -> None:
        super().__init__(logging.INFO)
        self._stderr = stderr

    def emit(self, record: logging.LogRecord) -> None:
        self._stderr.write(record.getMessage(), str)
        self._stderr.flush()


class RemoteListener(Console):
    """Follows topics through a site's own URL, with the rights of a token."""

    def run(
        self, client: Client, names: Sequence[str], since: Cursor | str | None, last: int | None
    ) -> None:
        """Print the topics' frames until the console stops printing or a topic fails.

        Raises:
            CommandRefused: the token's user is not allowed to follow a topic.
            ConnectionEnded: the site refuses this client.
        """
        logger = logging.getLogger("realtime.client")
        notices, before = _Notices(self.stderr), logger.level
        logger.addHandler(notices)
        logger.setLevel(logging.INFO)
        try:
            self.execute(self._follow(client, names, since, last))
        finally:
            logger.removeHandler(notices)
            logger.setLevel(before)

    async def _follow(
        self, client: Client, names: Sequence[str], since: Cursor | str | None, last: int | None
    ) -> None:
        self.begin()
        async with client:
            tasks: list[asyncio.Task[Any]] = [
                asyncio.create_task(self._print_topic(client, name, since, last)) for name in names
            ]
            tasks.append(asyncio.create_task(self.ended.wait()))
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # raises the error that ended a topic
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _print_topic(
        self, client: Client, name: str, since: Cursor | str | None, last: int | None
    ) -> None:
        def reset(error: EventsLost) -> None:
            reason = error.reason or Reset.TRIMMED
            text = frame("reset", topic=name, cursor=str(error.cursor), reason=reason)
            self.show(Frame(text, kind=Kind.RESET))

        async with client.subscribe(name, since=since, last=last, on_reset=reset) as events:
            if events.cursor is not None:  # else a reset comes first
                self.show(Frame(frame("subscribed", topic=name, cursor=str(events.cursor))))
            async for event in events:
                self.show(Frame(event_frame(event), kind=Kind.EVENT))
