"""Send commands and match the answers to them."""

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

CONNECT_WAIT_SECONDS = 10.0  # maximum time for which a command waits for a connection
ATTEMPTS = 5  # maximum number of times that a command is sent
RETRIED_CODES = ("rate_limited", "busy", UNREACHED)  # such commands have not run


@dataclass
class _Pending:
    """A command without an answer.

    Attributes:
        done: called with the answer, or with None if the connection broke.
        size: size of the command's frame, in characters.
        members: the members received so far, if the answer is a list in several frames.
    """

    done: Callable[[Frame | None], None]
    size: int
    members: list[Any] = field(default_factory=list)


class Commands:
    """Sends commands with an id and finds the command that an answer belongs to.

    It belongs to one event loop.
    """

    def __init__(self) -> None:
        self._send: Callable[[Frame], None] | None = None
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._ready = asyncio.Event()  # set while connected, and after close()
        self._end_error: Exception | None = None

    def up(self, send: Callable[[Frame], None]) -> None:
        """Use a new connection; ``send`` sends a frame over it."""
        self._send = send
        self._ready.set()

    def down(self) -> None:
        """Stop using the connection; commands without an answer will not get one."""
        self._send = None
        if self._end_error is None:
            self._ready.clear()
        unanswered, self._pending = self._pending, {}
        for command in unanswered.values():
            command.done(None)

    def close(self, error: Exception) -> None:
        """End for good: sent commands get no answer; waiting and later ones raise the error."""
        self._end_error = error
        self._ready.set()
        self.down()

    def request(self, frame: Frame, done: Callable[[Frame | None], None]) -> int:
        """Send a frame if there is a connection, and return its id.

        Args:
            frame: the frame without ``id``.
            done: called once with the answer, or with None if the connection broke first; not
                called if the frame was not sent.
        """
        id = next(self._ids)
        if self._send is not None:
            frame = {**frame, "id": id}
            self._pending[id] = _Pending(done, len(json.dumps(frame)))
            self._send(frame)
        return id

    def forget(self, id: int) -> None:
        """Ignore the answer to a command."""
        self._pending.pop(id, None)

    def answer(self, frame: Frame) -> bool:
        """Process a frame if it is an answer; return whether it is one."""
        id = frame.get("id")
        if id is None and frame["type"] == "error" and frame.get("code") == "too_large":
            # The server did not parse the frame, so the error has no id. Assume the largest frame.
            id = max(self._pending, key=lambda id: self._pending[id].size, default=None)
        command = None if id is None else self._pending.get(id)
        if id is None or command is None:
            return id is not None
        if frame["type"] == "members":
            command.members += frame["members"]
            if frame.get("more"):
                return True
            frame = {**frame, "members": command.members}
        del self._pending[id]
        command.done(None if frame["type"] == "lost" else frame)
        return True

    async def ask(self, frame: Frame) -> Frame:
        """Send a command as soon as there is a connection, and return the answer.

        A command is sent again only after an error that means it has not run.

        Raises:
            CommandRefused: the server refused the command.
            AnswerLost: the command was sent, but the connection broke before the answer.
            ConnectionEnded: the command was not sent.
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
            if answer.get("code") not in RETRIED_CODES or attempts == ATTEMPTS:
                raise _error_for(answer)
            await asyncio.sleep(backoff.next())

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_WAIT_SECONDS):
                # The connection can be gone again by the time that this task runs.
                while self._send is None and self._end_error is None:
                    await self._ready.wait()
        except TimeoutError:
            reason = (
                f"there was no connection for {CONNECT_WAIT_SECONDS:g} s; the command was not sent"
            )
            raise ConnectionEnded(1006, reason) from None
        if self._end_error is not None:
            raise self._end_error

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


def _error_for(error: Frame) -> CommandRefused | ConnectionEnded:
    code, message = str(error.get("code")), str(error.get("message", ""))
    if code == UNREACHED:
        return ConnectionEnded(1006, f"the command was not sent: {message}")
    return CommandRefused(code, message, error.get("retry") is True)
