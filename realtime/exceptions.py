"""Every error that this package raises.

::

    RealtimeError
    ├── InvalidName (ValueError)            a topic, pattern or event name breaks the grammar
    │   ├── InvalidTopicName
    │   │   └── InvalidTopicValue           a pattern does not accept a value
    │   ├── InvalidPattern
    │   └── InvalidEventName
    ├── InvalidData (ValueError)            the data of an event cannot be sent
    │   ├── DataNotSerializable
    │   └── DataTooLarge
    ├── InvalidCursor (ValueError)          a text is not a cursor
    ├── UnknownTopic (LookupError)          no registered pattern matches a topic name
    ├── PresenceDisabled                    a topic does not track presence
    ├── CursorExpired                       the log cannot be read from a cursor
    ├── StoreError                          the store cannot complete an operation
    │   └── StoreUnavailable                the store cannot be reached; try again later
    │       └── ForeignStore                the store holds the logs of another site
    ├── PublishError                        publish() could not append an event
    │   └── AmbiguousTransaction            publish() cannot tell which transaction to wait for
    ├── ProtocolError                       a client broke the wire protocol
    ├── CommandRefused                      the server refused a client's command
    ├── AnswerLost                          a command was sent, but its answer was lost
    ├── EventsLost                          a client missed events that the log no longer has
    └── ConnectionEnded                     a client's connection was closed

An error keeps its facts as attributes and builds its text in ``__str__``.
Every error can be pickled, so a task queue can transport it.
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
    "ForeignStore",
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
    """Quote a text and cut it to a length that fits into an error message."""
    return repr(text if len(text) <= length else text[: length - 1] + "…")


class RealtimeError(Exception):
    """Base class of all errors of this package."""


class InvalidName(RealtimeError, ValueError):
    """A name breaks the grammar.

    Attributes:
        name: the rejected name.
        reason: what is wrong with the name, as a clause.
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
    """A pattern does not accept a value.

    Attributes:
        name: the pattern's text.
        reason: the value and what is wrong with it, such as ``pk=-1: …``.
    """

    def __str__(self) -> str:
        return f"the pattern {shorten(self.name)} does not accept {self.reason}"


class InvalidPattern(InvalidName):
    """A pattern given to ``register()`` breaks the grammar of ``realtime.protocol.names``."""

    kind = "topic pattern"


class InvalidEventName(InvalidName):
    """An event name is empty, too long or contains a character that is not allowed."""

    kind = "event name"


class UnknownTopic(RealtimeError, LookupError):
    """No registered pattern matches a topic name.

    Attributes:
        name: the topic name.
        nearest: the registered patterns that are most similar to it, best match first.
        reason: the value in the name that a pattern of the same shape does not accept, as a
            clause; "" if there is no such pattern.
    """

    def __init__(self, name: str, nearest: Sequence[str] = (), reason: str = "") -> None:
        super().__init__(name, tuple(nearest), reason)
        self.name = name
        self.nearest = tuple(nearest)
        self.reason = reason

    def __str__(self) -> str:
        text = f"no registered pattern matches {shorten(self.name)}"
        if self.reason:
            text += f": {self.reason}"
        if self.nearest:
            return f"{text}; the nearest patterns are {', '.join(map(repr, self.nearest))}"
        return (
            f'{text}; no topic is registered at all: add a class with @register("…") to the '
            "topics.py of an installed app"
        )


class PresenceDisabled(RealtimeError):
    """A topic does not track presence, so its members are unknown.

    Attributes:
        topic: the topic's name.
        declared: the name of the topic's class.
    """

    def __init__(self, topic: str, declared: str) -> None:
        super().__init__(topic, declared)
        self.topic = topic
        self.declared = declared

    def __str__(self) -> str:
        return f"{self.topic} does not track presence; set `presence = True` on {self.declared}"


class InvalidData(RealtimeError, ValueError):
    """The data of an event cannot be sent."""


class DataNotSerializable(InvalidData):
    """A value inside the data has no JSON form.

    Attributes:
        path: the path to the value, such as ``data['lines'][3]['price']``.
        reason: what is wrong with the value, as a clause.
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
        size: size of the data as JSON, in bytes.
        limit: maximum size, in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"the data is {self.size} bytes of JSON and {self.limit} are allowed; publish a "
            'reference from which clients fetch it, or raise REALTIME["LIMITS"]["event_bytes"]'
        )


class PublishError(RealtimeError):
    """An event could not be appended to its log, and it was not saved for a later attempt.

    Attributes:
        reason: what went wrong.
        published: the events that ``publish_many()`` had already appended; empty for
            ``publish()``.
    """

    def __init__(self, reason: str, published: Sequence[Event] = ()) -> None:
        super().__init__(reason, tuple(published))
        self.reason = reason
        self.published = tuple(published)

    def __str__(self) -> str:
        if self.published:
            return f"{self.reason} (events already published: {len(self.published)})"
        return self.reason


class AmbiguousTransaction(PublishError):
    """``using`` is missing, and the thread has an open transaction on another database alias.

    Attributes:
        alias: the alias that publish() uses by default.
        atomic: the aliases on which a transaction is open.
    """

    def __init__(self, alias: str, atomic: Sequence[str]) -> None:
        super().__init__(
            f"no transaction is open on {alias!r}, but one is on {', '.join(map(repr, atomic))}; "
            f"pass the alias that the event belongs to: publish(…, using={atomic[0]!r}) waits for "
            f"the commit, using={alias!r} publishes now"
        )
        self.alias = alias
        self.atomic = tuple(atomic)

    def __reduce__(self) -> tuple[Any, ...]:
        return AmbiguousTransaction, (self.alias, self.atomic)


class InvalidCursor(RealtimeError, ValueError):
    """A text is not a cursor, or is a composite cursor that does not contain the topic.

    Attributes:
        text: the rejected text.
        topic: the topic that the composite cursor does not contain; "" if the text is no cursor.
    """

    def __init__(self, text: str, topic: str = "") -> None:
        super().__init__(text, topic)
        self.text = text
        self.topic = topic

    def __str__(self) -> str:
        if self.topic:
            text, topic = shorten(self.text), shorten(self.topic)
            return (
                f"the composite cursor {text} does not contain {topic}; omit since for this topic"
            )
        return f"{shorten(self.text)} is not a cursor; send one exactly as the server gave it"


class CursorExpired(RealtimeError):
    """The log cannot be read from a cursor, because events after it may be missing.

    Fetch the current state and continue from ``head``; a client that resumes receives a ``reset``
    to it. A hub's own cursors are never forged, so for a hub ``contradicts`` means that the log was
    rewound.

    Attributes:
        topic: the topic's name.
        cursor: the cursor from which the log could not be read.
        head: the cursor of the log's newest event.
        contradicts: True if the cursor contradicts the log (its seq is ahead of the head, or its
            tag differs); False if its event was trimmed or belongs to another epoch.
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
        return (
            f"the cursor {self.cursor} {why}; fetch the current state of {self.topic} and continue "
            f"from {self.head}"
        )


def _expired(topic: str, cursor: Cursor, head: Cursor, contradicts: bool) -> CursorExpired:
    return CursorExpired(topic, cursor, head, contradicts=contradicts)


class StoreError(RealtimeError):
    """The store cannot complete an operation."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or is locked; the same call can succeed later.

    Attributes:
        store: the name of the store's class.
        reason: the text of the driver's error.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.store} is not available: {self.reason}"


class ForeignStore(StoreUnavailable):
    """The store holds the logs of another site, so it is neither read nor written.

    Like every ``StoreUnavailable``, it affects pages, publishers and clients as an outage does:
    nothing that waits in the outbox is lost, and the site continues once the cause is removed.
    """


class ProtocolError(RealtimeError):
    """A client broke the wire protocol.

    Attributes:
        code: the code of the error frame, such as ``bad_frame``.
        reason: what was wrong and what to send instead, for the developer of the client.
        close_code: the WebSocket close code; None if the connection stays open.
        id: the ``id`` of the command; None if it could not be read.
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
    """The server refused a command and did not run it.

    Attributes:
        code: the code of the error frame, such as ``forbidden``.
        reason: the message of the error frame.
        retry: True if the same command can succeed a few seconds later.
    """

    def __init__(self, code: str, reason: str, retry: bool = False) -> None:
        super().__init__(code, reason, retry)
        self.code = code
        self.reason = reason
        self.retry = retry

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


class AnswerLost(RealtimeError):
    """The connection broke before a command was answered, so the command may have run.

    Attributes:
        command: ``publish`` or ``call``.
        topic: the topic's name.
    """

    def __init__(self, command: str, topic: str) -> None:
        super().__init__(command, topic)
        self.command = command
        self.topic = topic

    def __str__(self) -> str:
        return (
            f"the connection broke before {self.command} on {self.topic} was answered; check "
            "whether it ran before sending it again"
        )


class EventsLost(RealtimeError):
    """Events of a topic were missed, and the log no longer has them; fetch the topic's state again.

    Attributes:
        topic: the topic's name.
        cursor: the next events to arrive come after this cursor.
        reason: ``trimmed``, ``restarted``, or "" if the server did not give a reason.
    """

    def __init__(self, topic: str, cursor: Cursor, reason: str = "") -> None:
        super().__init__(topic, cursor, reason)
        self.topic = topic
        self.cursor = cursor
        self.reason = reason

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"events of {self.topic} were missed for good{why}; fetch its state again"


class ConnectionEnded(RealtimeError):
    """The connection was closed by the server or by the client.

    Attributes:
        code: the WebSocket close code; after 4400 to 4499, do not connect again.
        reason: the reason that came with the close code, or "".
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"the connection was closed with {self.code}{reason}"
