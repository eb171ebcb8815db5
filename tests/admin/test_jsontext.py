"""Parsing JSON that a person typed."""

from typing import Any

import pytest

from realtime.admin.jsontext import InvalidJson, parse, pretty


def error_of(text: str) -> InvalidJson:
    with pytest.raises(InvalidJson) as raised:
        parse(text)
    return raised.value


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ('{"a": 1,\n "a": 2}', 2, 2, 'the name "a" is already used in this object'),
        ('[{"b": {"b": 1}, "\\u0062": 2}]', 1, 18, 'the name "\\u0062" is already used'),
        ('{"a": "a", "b": ":", "b": 1}', 1, 22, 'the name "b"'),
        ('{"a": 1, "b": {"c": [1, {"a": 2}]}, "a": nix', 1, 42, "a value is missing here"),
        ('{"a": "1e999",\n "b": -1e999}', 2, 7, "this number is too large"),
        ("[1, 1e99, 1e999]", 1, 11, "this number is too large"),
        (f"[1,\n{'1' * 5_000}]", 2, 1, "this number has too many digits"),
        ('["-Infinity", -Infinity]', 1, 15, "JSON has no -Infinity"),
        ("\ufeff1", 1, 1, "an invisible character, a byte order mark"),
        ("[" * 101 + "]" * 101, 1, 101, "nested deeper than 100 levels"),
        ('{"a":' * 600, 1, 501, "nested deeper than 100 levels"),
        ("[\n" * 2_000, 101, 1, "nested deeper than 100 levels"),
        ("[" * 100_000 + "]" * 100_000, 1, 101, "nested deeper than 100 levels"),
    ],
)
def test_an_error_names_its_line_and_column(text: str, line: int, column: int, reason: str) -> None:
    error = error_of(text)
    assert (error.line, error.column) == (line, column)
    assert reason in str(error)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"a": {"a": 1}, "b": ["a", "a", {"a": 2}]}', {"a": {"a": 1}, "b": ["a", "a", {"a": 2}]}),
        ("[" * 100 + "]" * 100, None),
        ('"[[[[' + "[" * 200 + '"', "[[[[" + "[" * 200),
        ("[-0, 1.5e3, 0.1, 12345678901234567890]", [0, 1500.0, 0.1, 12345678901234567890]),
    ],
)
def test_valid_json_that_resembles_an_error_is_parsed(text: str, data: Any) -> None:
    parsed = parse(text)
    if data is not None:
        assert parsed == data


@pytest.mark.parametrize("text", ["{", "[1,]", "{,}", '{"a" 1}', "\x00", '"\\q"', '"', "tru", "]"])
def test_every_error_of_the_parser_has_a_reason_of_ours(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert error_of(text).reason != "this is not JSON"
    monkeypatch.setattr("realtime.admin.jsontext._REASONS", {})
    assert error_of(text).reason == "this is not JSON"


def test_a_lone_surrogate_is_shown_as_its_escape() -> None:
    assert pretty("ä\ud800") == '"ä\\ud800"'
    assert parse(pretty({"\udfff": "😀"})) == {"\udfff": "😀"}
