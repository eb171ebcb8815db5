"""Between a client and its server; the Python client raises most of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from realtime.exceptions.base import RealtimeError

if TYPE_CHECKING:
    from realtime.protocol.events import Cursor

__all__ = ["AnswerLost", "CommandRefused", "ConnectionEnded", "EventsLost", "ProtocolError"]


class ProtocolError(RealtimeError):
    """A client broke the wire protocol.

    Attributes:
        code: the machine-readable code of the error frame, such as ``bad_frame``.
        reason: what was wrong and what to do, for the client's programmer.
        close_code: the WebSocket close code, or None if the connection goes on.
        id: the ``id`` of the command, where it could be read.
    """

    def __init__(
        self, code: str, reason: str, *, close_code: int | None = None, id: int | None = None
    ) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.close_code = close_code
        self.id = id

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _protocol_error, (self.code, self.reason, self.close_code, self.id)


def _protocol_error(
    code: str, reason: str, close_code: int | None, id: int | None
) -> ProtocolError:
    return ProtocolError(code, reason, close_code=close_code, id=id)


class CommandRefused(RealtimeError):
    """The server refused a command; nothing was done.

    Attributes:
        code: the code of the error frame, such as ``forbidden``.
        reason: what the server said about it.
        retry: whether the same command may succeed a few seconds later.
    """

    def __init__(self, code: str, reason: str, retry: bool = False) -> None:
        super().__init__(code, reason, retry)
        self.code = code
        self.reason = reason
        self.retry = retry

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


class AnswerLost(RealtimeError):
    """The connection broke before a command's answer came: look whether it was run.

    Attributes:
        command: ``publish`` or ``call``.
        topic: the topic's name.
    """

    def __init__(self, command: str, topic: str) -> None:
        super().__init__(command, topic)
        self.command = command
        self.topic = topic

    def __str__(self) -> str:
        return f"the connection broke before {self.command} on {self.topic} was answered"


class EventsLost(RealtimeError):
    """Events of a topic are missing which the log does not keep; fetch the state anew.

    Attributes:
        topic: the topic's name.
        cursor: what comes next is after this place.
        reason: ``trimmed``, ``restarted``, or an empty text if the server did not say.
    """

    def __init__(self, topic: str, cursor: Cursor, reason: str = "") -> None:
        super().__init__(topic, cursor, reason)
        self.topic = topic
        self.cursor = cursor
        self.reason = reason

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"events of {self.topic} were missed for good{why}; fetch its state anew"


class ConnectionEnded(RealtimeError):
    """The connection was closed, by the server or because the client had left.

    Attributes:
        code: the WebSocket close code; 4400 to 4499 say not to come back.
        reason: what the server said before, or an empty text.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"closed with {self.code}" + (f": {self.reason}" if self.reason else "")
