"""The frames of the server, their codes, and the nesting of JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.exceptions import ProtocolError
from realtime.protocol import frames
from realtime.protocol.events import Cursor
from realtime.protocol.frames import (
    MAX_NESTING,
    CloseCode,
    ErrorCode,
    Reset,
    check_version,
    frame,
    members_frames,
    nesting,
    reset,
    welcome,
)
from tests.protocol.strategies import FIELDS, almost_json, any_text, json_values

CURSOR = Cursor("epoch", 17, 0xABC)


def test_every_exported_name_exists():
    assert all(hasattr(frames, name) for name in frames.__all__)


def depth(value):
    inside = value.values() if isinstance(value, dict) else value
    if isinstance(value, list | dict):
        return 1 + max(map(depth, inside), default=0)
    return 0


@given(st.integers(0, 150), json_values)
def test_nesting_above_the_limit_is_measured_exactly(levels, value):
    for _ in range(levels):
        value = ["[[]", value]
    measured = nesting(json.dumps(value))
    assert measured == depth(value) or depth(value) <= measured <= MAX_NESTING


def test_brackets_inside_strings_do_not_count_as_nesting():
    assert nesting(json.dumps(["[" * 500, '"[\\"[' * 100])) == 1


@given(almost_json.map(lambda text: text * 20))
def test_the_nesting_of_any_text_can_be_measured(text):
    assert nesting(text) >= 0


def test_measuring_the_nesting_of_unclosed_strings_takes_linear_time():
    # Quadratic time would take minutes here.
    assert nesting("[" * 200 + '"' + '\\"' * 1_000_000) == 200


@given(st.dictionaries(st.sampled_from(FIELDS[1:]), st.none() | st.integers() | any_text))
def test_a_frame_is_one_json_object_in_ascii_without_nulls(fields):
    text = frame("x", **fields)
    assert text.isascii()
    sent = {"type": "x"} | {key: value for key, value in fields.items() if value is not None}
    assert json.loads(text) == json.loads(json.dumps(sent))
    assert list(json.loads(text)) == list(sent)


def test_heartbeat_and_reset_look_as_documented():
    assert frames.HEARTBEAT == '{"type":"heartbeat"}'
    assert reset("a", CURSOR, Reset.TRIMMED) == (
        '{"type":"reset","topic":"a","cursor":"epoch.17.00000abc","reason":"trimmed"}'
    )


def test_welcome_has_a_user_field_even_for_an_anonymous_user():
    assert json.loads(welcome("c", None, [])) == {
        "type": "welcome",
        "connection": "c",
        "user": None,
        "topics": [],
        "heartbeat": 25,
        "version": 1,
    }
    assert '"user":"7","topics":["user.7","everyone"]' in welcome("c", "7", ["user.7", "everyone"])


def test_a_short_member_list_is_one_frame():
    assert members_frames("room.a", ['{"id":"user.7"}', '{"id":"user.8"}'], 3) == [
        '{"type":"members","topic":"room.a","version":3,"members":[{"id":"user.7"},{"id":"user.8"}]}'
    ]
    assert members_frames("room.a", [], 0, id=5) == [
        '{"type":"members","id":5,"topic":"room.a","version":0,"members":[]}'
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 31])
def test_a_long_member_list_is_split_into_frames_of_limited_size(count):
    members = [json.dumps({"id": f"user.{number:03}"}) for number in range(count)]
    texts = members_frames("room.a", members, 9, id=4, max_characters=50)
    parts = [json.loads(text) for text in texts]
    assert [json.dumps(member) for part in parts for member in part["members"]] == members
    assert [part.get("more", False) for part in parts] == [True] * (len(parts) - 1) + [False]
    assert {(part["type"], part["id"], part["version"]) for part in parts} == {("members", 4, 9)}
    for part in parts:
        assert sum(len(json.dumps(member)) for member in part["members"]) <= 50 + len(members[0])
    unsplit = members_frames("room.a", members, 9, max_characters=float("inf"))
    assert len(unsplit) == 1


@pytest.mark.parametrize("version", [None, "1"])
def test_version_one_is_supported(version):
    check_version(version)


@pytest.mark.parametrize("version", ["", "2", "01", "1 ", "x" * 1000])
def test_any_other_version_is_refused_with_4406(version):
    with pytest.raises(ProtocolError, match="connect with") as caught:
        check_version(version)
    assert (caught.value.code, caught.value.close_code) == ("bad_version", 4406)


def test_every_close_code_can_be_sent_by_daphne_and_has_its_own_reason():
    assert all(4400 <= code <= 4599 for code in CloseCode)
    assert len({code.reason for code in CloseCode}) == len(CloseCode)
    assert CloseCode(4512) is CloseCode.RESTART


def test_only_temporary_errors_say_retry():
    assert {code for code in ErrorCode if code.retry} == {"rate_limited", "busy", "unavailable"}
