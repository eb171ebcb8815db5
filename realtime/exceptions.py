"""Every error that this package raises.

::

    RealtimeError
    ├── InvalidName (ValueError)            a topic, pattern or event name breaks the grammar
    │   ├── InvalidTopicName
    │   │   └── InvalidTopicValue           no topic of a pattern has the value
    │   ├── InvalidPattern
    │   └── InvalidEventName
    ├── InvalidData (ValueError)            the data of an event cannot be sent
    │   ├── DataNotSerializable
    │   └── DataTooLarge
    ├── InvalidCursor (ValueError)          text that is not a cursor
    ├── UnknownTopic (LookupError)          no registered pattern matches
    ├── PresenceDisabled                    nobody knows who is on this topic
    ├── CursorExpired                       the log cannot be read on from this cursor
    ├── StoreError                          the store cannot do what it was asked to do
    │   └── StoreUnavailable                ... now; the same call may work later
    ├── PublishError                        publish() could not keep its promise
    │   └── AmbiguousTransaction            publish() cannot tell which transaction it belongs to
    ├── ProtocolError                       a client broke the wire protocol
    ├── CommandRefused                      what a client asked for was refused
    ├── AnswerLost                          what a client asked for was sent, and maybe done
    ├── EventsLost                          a client missed events for good
    └── ConnectionEnded                     a client's connection was closed

An error keeps its facts as attributes and builds its text in ``__str__``.
All of them can be pickled, so that a task queue can carry them.
Import them from here; the files are by subject, and import nothing else of this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realtime.protocol.events import Cursor, Event

__all__ = [
    "AmbiguousTransaction",
    "AnswerLost",
    "CommandRefused",
    "ConnectionEnded",
    "CursorExpired",
    "DataNotSerializable",
    "DataTooLarge",
    "EventsLost",
    "InvalidCursor",
    "InvalidData",
    "InvalidEventName",
    "InvalidName",
    "InvalidPattern",
    "InvalidTopicName",
    "InvalidTopicValue",
    "PresenceDisabled",
    "ProtocolError",
    "PublishError",
    "RealtimeError",
    "StoreError",
    "StoreUnavailable",
    "UnknownTopic",
]


def shorten(text: str, length: int = 80) -> str:
    """Return the text quoted and cut to a length that fits an error message."""
    return repr(text if len(text) <= length else text[: length - 1] + "…")


class RealtimeError(Exception):
    """Base of every error of this package."""


class InvalidName(RealtimeError, ValueError):
    """A name breaks the grammar.

    Attributes:
        name: the name as it was given.
        reason: what is wrong with it, as a clause.
    """

    kind = "name"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{shorten(self.name)} is not a valid {self.kind}: {self.reason}"


class InvalidTopicName(InvalidName):
    """A topic name breaks the grammar of ``realtime.protocol.names``."""

    kind = "topic name"


class InvalidTopicValue(InvalidTopicName):
    """No topic of a pattern has a value that was given for it.

    Attributes:
        name: the pattern's text.
        reason: the value, and what is wrong with it.
    """

    def __str__(self) -> str:
        return f"no topic {shorten(self.name)} has {self.reason}"


class InvalidPattern(InvalidName):
    """A pattern given to ``register()`` breaks the grammar of ``realtime.protocol.names``."""

    kind = "topic pattern"


class InvalidEventName(InvalidName):
    """An event name is empty, too long or has characters that are not allowed."""

    kind = "event name"


class UnknownTopic(RealtimeError, LookupError):
    """No registered pattern matches a topic name.

    Attributes:
        name: the topic name.
        nearest: the registered patterns most like it, best first.
        reason: which value of it is none of a pattern of its shape, as a clause, or "".
    """

    def __init__(self, name: str, nearest: Sequence[str] = (), reason: str = "") -> None:
        super().__init__(name, tuple(nearest), reason)
        self.name = name
        self.nearest = tuple(nearest)
        self.reason = reason

    def __str__(self) -> str:
        text = f"no registered topic matches {shorten(self.name)}"
        if self.reason:
            text += f": {self.reason}"
        if self.nearest:
            return f"{text}; the nearest patterns are {', '.join(map(repr, self.nearest))}"
        return f'{text}; none is registered: add @register("…") to a topics.py of an installed app'


class PresenceDisabled(RealtimeError):
    """A topic keeps no presence, so nobody knows who is on it.

    Attributes:
        topic: the topic's name.
        declared: the name of its class.
    """

    def __init__(self, topic: str, declared: str) -> None:
        super().__init__(topic, declared)
        self.topic = topic
        self.declared = declared

    def __str__(self) -> str:
        return f"{self.topic} keeps no presence; set `presence = True` on {self.declared}"


class InvalidData(RealtimeError, ValueError):
    """The data of an event cannot be sent."""


class DataNotSerializable(InvalidData):
    """A value inside the data has no JSON form.

    Attributes:
        path: where the value stands, such as ``data["lines"][3].price``.
        reason: what is wrong with it, as a clause.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} cannot be sent as JSON: {self.reason}"


class DataTooLarge(InvalidData):
    """The data is larger than ``REALTIME["LIMITS"]["event_bytes"]``.

    Attributes:
        size: bytes of the data as JSON.
        limit: bytes that are allowed.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"the data is {self.size} bytes of JSON and {self.limit} are allowed; publish a "
            'reference that clients fetch, or raise REALTIME["LIMITS"]["event_bytes"]'
        )


class PublishError(RealtimeError):
    """An event could not be appended to its log, and no transaction keeps it.

    Attributes:
        reason: what went wrong.
        published: the events that were appended before; empty for ``publish()``.
    """

    def __init__(self, reason: str, published: Sequence[Event] = ()) -> None:
        super().__init__(reason, tuple(published))
        self.reason = reason
        self.published = tuple(published)

    def __str__(self) -> str:
        if self.published:
            return f"{self.reason} ({len(self.published)} events were published before)"
        return self.reason


class AmbiguousTransaction(PublishError):
    """Another alias of this thread is in ``atomic()`` and ``using`` was not given.

    Attributes:
        alias: the alias that publish() would have used.
        atomic: the aliases that are in a transaction.
    """

    def __init__(self, alias: str, atomic: Sequence[str]) -> None:
        super().__init__(
            f"no transaction is open on {alias!r}, but one is on {', '.join(map(repr, atomic))}; "
            f"say which one the event belongs to: publish(…, using={atomic[0]!r}) waits for its "
            f"commit, using={alias!r} publishes now"
        )
        self.alias = alias
        self.atomic = tuple(atomic)

    def __reduce__(self) -> tuple[Any, ...]:
        return AmbiguousTransaction, (self.alias, self.atomic)


class InvalidCursor(RealtimeError, ValueError):
    """Text that is not a cursor, or a composite cursor without a place of the topic asked for.

    Attributes:
        text: the text as it was given.
        topic: the topic whose place it lacks, or "".
    """

    def __init__(self, text: str, topic: str = "") -> None:
        super().__init__(text, topic)
        self.text = text
        self.topic = topic

    def __str__(self) -> str:
        if self.topic:
            text, topic = shorten(self.text), shorten(self.topic)
            return f"the composite cursor {text} has no place of {topic}; ask for it without since"
        return f"{shorten(self.text)} is not a cursor; send one exactly as the server gave it"


class CursorExpired(RealtimeError):
    """The log cannot be read on from a cursor: what follows it is not known to be whole.

    A client that resumes is reset to ``head``.
    A hub, whose cursors are never forged, treats ``contradicts`` as a rewound log.

    Attributes:
        topic: the topic's name.
        cursor: the cursor that was asked for.
        head: where the log stands.
        contradicts: True if the cursor contradicts the log (its seq is ahead of the head or
            carries another tag), False if its event was trimmed or belongs to another epoch.
    """

    def __init__(self, topic: str, cursor: Cursor, head: Cursor, *, contradicts: bool) -> None:
        super().__init__(topic, cursor, head, contradicts)
        self.topic = topic
        self.cursor = cursor
        self.head = head
        self.contradicts = contradicts

    def __reduce__(self) -> tuple[Any, ...]:
        return _expired, (self.topic, self.cursor, self.head, self.contradicts)

    def __str__(self) -> str:
        why = "does not belong to this log" if self.contradicts else "is older than the log"
        return f"the cursor {self.cursor} {why}; {self.topic} can be followed from {self.head}"


def _expired(topic: str, cursor: Cursor, head: Cursor, contradicts: bool) -> CursorExpired:
    return CursorExpired(topic, cursor, head, contradicts=contradicts)


class StoreError(RealtimeError):
    """The store cannot do what it was asked to do."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or is locked; the same call may work later.

    Attributes:
        store: the store's class name.
        reason: the error of the driver, as text.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.store} is not available: {self.reason}"


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
