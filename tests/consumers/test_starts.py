"""Where the topics of a URL start."""

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


def test_each_topic_can_have_its_own_start() -> None:
    fields: list[tuple[str, Any]] = [("topic", name) for name in "abc"]
    fields += [("since", since) for since in (ONE, "", "@5")]
    fields += [("last", last) for last in ("", "20", "")]
    assert query_of(*fields) == TopicQuery({"a": ONE, "b": None, "c": 5.0}, {"b": 20})


def test_a_single_since_or_last_applies_to_all_topics() -> None:
    topics = [("topic", "a"), ("topic", "b")]
    assert query_of(*topics, ("since", "@5"), ("last", 2)) == TopicQuery(
        {"a": 5.0, "b": 5.0}, {"a": 2, "b": 2}
    )


def test_a_repeated_topic_uses_its_last_start() -> None:
    fields = [("topic", "a"), ("topic", "a"), ("since", ONE), ("since", OTHER)]
    assert query_of(*fields).starts == {"a": OTHER}


def test_several_starts_must_be_one_per_topic() -> None:
    topics = [("topic", name) for name in "abc"]
    for field, value in (("since", ONE), ("last", 1)):
        assert refusal(*topics, (field, value), (field, value)) == ("bad_frame", None)


def test_an_error_names_the_topic_to_blame() -> None:
    a, b = ("topic", "a"), ("topic", "b")
    assert refusal(a, ("topic", "b!")) == ("bad_topic", "b!")
    assert refusal(a, b, ("since", ""), ("since", "?!")) == ("bad_cursor", "b")
    assert refusal(a, ("since", "?!")) == ("bad_cursor", "a")
    assert refusal(a, b, ("topic", "c"), ("topic", "d")) == ("too_many_topics", "d")
    assert refusal(a, b, ("since", ONE)) == ("bad_cursor", None)


def test_an_empty_topic_asks_for_none_and_a_missing_topic_is_refused() -> None:
    assert query_of(("topic", "")) == TopicQuery({}, {})
    assert refusal() == ("bad_topic", None)
    assert refusal(("topic", "a"), ("topic", "")) == ("bad_topic", "")


def test_a_last_event_id_that_cannot_be_read_is_a_lost_cursor() -> None:
    assert query_of(("topic", "a"), last_event_id="~~~").starts == {"a": LOST}
