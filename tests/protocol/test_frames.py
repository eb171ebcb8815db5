import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.exceptions import ProtocolError
from realtime.protocol import commands, frames
from realtime.protocol.commands import (
    Auth,
    Call,
    Members,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
    parse,
)
from realtime.protocol.events import Cursor
from realtime.protocol.frames import (
    MAX_INTEGER,
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

LIMIT = 65_536
CURSOR = Cursor("epoch", 17, 0xABC)

any_text = st.text(st.characters(), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(any_text, inner, max_size=5),
    max_leaves=20,
)
keys = ["type", "id", "topic", "since", "last", "event", "data", "action", "token", "other"]
words = ["subscribe", "unsubscribe", "publish", "call", "members", "auth", "ping"]
field_values = json_values | st.sampled_from([*words, "orders.42", str(CURSOR), "@1.5"])
almost_commands = st.dictionaries(st.sampled_from(keys), field_values).map(json.dumps)
JSON_PIECES = [
    "{",
    "}",
    "[",
    "]",
    '"',
    "\\",
    ":",
    ",",
    '"type"',
    '"ping"',
    "1e999",
    "NaN",
    "\\ud800",
]
almost_json = st.lists(st.sampled_from(JSON_PIECES), max_size=50).map("".join)


def refused(text, limit=LIMIT):
    with pytest.raises(ProtocolError) as caught:
        parse(text, limit)
    return caught.value


def test_every_exported_name_exists():
    assert all(hasattr(frames, name) for name in frames.__all__)
    assert all(hasattr(commands, name) for name in commands.__all__)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type":"subscribe","id":1,"topic":"a.b"}', Subscribe(1, "a.b")),
        (f'{{"type":"subscribe","topic":"a","since":"{CURSOR}"}}', Subscribe(None, "a", CURSOR)),
        ('{"type":"subscribe","id":-1,"topic":"a","since":"@12"}', Subscribe(-1, "a", 12.0)),
        ('{"type":"subscribe","topic":"a","since":"@1.25"}', Subscribe(None, "a", 1.25)),
        ('{"type":"subscribe","id":0,"topic":"a","last":20}', Subscribe(0, "a", None, 20)),
        ('{"type":"unsubscribe","id":2,"topic":"a"}', Unsubscribe(2, "a")),
        (
            '{"type":"publish","id":3,"topic":"a","event":"typing","data":{"n":[1,null]}}',
            Publish(3, "a", "typing", {"n": [1, None]}),
        ),
        ('{"type":"publish","topic":"a","event":"typing"}', Publish(None, "a", "typing")),
        ('{"type":"call","id":4,"topic":"a","action":"x","data":1}', Call(4, "a", "x", 1)),
        ('{"type":"members","id":5,"topic":"a"}', Members(5, "a")),
        ('{"type":"auth","id":6,"token":"t"}', Auth(6, "t")),
        ('{"type":"ping"}', Ping()),
        ('{"type":"ping","id":9007199254740992}', Ping(MAX_INTEGER)),
    ],
)
def test_each_command_of_the_table_is_read(text, expected):
    assert parse(text, LIMIT) == expected


def test_unknown_fields_and_null_are_absence_and_the_last_of_two_equal_keys_counts():
    text = '{"type":"x","type":"subscribe","id":null,"topic":"a","since":null,"last":null,"y":[1]}'
    assert parse(text, LIMIT) == Subscribe(None, "a")


def test_a_token_is_not_shown():
    assert "secret" not in repr(Auth(1, "secret"))


def outcome(text):
    try:
        return parse(text, LIMIT)
    except ProtocolError as error:
        return error


@given(st.text() | almost_json | json_values.map(json.dumps) | almost_commands)
def test_whatever_comes_in_is_a_command_or_a_protocol_error(text):
    result = outcome(text)
    if isinstance(result, ProtocolError):
        assert ErrorCode(result.code)
        assert result.reason
        assert result.close_code is None


@given(almost_commands)
def test_a_readable_id_comes_back_with_every_outcome(text):
    id = json.loads(text).get("id")
    if type(id) is not int or abs(id) > MAX_INTEGER:
        id = None
    result = outcome(text)
    if getattr(result, "code", "") != "bad_json":  # a number out of range somewhere
        assert result.id == id


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("", "bad_json", "one JSON object"),
        ("hello", "bad_json", "one JSON object"),
        ('\ufeff{"type":"ping"}', "bad_json", "one JSON object"),
        ('{"type":"ping"}{}', "bad_json", "Extra data"),
        ('{"type":"ping","x":NaN}', "bad_json", "out of range"),
        ('{"type":"ping","x":-Infinity}', "bad_json", "out of range"),
        ('{"type":"ping","x":1e999}', "bad_json", "out of range"),
        ('{"type":"ping","x":' + "9" * 5000 + "}", "bad_json", "out of range"),
        ("[1]", "bad_frame", "JSON object such as"),
        ("null", "bad_frame", "JSON object such as"),
        ("{}", "bad_frame", "type is missing"),
        ('{"type":3}', "bad_frame", "type must be a string"),
        ('{"type":"ping","id":"1"}', "bad_frame", "id must be a whole number"),
        ('{"type":"ping","id":true}', "bad_frame", "id must be a whole number"),
        ('{"type":"ping","id":1.0}', "bad_frame", "id must be a whole number"),
        ('{"type":"ping","id":9007199254740993}', "bad_frame", "id must be a whole number"),
        ('{"type":"pong"}', "unknown_type", "'pong' is not a command; send one of subscribe"),
        ('{"type":"subscribe"}', "bad_frame", "topic is missing"),
        ('{"type":"subscribe","topic":["a"]}', "bad_frame", "topic must be a string"),
        ('{"type":"subscribe","topic":"a..b"}', "bad_topic", "not a valid topic name"),
        ('{"type":"subscribe","topic":"\\ud800"}', "bad_topic", "not a valid topic name"),
        ('{"type":"subscribe","topic":"$control"}', "bad_topic", "not a valid topic name"),
        ('{"type":"subscribe","topic":"a","last":-1}', "bad_frame", "last must be a whole number"),
        ('{"type":"subscribe","topic":"a","last":"5"}', "bad_frame", "last must be a whole number"),
        ('{"type":"subscribe","topic":"a","since":5}', "bad_frame", "since must be a string"),
        ('{"type":"subscribe","topic":"a","since":""}', "bad_cursor", "subscribe without since"),
        ('{"type":"subscribe","topic":"a","since":"@-1"}', "bad_cursor", "subscribe without since"),
        ('{"type":"subscribe","topic":"a","since":"@1e9"}', "bad_cursor", "without since"),
        ('{"type":"subscribe","topic":"a","since":"@\u0661"}', "bad_cursor", "without since"),
        ('{"type":"subscribe","topic":"a","since":"@1","last":1}', "bad_frame", "not both"),
        ('{"type":"publish","topic":"a"}', "bad_frame", "event is missing"),
        ('{"type":"publish","topic":"a","event":"a b"}', "bad_frame", "not a valid event name"),
        ('{"type":"call","topic":"a","action":""}', "bad_frame", "action is missing"),
        ('{"type":"auth"}', "bad_frame", "token is missing"),
    ],
)
def test_what_is_not_a_command_is_refused_with_what_to_send(text, code, says):
    error = refused(text)
    assert error.code == code
    assert says in error.reason
    assert error.close_code is None


def test_the_size_of_a_frame_is_counted_in_utf8():
    text = '{"type":"ping","x":"é"}'
    assert parse(text, 24) == Ping()
    assert refused(text, 23).code == "too_large"
    assert refused("\ud800" * 10, 29).code == "too_large"
    assert refused("x" * LIMIT + "x").code == "too_large"


def test_data_is_read_to_the_nesting_that_events_may_have():
    def publish(levels):
        data = "[" * levels + "]" * levels
        return f'{{"type":"publish","topic":"a","event":"e","data":{data}}}'

    assert isinstance(parse(publish(MAX_NESTING), LIMIT), Publish)
    assert "at most 100 levels" in refused(publish(MAX_NESTING + 1)).reason
    assert "at most 100 levels" in refused("[" * LIMIT).reason
    assert "at most 100 levels" in refused('{"a":' * 5000).reason


def depth(value):
    inside = value.values() if isinstance(value, dict) else value
    if isinstance(value, list | dict):
        return 1 + max(map(depth, inside), default=0)
    return 0


@given(st.integers(0, 150), json_values)
def test_nesting_beyond_the_limit_is_exact(levels, value):
    for _ in range(levels):
        value = ["[[]", value]
    measured = nesting(json.dumps(value))
    assert measured == depth(value) or depth(value) <= measured <= MAX_NESTING


def test_brackets_in_strings_are_not_nesting():
    assert nesting(json.dumps(["[" * 500, '"[\\"[' * 100])) == 1


@given(almost_json.map(lambda text: text * 20))
def test_nesting_of_any_text_is_a_number(text):
    assert nesting(text) >= 0


def test_nesting_of_strings_that_do_not_end_takes_linear_time():
    # Quadratic time would be minutes here.
    assert nesting("[" * 200 + '"' + '\\"' * 1_000_000) == 200


@given(st.dictionaries(st.sampled_from(keys[1:]), st.none() | st.integers() | any_text))
def test_a_frame_is_one_ascii_json_object_without_none(fields):
    text = frame("x", **fields)
    assert text.isascii()
    sent = {"type": "x"} | {key: value for key, value in fields.items() if value is not None}
    assert json.loads(text) == json.loads(json.dumps(sent))
    assert list(json.loads(text)) == list(sent)


def test_frames_for_many_read_as_documented():
    assert frames.HEARTBEAT == '{"type":"heartbeat"}'
    assert reset("a", CURSOR, Reset.TRIMMED) == (
        '{"type":"reset","topic":"a","cursor":"epoch.17.00000abc","reason":"trimmed"}'
    )


def test_welcome_has_a_user_also_where_it_is_nobody():
    assert json.loads(welcome("c", None, [])) == {
        "type": "welcome",
        "connection": "c",
        "user": None,
        "topics": [],
        "heartbeat": 25,
        "version": 1,
    }
    assert '"user":"7","topics":["user.7","everyone"]' in welcome("c", "7", ["user.7", "everyone"])


def test_a_short_list_of_members_is_one_frame():
    assert members_frames("room.a", ['{"id":"user.7"}', '{"id":"user.8"}'], 3) == [
        '{"type":"members","topic":"room.a","version":3,"members":[{"id":"user.7"},{"id":"user.8"}]}'
    ]
    assert members_frames("room.a", [], 0, id=5) == [
        '{"type":"members","id":5,"topic":"room.a","version":0,"members":[]}'
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 31])
def test_a_long_list_of_members_comes_in_parts_that_are_no_longer_than_told(count):
    members = [json.dumps({"id": f"user.{number:03}"}) for number in range(count)]
    texts = members_frames("room.a", members, 9, id=4, max_characters=50)
    parts = [json.loads(text) for text in texts]
    assert [json.dumps(member) for part in parts for member in part["members"]] == members
    assert [part.get("more", False) for part in parts] == [True] * (len(parts) - 1) + [False]
    assert {(part["type"], part["id"], part["version"]) for part in parts} == {("members", 4, 9)}
    for part in parts:
        assert sum(len(json.dumps(member)) for member in part["members"]) <= 50 + len(members[0])
    whole = members_frames("room.a", members, 9, max_characters=float("inf"))
    assert len(whole) == 1


@pytest.mark.parametrize("version", [None, "1"])
def test_version_one_is_spoken(version):
    check_version(version)


@pytest.mark.parametrize("version", ["", "2", "01", "1 ", "x" * 1000])
def test_another_version_is_refused_with_4406(version):
    with pytest.raises(ProtocolError, match="connect with") as caught:
        check_version(version)
    assert (caught.value.code, caught.value.close_code) == ("bad_version", 4406)


def test_close_codes_can_be_sent_by_every_server_and_have_a_reason_each():
    assert all(4400 <= code <= 4599 for code in CloseCode)
    assert len({code.reason for code in CloseCode}) == len(CloseCode)
    assert CloseCode(4512) is CloseCode.RESTART


def test_only_what_passes_by_itself_says_retry():
    assert {code for code in ErrorCode if code.retry} == {"rate_limited", "busy", "unavailable"}
