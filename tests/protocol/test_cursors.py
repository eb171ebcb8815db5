"""Composite cursors: the cursors of several topics in one text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.exceptions import InvalidCursor
from realtime.protocol.cursors import CompositeCursor, compose, entry, is_composite
from realtime.protocol.events import Cursor

epochs = st.text("ABCabc019_-", min_size=1, max_size=32)
cursors = st.builds(Cursor, epochs, st.integers(0, 10**18 - 1), st.integers(0, 2**32 - 1))
topics = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
likely_text = st.text("abcAB019._~!- \n\r\0é", max_size=60)


@given(st.dictionaries(topics, cursors, min_size=1, max_size=100))
def test_the_cursors_of_any_topics_can_be_read_back(by_topic: dict[str, Cursor]) -> None:
    text = compose(entry(topic, cursor) for topic, cursor in by_topic.items())
    assert is_composite(text)
    composite = CompositeCursor(text)
    assert {topic: composite.get(topic) for topic in by_topic} == by_topic
    assert composite.get("another topic, which nobody asked for") is None


@given(st.one_of(st.text(), likely_text))
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    try:
        composite = CompositeCursor(text)
    except InvalidCursor:
        return
    assert is_composite(text)
    assert composite.get("orders.42") is None


@given(st.dictionaries(topics, cursors, min_size=1, max_size=5), st.data())
def test_a_damaged_text_is_parsed_or_rejected(
    by_topic: dict[str, Cursor], data: st.DataObject
) -> None:
    text = compose(entry(topic, cursor) for topic, cursor in by_topic.items())
    start = data.draw(st.integers(0, len(text)))
    damaged = text[:start] + data.draw(likely_text) + text[start + data.draw(st.integers(0, 9)) :]
    try:
        composite = CompositeCursor(damaged)
    except InvalidCursor:
        return
    for topic in by_topic:
        cursor = composite.get(topic)
        # It has the form of a cursor; only the log can say whether it is valid.
        assert cursor is None or Cursor.parse(str(cursor)) == cursor


@given(cursors)
def test_the_cursor_of_one_topic_is_never_mistaken_for_a_composite_cursor(cursor: Cursor) -> None:
    assert not is_composite(str(cursor))


def test_the_cursors_of_100_topics_fit_into_a_header_that_proxies_accept() -> None:
    entries = [
        entry(f"a.long.name.of.a.topic.{n}", Cursor("Abcdefgh", 10**7, n)) for n in range(100)
    ]
    assert len(compose(entries)) < 2_500


def test_a_composite_cursor_is_safe_in_a_header_a_url_and_an_event_stream() -> None:
    text = compose([entry("a", Cursor("A_-", 5, 1)), entry("b", Cursor("B", 7, 2**32 - 1))])
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!")


@pytest.mark.parametrize(
    "text",
    ["", "~", "e~", "~AAAAAAAAAAAA1", "e~AAAAAAAAAAAA", "e~AAAAAAAAAAAA01", "e~AAAAAAAAAAAA1.",
     "e~AAAAAAAAAAAA1\n", "e~AAAAAAAAAAAA1!", "e~AAAAAAAAAAAA-1", "e e~AAAAAAAAAAAA1",
     "e~AAAAAAAAAAAA" + "9" * 19, "e~AAAAAAAAAAAA\u0661", "e~" + "AAAAAAAAAAAA1." * 2_000],
)  # fmt: skip
def test_a_text_that_is_not_a_composite_cursor_is_rejected(text: str) -> None:
    with pytest.raises(InvalidCursor):
        CompositeCursor(text)


def test_the_format_is_the_same_as_in_the_javascript_client() -> None:
    """js/tests/cursors.test.js has the same cursors."""
    cursors = [
        ("orders.42", "Zk3h0aVc.17.0a1b2c3d"),
        ("public.news", "another-life_1.0.ffffffff"),
        ("orders.43", "Zk3h0aVc.123456789012345678.00000000"),
    ]
    text = compose(entry(topic, Cursor.parse(cursor)) for topic, cursor in cursors)
    assert text == (
        "Zk3h0aVc~W0JPXwChssPQ17.Pixl8AAAAAAA123456789012345678!another-life_1~fD08zA_____w0"
    )
