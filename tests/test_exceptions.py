# ruff: noqa: E501 - a table
"""Every error keeps its facts, says what to do, and can be pickled for a task queue."""

import pickle

import pytest

from realtime import exceptions
from realtime.protocol.events import Cursor, Event

HEAD, OLD = Cursor("e", 9, 1), Cursor("e", 2, 2)
EVENT = Event("orders.1", "shipped", "{}", HEAD, 1.5)

ERRORS = [
    (exceptions.InvalidTopicName("a b", "it has a space"), "'a b' is not a valid topic name: it has"),
    (exceptions.InvalidTopicValue("a.<int:pk>", "pk=-1: why"), "pattern 'a.<int:pk>' does not accept pk=-1: why"),
    (exceptions.InvalidPattern("<", "unclosed"), "'<' is not a valid topic pattern"),
    (exceptions.InvalidEventName("", "use 1"), "'' is not a valid event name"),
    (exceptions.DataNotSerializable("data['x']", "a set"), "data['x'] cannot be sent as JSON: a set"),
    (exceptions.DataTooLarge(70_000, 65_536), "70000 bytes of JSON and 65536 are allowed"),
    (exceptions.InvalidCursor("x"), "'x' is not a cursor"),
    (exceptions.InvalidCursor("e~x", "a.1"), "composite cursor 'e~x' does not contain 'a.1'"),
    (exceptions.UnknownTopic("oders.1", ["orders.<int:pk>"]), "nearest patterns are 'orders.<int:pk>'"),
    (exceptions.UnknownTopic("orders.x", ["orders.<int:pk>"], "why"), "matches 'orders.x': why; the nearest"),
    (exceptions.UnknownTopic("oders.1"), '@register("…")'),
    (exceptions.PresenceDisabled("orders.1", "OrderTopic"), "set `presence = True` on OrderTopic"),
    (exceptions.CursorExpired("t", OLD, HEAD, contradicts=True), "does not belong to this log"),
    (exceptions.CursorExpired("t", OLD, HEAD, contradicts=False), "is older than the log"),
    (exceptions.StoreError("no table"), "no table"),
    (exceptions.StoreUnavailable("DatabaseStore", "locked"), "DatabaseStore is not available: locked"),
    (exceptions.ForeignStore("RedisStore", "why"), "RedisStore is not available: why"),
    (exceptions.PublishError("gone", [EVENT]), "gone (events already published: 1)"),
    (exceptions.PublishError("gone"), "gone"),
    (exceptions.AmbiguousTransaction("default", ["other"]), "publish(…, using='other')"),
    (exceptions.ProtocolError("bad_frame", "send JSON", close_code=4400, id=7), "bad_frame: send JSON"),
    (exceptions.CommandRefused("forbidden", "not yours", True), "forbidden: not yours"),
    (exceptions.AnswerLost("call", "orders.1"), "before call on orders.1 was answered; check"),
    (exceptions.EventsLost("orders.1", HEAD, "trimmed"), "orders.1 were missed for good (trimmed); fetch"),
    (exceptions.EventsLost("orders.1", HEAD), "missed for good; fetch"),
    (exceptions.ConnectionEnded(4429, "too fast"), "closed with 4429: too fast"),
    (exceptions.ConnectionEnded(1006), "closed with 1006"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "text"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_states_its_facts_and_can_be_pickled(error: Exception, text: str) -> None:
    assert text in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_every_error_derives_from_the_base_class_and_is_tested_here() -> None:
    tested = {type(error) for error, _ in ERRORS}
    for name in exceptions.__all__:
        error = getattr(exceptions, name)
        assert issubclass(error, exceptions.RealtimeError), name
        assert error in tested or error.__subclasses__(), name


def test_a_long_text_is_cut_in_an_error_message() -> None:
    assert len(str(exceptions.InvalidCursor("x" * 10_000))) < 200
