"""The frames of clients are parsed into commands, or refused with what to send instead."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.exceptions import ProtocolError
from realtime.protocol import commands
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
from realtime.protocol.frames import MAX_INTEGER, MAX_NESTING, ErrorCode
from tests.protocol.strategies import almost_commands, almost_json, json_values

LIMIT = 65_536
CURSOR = Cursor("epoch", 17, 0xABC)
command_like = almost_commands("orders.42", str(CURSOR), "@1.5")


def test_every_exported_name_exists():
    assert all(hasattr(commands, name) for name in commands.__all__)


def refused(text, limit=LIMIT):
    with pytest.raises(ProtocolError) as caught:
        parse(text, limit)
    return caught.value


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
def test_each_command_is_parsed(text, expected):
    assert parse(text, LIMIT) == expected


def test_unknown_fields_and_nulls_are_ignored_and_the_last_of_two_equal_keys_counts():
    text = '{"type":"x","type":"subscribe","id":null,"topic":"a","since":null,"last":null,"y":[1]}'
    assert parse(text, LIMIT) == Subscribe(None, "a")


@pytest.mark.parametrize("fields", ['"since":""', '"since":"","last":""', '"last":"","since":null'])
def test_an_empty_string_counts_as_none_as_in_a_url(fields):
    assert parse(f'{{"type":"subscribe","id":"","topic":"a",{fields}}}', LIMIT) == Subscribe(
        None, "a"
    )
    since = f'{{"type":"subscribe","topic":"a","last":"","since":"{CURSOR}"}}'
    assert parse(since, LIMIT) == Subscribe(None, "a", CURSOR)
    assert parse('{"type":"subscribe","topic":"a","since":"","last":3}', LIMIT).last == 3


def test_a_token_is_not_in_the_repr():
    assert "secret" not in repr(Auth(1, "secret"))


def outcome(text):
    try:
        return parse(text, LIMIT)
    except ProtocolError as error:
        return error


@given(st.text() | almost_json | json_values.map(json.dumps) | command_like)
def test_any_text_is_a_command_or_a_protocol_error(text):
    result = outcome(text)
    if isinstance(result, ProtocolError):
        assert ErrorCode(result.code)
        assert result.reason
        assert result.close_code is None


@given(command_like)
def test_a_valid_id_is_part_of_every_command_and_error(text):
    id = json.loads(text).get("id")
    if type(id) is not int or abs(id) > MAX_INTEGER:
        id = None
    result = outcome(text)
    if getattr(result, "code", "") != "bad_json":  # another field has a number out of range
        assert result.id == id


@pytest.mark.parametrize(
    ("text", "code", "message"),
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
def test_a_frame_that_is_not_a_command_is_refused_with_what_to_send_instead(text, code, message):
    error = refused(text)
    assert error.code == code
    assert message in error.reason
    assert error.close_code is None


def test_the_size_of_a_frame_is_measured_in_utf8():
    text = '{"type":"ping","x":"é"}'
    assert parse(text, 24) == Ping()
    assert refused(text, 23).code == "too_large"
    assert refused("\ud800" * 10, 29).code == "too_large"
    assert refused("x" * LIMIT + "x").code == "too_large"


def test_data_is_accepted_up_to_the_nesting_limit_of_events():
    def publish(levels):
        data = "[" * levels + "]" * levels
        return f'{{"type":"publish","topic":"a","event":"e","data":{data}}}'

    assert isinstance(parse(publish(MAX_NESTING), LIMIT), Publish)
    assert "at most 100 levels" in refused(publish(MAX_NESTING + 1)).reason
    assert "at most 100 levels" in refused("[" * LIMIT).reason
    assert "at most 100 levels" in refused('{"a":' * 5000).reason
