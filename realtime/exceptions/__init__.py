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

from realtime.exceptions.base import RealtimeError
from realtime.exceptions.base import shorten as shorten
from realtime.exceptions.clients import (
    AnswerLost,
    CommandRefused,
    ConnectionEnded,
    EventsLost,
    ProtocolError,
)
from realtime.exceptions.names import (
    InvalidEventName,
    InvalidName,
    InvalidPattern,
    InvalidTopicName,
    InvalidTopicValue,
    PresenceDisabled,
    UnknownTopic,
)
from realtime.exceptions.publishing import (
    AmbiguousTransaction,
    DataNotSerializable,
    DataTooLarge,
    InvalidData,
    PublishError,
)
from realtime.exceptions.stores import CursorExpired, InvalidCursor, StoreError, StoreUnavailable

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
