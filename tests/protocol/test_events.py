"""Events and cursors are values, and a cursor can be parsed from its own text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.exceptions import InvalidCursor, InvalidEventName
from realtime.protocol.events import Cursor, Event, check_event_name

cursors = st.builds(
    Cursor,
    epoch=st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True),
    seq=st.integers(0, 10**18 - 1),
    tag=st.integers(0, 2**32 - 1),
)


@given(cursor=cursors)
def test_a_cursor_can_be_parsed_from_its_text(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


@given(text=st.text() | cursors.map(str).map(lambda text: text + "\n"))
def test_a_cursor_has_exactly_one_spelling(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except InvalidCursor:
        return
    assert str(cursor) == text


@pytest.mark.parametrize(
    "text",
    ["", "e.1", "e.01.00000000", "e.-1.00000000", "e.1.0000000G", "e.1.000000", "é.1.00000000"],
)
def test_other_spellings_are_rejected(text: str) -> None:
    with pytest.raises(InvalidCursor, match="exactly as the server gave it"):
        Cursor.parse(text)


@pytest.mark.parametrize("name", ["shipped", "order.shipped", "a:b", "x" * 100, "~@+-_9"])
def test_a_valid_event_name_is_returned(name: str) -> None:
    assert check_event_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 101, "a b", "a\n", "ä", "<b>", None, 5, b"shipped"])
def test_an_invalid_event_name_is_rejected(name: object) -> None:
    with pytest.raises(InvalidEventName, match="1 to 100 of the characters"):
        check_event_name(name)


def test_each_access_to_the_data_of_an_event_decodes_it_again() -> None:
    event = Event("orders.1", "shipped", '{"lines":[1]}', Cursor("e", 4, 1))
    event.data["lines"].append(2)
    assert event.data == {"lines": [1]}
    assert event.seq == 4
    assert Event("orders.1", "typing", "null").seq is None
