"""Events are encoded once, and the same bytes are sent to all clients."""

import datetime
import decimal
import json
import re

import pytest
from django.core.serializers.json import DjangoJSONEncoder
from hypothesis import given
from hypothesis import strategies as st

from realtime.exceptions import DataNotSerializable, DataTooLarge
from realtime.protocol import encoders
from realtime.protocol.cursors import compose, entry
from realtime.protocol.encoders import (
    Bundle,
    Frame,
    Kind,
    Wire,
    bundle,
    encode_data,
    event_frame,
    http_chunk,
    sse_chunk,
    websocket_frame,
)
from realtime.protocol.events import Cursor, Event
from realtime.protocol.frames import MAX_NESTING, escape_html

LIMIT = 65_536
default = DjangoJSONEncoder().default

# Every character, including lone surrogates, and the floats that JSON supports.
any_text = st.text(st.characters(), max_size=20)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
json_values = st.recursive(
    scalars | any_text,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(any_text, inner, max_size=5),
    max_leaves=20,
)
cursors = st.builds(
    Cursor,
    st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True),
    st.integers(0, 10**17),
    st.integers(0, 2**32 - 1),
)
events = st.builds(
    Event,
    topic=any_text,
    name=any_text,
    json=json_values.map(lambda value: encode_data(value, default, LIMIT)),
    cursor=st.none() | cursors,
    time=st.none() | st.floats(0, 1e11),
    origin=st.none() | any_text,
)


def encode(value, limit=LIMIT):
    return encode_data(value, default, limit)


def nested(levels):
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


def joined(value):
    """Join adjacent surrogate halves, as every JSON parser does."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    if isinstance(value, list):
        return [joined(item) for item in value]
    if isinstance(value, dict):
        return {joined(key): joined(item) for key, item in value.items()}
    return value


def test_the_module_exports_its_public_names():
    functions = ["bundle", "encode_data", "event_frame", "http_chunk", "sse_chunk"]
    functions += ["stream_entry", "websocket_frame"]
    assert encoders.__all__ == ["Bundle", "Frame", "Kind", "Wire", *functions]


@given(events)
def test_a_frame_is_encoded_once_for_each_wire_format(event):
    frame = Frame(event_frame(event), ("orders.1", Cursor("e", 1, 2)), Kind.EVENT)
    assert frame.is_event
    assert frame.size == len(frame.text.encode())
    assert json.loads(frame.text) == json.loads(event_frame(event))
    text, line = frame.text, sse_chunk(frame.text)
    id = f"id: {compose([entry('orders.1', Cursor('e', 1, 2))])}\n".encode()
    assert frame.wire(Wire.WEBSOCKET) == websocket_frame(text)
    assert frame.wire(Wire.LINE) == line
    assert frame.wire(Wire.STREAM) == http_chunk(line + b"\n")
    assert frame.wire(Wire.STREAM_WITH_ID) == http_chunk(line + id + b"\n")
    assert all(frame.wire(form) is frame.wire(form) for form in Wire)
    assert not Frame('{"type":"heartbeat"}').is_event


@given(st.lists(events, min_size=1, max_size=4))
def test_a_bundle_is_the_concatenation_of_its_frames(some):
    frames = [Frame(event_frame(event), ("orders.1", Cursor("e", 1, 2))) for event in some]
    together = bundle(frames)
    assert list(together.frames) == frames
    assert together.size == sum(frame.size for frame in frames)
    for form in Wire:
        assert together.wire(form) == b"".join(frame.wire(form) for frame in frames)
        assert together.wire(form) is together.wire(form)
    assert isinstance(together, Frame if len(frames) == 1 else Bundle)


@given(events)
def test_a_frame_has_no_character_of_html_and_keeps_its_values(event):
    text = event_frame(event)
    frame = Frame(text, ("orders.1", Cursor("e", 1, 2)))
    assert not set(frame.text) & set("<>&")
    assert json.loads(frame.text) == json.loads(text)


def test_html_is_escaped_in_keys_and_values():
    data = encode({"<b>": "a & b", "path": "C:\\<x>"})
    assert escape_html(data) == (r'{"\u003cb\u003e":"a \u0026 b","path":"C:\\\u003cx\u003e"}')
    assert json.loads(escape_html(data)) == json.loads(data)


def test_a_frame_that_changes_no_cursor_has_no_id():
    frame = Frame('{"type":"heartbeat"}')
    assert frame.wire(Wire.STREAM_WITH_ID) == frame.wire(Wire.STREAM)


def test_an_empty_part_makes_no_chunk_because_that_would_end_the_body():
    assert http_chunk(b"") == b""
    assert http_chunk(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"


@given(json_values)
def test_every_json_value_can_be_decoded_from_its_utf8_bytes(value):
    assert json.loads(encode(value).encode()) == joined(value)


def test_text_outside_ascii_is_not_escaped_and_its_size_is_measured_in_utf8():
    assert encode("añ€😀") == '"añ€😀"'
    assert encode("añ€😀", limit=12)
    with pytest.raises(DataTooLarge) as caught:
        encode("añ€😀", limit=11)
    assert (caught.value.size, caught.value.limit) == (12, 11)


def test_a_lone_surrogate_is_escaped():
    assert encode({"\udc80": "é\ud800"}) == '{"\\udc80":"é\\ud800"}'


def test_values_that_the_default_converts_are_encoded():
    data = {"at": datetime.date(2026, 11, 24), "price": decimal.Decimal("9.90")}
    assert encode(data) == '{"at":"2026-11-24","price":"9.90"}'


def test_a_later_change_of_the_data_does_not_change_the_text():
    data = {"lines": [1]}
    text = encode(data)
    data["lines"].append(2)
    assert text == '{"lines":[1]}'


class Odd:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("data", "path", "reason"),
    [
        (float("nan"), "data", "JSON has no nan"),
        ({"lines": [1, 2, 3, {"price": float("-inf")}]}, "data['lines'][3]['price']", "no -inf"),
        ((1, ({"a": object()},)), "data[1][0]['a']", "it is of type object"),
        ([{1, 2}], "data[0]", "it is of type set"),
        ({"ok": {(1, 2): 3}}, "data['ok']", "its key (1, 2) is of type tuple"),
        ({Odd(): 1}, "data", "its key <Odd> is of type Odd"),
        ({float("inf"): 1}, "data", "its key inf has no JSON form"),
        ([10**5000], "data[0]", "too many digits"),
        ({10**5000: 1}, "data", "too many digits"),
        ({"é\ud800": [b""]}, r"data['\xe9\ud800'][0]", "it is of type bytes"),
    ],
)
def test_the_error_for_a_value_without_json_form_has_its_path(data, path, reason):
    with pytest.raises(DataNotSerializable) as caught:
        encode(data)
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert str(caught.value).encode()


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 10**300])
def test_an_integer_that_javascript_cannot_read_is_refused_with_its_path_where_it_must_be_exact(
    number,
):
    data = {"rows": [{"id": 1}, {"id": number}]}
    assert json.loads(encode(data)) == data
    with pytest.raises(DataNotSerializable, match=r"above 2\*\*53 .* send a string") as caught:
        encode_data(data, default, LIMIT, exact=True)
    assert caught.value.path == "data['rows'][1]['id']"


def test_other_numbers_are_exact():
    data = [2**53, -(2**53), 1e300, str(2**60), True, {2**60: None}]
    assert encode_data(data, default, LIMIT, exact=True) == encode(data)


def test_the_error_for_an_object_names_its_type_once_and_says_what_to_publish_instead():
    Order = type("Order", (), {})
    with pytest.raises(DataNotSerializable) as caught:
        encode({"order": Order()})
    text = str(caught.value)
    assert text.count("Order") == 1
    assert "Object of type" not in text
    assert text.count("JSON") == 1
    assert "model_to_dict(…) or .values()" in text


def test_the_error_keeps_the_reason_that_the_default_raised():
    def default(value):
        raise ValueError("say it in words")

    with pytest.raises(DataNotSerializable, match=r"it is of type object \(say it in words\)"):
        encode_data(object(), default, LIMIT)


def test_the_error_for_a_value_that_contains_itself_has_its_path():
    lines = [1]
    data = {"lines": lines}
    lines.append(data)
    with pytest.raises(DataNotSerializable) as caught:
        encode(data)
    assert caught.value.path == "data['lines'][1]"
    assert caught.value.reason == "it contains itself"


def test_a_value_that_occurs_twice_does_not_contain_itself():
    line = [1]
    assert encode([line, line]) == "[[1],[1]]"
    with pytest.raises(DataNotSerializable, match=r"data\[2\]"):
        encode([line, line, float("nan")])


@pytest.mark.parametrize("levels", [MAX_NESTING + 1, 900, 100_000])
def test_data_nested_too_deeply_is_rejected_at_any_depth(levels):
    with pytest.raises(DataNotSerializable, match="nested deeper than 100 levels") as caught:
        encode(nested(levels))
    assert len(caught.value.path) <= 125


def test_data_nested_to_the_limit_is_encoded():
    assert encode(nested(MAX_NESTING)) == "[" * MAX_NESTING + "]" * MAX_NESTING


def test_many_adjacent_values_do_not_count_as_nesting():
    data = [{"a": ["[[["]}] * 1000
    assert json.loads(encode(data)) == data


def test_a_default_that_returns_its_argument_is_detected():
    with pytest.raises(DataNotSerializable, match="contains itself"):
        encode_data({"a": object()}, lambda value: value, LIMIT)


def test_a_default_with_changing_results_still_raises_the_documented_error():
    answers = iter([float("nan"), 1])
    with pytest.raises(DataNotSerializable, match=r"^data cannot be sent as JSON: .+"):
        encode_data(object(), lambda value: next(answers), LIMIT)


@given(events)
def test_an_event_frame_is_one_json_object_with_the_fields_of_the_event(event):
    expected = {"type": "event", "topic": event.topic, "event": event.name, "data": event.data}
    if event.cursor:
        expected |= {"cursor": str(event.cursor), "seq": event.cursor.seq}
    expected |= {k: v for k in ("time", "origin") if (v := getattr(event, k)) is not None}
    frame = event_frame(event)
    assert json.loads(frame) == joined(expected)
    assert list(json.loads(frame)) == list(expected)
    assert event.json in frame


def test_an_event_frame_looks_as_documented():
    event = Event("orders.42", "shipped", '{"eta":"é"}', Cursor("Ab", 18, 255), 1763801234.123, "o")
    assert event_frame(event) == (
        '{"type":"event","topic":"orders.42","event":"shipped","data":{"eta":"é"}'
        ',"cursor":"Ab.18.000000ff","seq":18,"time":1763801234.123,"origin":"o"}'
    )


def read_websocket_frame(frame):
    """Parse a frame as RFC 6455, section 5.2 specifies."""
    assert frame[0] == 0b1000_0001  # final, text
    assert frame[1] < 128  # not masked
    size = {126: 2, 127: 8}.get(frame[1], 0)
    length = int.from_bytes(frame[2 : 2 + size], "big") if size else frame[1]
    assert len(frame) == 2 + size + length
    return size, frame[2 + size :].decode()


@pytest.mark.parametrize(
    ("length", "size"),
    [(0, 0), (1, 0), (125, 0), (126, 2), (127, 2), (65_535, 2), (65_536, 8), (1_000_000, 8)],
)
def test_a_websocket_frame_has_the_shortest_length_field(length, size):
    assert read_websocket_frame(websocket_frame("x" * length)) == (size, "x" * length)


@given(events)
def test_a_websocket_frame_contains_the_text(event):
    assert read_websocket_frame(websocket_frame(event_frame(event)))[1] == event_frame(event)


@given(events)
def test_an_sse_chunk_is_one_data_line(event):
    chunk = sse_chunk(event_frame(event)).decode()
    lines = re.split(r"\r\n|\r|\n", chunk)
    assert lines == ["data: " + event_frame(event), ""]
    assert "\0" not in chunk
