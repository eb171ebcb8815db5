"""Where the topics of one URL begin."""

from typing import Any
from urllib.parse import urlencode

import pytest

from realtime.consumers.http import HttpError, Request
from realtime.consumers.http_topics import LOST, TopicQuery, read_query
from realtime.protocol.events import Cursor

ONE, OTHER = Cursor("e", 1, 7), Cursor("f", 2, 9)


def query_of(*fields: tuple[str, Any], last_event_id: str | None = None) -> TopicQuery:
    headers = [] if last_event_id is None else [(b"last-event-id", last_event_id.encode())]
    query = urlencode([(name, str(value)) for name, value in fields]).encode()
    return read_query(Request({"method": "GET", "query_string": query, "headers": headers}), 3)


def refusal(*fields: tuple[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(HttpError) as caught:
        query_of(*fields)
    assert caught.value.status == 400
    return caught.value.code, caught.value.topic


def test_each_topic_has_a_start_of_its_own() -> None:
    fields: list[tuple[str, Any]] = [("topic", name) for name in "abc"]
    fields += [("since", since) for since in (ONE, "", "@5")]
    fields += [("last", last) for last in ("", "20", "")]
    assert query_of(*fields) == TopicQuery({"a": ONE, "b": None, "c": 5.0}, {"b": 20})


def test_a_single_since_and_a_single_last_are_for_all_topics() -> None:
    topics = [("topic", "a"), ("topic", "b")]
    assert query_of(*topics, ("since", "@5"), ("last", 2)) == TopicQuery(
        {"a": 5.0, "b": 5.0}, {"a": 2, "b": 2}
    )


def test_a_topic_that_is_asked_for_twice_takes_its_last_start() -> None:
    fields = [("topic", "a"), ("topic", "a"), ("since", ONE), ("since", OTHER)]
    assert query_of(*fields).starts == {"a": OTHER}


def test_starts_that_are_not_one_a_topic_are_refused() -> None:
    topics = [("topic", name) for name in "abc"]
    for field, value in (("since", ONE), ("last", 1)):
        assert refusal(*topics, (field, value), (field, value)) == ("bad_frame", None)


def test_the_topic_that_is_to_blame_is_named() -> None:
    a, b = ("topic", "a"), ("topic", "b")
    assert refusal(a, ("topic", "b!")) == ("bad_topic", "b!")
    assert refusal(a, b, ("since", ""), ("since", "?!")) == ("bad_cursor", "b")
    assert refusal(a, ("since", "?!")) == ("bad_cursor", "a")
    assert refusal(a, b, ("topic", "c"), ("topic", "d")) == ("too_many_topics", "d")
    assert refusal(a, b, ("since", ONE)) == ("bad_cursor", None)


def test_an_empty_topic_asks_for_none_and_no_topic_is_a_mistake() -> None:
    assert query_of(("topic", "")) == TopicQuery({}, {})
    assert refusal() == ("bad_topic", None)
    assert refusal(("topic", "a"), ("topic", "")) == ("bad_topic", "")


def test_a_last_event_id_that_cannot_be_read_is_a_lost_place() -> None:
    assert query_of(("topic", "a"), last_event_id="~~~").starts == {"a": LOST}
