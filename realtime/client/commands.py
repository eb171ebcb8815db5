"""Commands that want an answer, and the answers."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from realtime.client.connector import Backoff
from realtime.client.links import Frame
from realtime.client.stream import UNREACHED
from realtime.exceptions import AnswerLost, CommandRefused, ConnectionEnded

__all__ = ["Commands"]

PATIENCE_SECONDS = 10.0  # that a command waits for a connection
ATTEMPTS = 5  # of a command that the server had no room for
AGAIN = ("rate_limited", "busy", UNREACHED)  # it was not run


@dataclass
class _Open:
    """A command without an answer; ``done`` gets it, or None if the connection broke.

    A list of members comes in several frames if it is long; ``members`` has those that came.
    """

    done: Callable[[Frame | None], None]
    size: int
    members: list[Any] = field(default_factory=list)


class Commands:
    """Gives each command a number and finds the answer's; on one event loop."""

    def __init__(self) -> None:
        self._send: Callable[[Frame], None] | None = None
        self._ids = itertools.count(1)
        self._open: dict[int, _Open] = {}
        self._ready = asyncio.Event()  # there is a connection, or there will be none
        self._over: Exception | None = None

    def up(self, send: Callable[[Frame], None]) -> None:
        """Note that there is a connection."""
        self._send = send
        self._ready.set()

    def down(self) -> None:
        """Note that it broke: what was sent has no answer any more."""
        self._send = None
        if self._over is None:
            self._ready.clear()
        left, self._open = self._open, {}
        for one in left.values():
            one.done(None)

    def end(self, error: Exception) -> None:
        """Note that there will be no connection any more, and why."""
        self._over = error
        self._ready.set()
        self.down()

    def request(self, frame: Frame, done: Callable[[Frame | None], None]) -> int:
        """Send a frame now, if there is a connection, and return its number.

        Args:
            frame: without its ``id``.
            done: called once with the answer, or with None if the connection broke before.
        """
        id = next(self._ids)
        if self._send is not None:
            frame = {**frame, "id": id}
            self._open[id] = _Open(done, len(json.dumps(frame)))
            self._send(frame)
        return id

    def forget(self, id: int) -> None:
        """Let go of a request whose answer nobody waits for any more."""
        self._open.pop(id, None)

    def answer(self, frame: Frame) -> bool:
        """Take a frame; return whether it was an answer."""
        id = frame.get("id")
        if id is None and frame["type"] == "error" and frame.get("code") == "too_large":
            # The server has not read it, so it cannot say which; no larger one can have passed.
            id = max(self._open, key=lambda one: self._open[one].size, default=None)
        one = None if id is None else self._open.get(id)
        if id is None or one is None:
            return id is not None
        if frame["type"] == "members":
            one.members += frame["members"]
            if frame.get("more"):
                return True
            frame = {**frame, "members": one.members}
        del self._open[id]
        one.done(None if frame["type"] == "lost" else frame)
        return True

    async def ask(self, frame: Frame) -> Frame:
        """Send a command as soon as there is a connection, and return its answer.

        It is repeated only where the server says that it did not run.

        Raises:
            CommandRefused: the server refused it.
            AnswerLost: it was sent and no answer came.
            ConnectionEnded: it was not sent.
        """
        backoff = Backoff()
        attempts = 0
        while True:
            attempts += 1
            await self._until_ready()
            answer = await self._ask_once(frame)
            if answer is None:
                raise AnswerLost(frame["type"], frame["topic"])
            if answer["type"] != "error":
                return answer
            if answer.get("code") not in AGAIN or attempts == ATTEMPTS:
                raise _failure(answer)
            await asyncio.sleep(backoff.next())

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._ready.wait()
        except TimeoutError:
            reason = f"there was no connection for {PATIENCE_SECONDS:g} s; the command was not sent"
            raise ConnectionEnded(1006, reason) from None
        if self._over is not None:
            raise self._over

    async def _ask_once(self, frame: Frame) -> Frame | None:
        answered: asyncio.Future[Frame | None] = asyncio.get_running_loop().create_future()

        def done(answer: Frame | None) -> None:
            if not answered.done():
                answered.set_result(answer)

        id = self.request(frame, done)
        try:
            return await answered
        finally:
            self.forget(id)


def _failure(error: Frame) -> CommandRefused | ConnectionEnded:
    code, message = str(error.get("code")), str(error.get("message", ""))
    if code == UNREACHED:
        return ConnectionEnded(1006, f"the command was not sent: {message}")
    return CommandRefused(code, message, error.get("retry") is True)
