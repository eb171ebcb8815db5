"""The grammar of topic names and of the patterns that match them."""

import uuid

import pytest
from django.urls.converters import get_converters
from hypothesis import assume, given
from hypothesis import strategies as st

from realtime.exceptions import InvalidPattern, InvalidTopicName
from realtime.protocol.names import (
    INTERNAL,
    MAX_LENGTH,
    Pattern,
    check_topic_name,
    escape_key,
    is_internal,
    nearest,
    unescape_key,
)

ALPHABET = "ABCXYZabcxyz0123456789_~@+:-"
CONVERTERS = get_converters()

segments = st.text(ALPHABET, min_size=1, max_size=12)
names = st.lists(segments, min_size=1, max_size=6).map(".".join)
VALUES = {
    "int": st.integers(min_value=0),
    "slug": st.text("abcXYZ019_-", min_size=1, max_size=12),
    "str": segments,
    "uuid": st.uuids(),
}


def pattern(text: str) -> Pattern:
    return Pattern(text, CONVERTERS)


@st.composite
def patterns_with_values(draw: st.DrawFn) -> tuple[Pattern, dict[str, object]]:
    """Draw a pattern of at most five segments, and values for it."""
    parts, values = [], {}
    for number in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            parts.append(draw(segments))
            continue
        converter = draw(st.sampled_from(sorted(VALUES)))
        before, after = draw(st.text(ALPHABET, max_size=3)), draw(st.text(ALPHABET, max_size=3))
        parts.append(f"{before}<{converter}:v{number}>{after}")
        values[f"v{number}"] = draw(VALUES[converter])
    return pattern(".".join(parts)), values


# Names


@given(names)
def test_segments_of_the_alphabet_joined_by_dots_are_a_valid_name(name: str) -> None:
    assert check_topic_name(name) == name


@given(st.text(max_size=30))
def test_a_name_is_valid_exactly_if_its_segments_are(text: str) -> None:
    alphabet = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_~@+:-")
    good = all(part and set(part) <= alphabet for part in text.split("."))
    if good:
        assert check_topic_name(text) == text
    else:
        with pytest.raises(InvalidTopicName):
            check_topic_name(text)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        (".", "dot"),
        ("a.", "dot"),
        (".a", "dot"),
        ("a..b", "two dots in a row"),
        ("a b", "' '"),
        ("orders.42\n", r"'\n'"),
        ("orders/42", "'/'"),
        ("ordërs", "'ë'"),
        ("orders.४२", "'४'"),
        ("$control", "'$'"),
        ("x" * (MAX_LENGTH + 1), "201 characters"),
        (None, "NoneType"),
        (b"orders.42", "bytes"),
    ],
)
def test_an_invalid_name_is_rejected_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(InvalidTopicName) as caught:
        check_topic_name(name)
    assert reason in str(caught.value)


def test_a_name_of_the_maximum_length_is_valid() -> None:
    assert check_topic_name("x" * MAX_LENGTH)


def test_internal_topics_are_outside_the_grammar() -> None:
    assert is_internal(f"{INTERNAL}control")
    assert not is_internal("control")


# Patterns


@given(patterns_with_values())
def test_a_pattern_matches_the_name_that_it_built_and_returns_its_values(
    case: tuple[Pattern, dict[str, object]],
) -> None:
    built, values = case
    try:
        name = built.reverse(values)
    except InvalidTopicName as error:
        assume("characters and" not in str(error))
        raise
    assert built.match(name) == values
    assert built.fill(values) == (name, values)


@given(patterns_with_values(), names)
def test_a_name_that_matches_can_be_rebuilt_from_its_values(
    case: tuple[Pattern, dict[str, object]], name: str
) -> None:
    values = case[0].match(name)
    if values is not None:
        assert case[0].reverse(values) == name


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("everyone", "everyone", {}),
        ("orders.<int:pk>", "orders.42", {"pk": 42}),
        ("orders.<int:pk>", "orders.0", {"pk": 0}),
        ("orders.<int:pk>", "orders.007", None),
        ("orders.<int:pk>", "orders.-1", None),
        ("orders.<int:pk>", "orders.42.lines", None),
        ("orders.<int:pk>", "orders", None),
        ("orders.<int:pk>", "Orders.42", None),
        ("notes.<name>", "notes.a", {"name": "a"}),
        ("notes.<str:name>", "notes.a.b", None),
        ("<slug:shop>.<int:pk>", "a-b.7", {"shop": "a-b", "pk": 7}),
        ("<slug:shop>.<int:pk>", "a~b.7", None),
        ("room-<int:a>+x", "room-5+x", {"a": 5}),
        ("room-<int:a>+x", "room-+x", None),
        ("a<str:v>a", "aba", {"v": "b"}),
        ("a<str:v>a", "a", None),
        ("a<str:v>a", "aa", None),
        ("u.<uuid:v>", f"u.{uuid.UUID(int=7)}", {"v": uuid.UUID(int=7)}),
        ("u.<uuid:v>", f"u.{uuid.UUID(int=0xABC)}".upper(), None),
    ],
)
def test_a_name_is_matched_against_a_pattern(
    text: str, name: str, values: dict[str, object] | None
) -> None:
    assert pattern(text).match(name) == values


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "such as 'orders.<int:pk>'"),
        (None, "such as 'orders.<int:pk>'"),
        ("a..b", "empty"),
        ("a.", "empty"),
        ("a b.<int:pk>", "'a b'"),
        ("a.ü<int:pk>", "'ü'"),
        ("$a", "'$a'"),
        ("files.<path:name>", "path matches more than one segment"),
        ("a.<int:x><int:y>", "with one <converter:name>"),
        ("a.<int:x", "with one <converter:name>"),
        ("a.x>", "with one <converter:name>"),
        ("a.<int:x>.<int:x>", "two values have the same name"),
        ("a.<money:x>", "only int, slug, str, uuid"),
        ("a.<int:>", "attribute's name"),
        ("a.<int:class>", "attribute's name"),
        ("a.<int:_x>", "attribute's name"),
        ("a.<int:1x>", "attribute's name"),
        ("x" * MAX_LENGTH + ".<int:pk>", "would have more than 200"),
    ],
)
def test_an_invalid_pattern_is_rejected_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidPattern) as caught:
        pattern(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "values", "reason"),
    [
        ("orders.<int:pk>", {"pk": "x"}, "it does not match the converter 'int'"),
        ("orders.<int:pk>", {"pk": None}, "pk=None"),
        ("orders.<int:pk>", {"pk": -1}, "pk=-1"),
        ("orders.<int:pk>", {"pk": "007"}, "pk='007'"),
        ("notes.<str:name>", {"name": None}, "takes text, not NoneType"),
        ("notes.<str:name>", {"name": ""}, "name=''"),
        ("notes.<str:name>", {"name": "a.b"}, "'.' cannot be part of"),
        ("notes.<str:name>", {"name": "Müller & Söhne"}, "pass name=realtime.escape_key(…)"),
        ("notes.<str:name>", {"name": "a/b"}, "pass name=realtime.escape_key(…)"),
        ("notes.<str:name>", {"name": uuid.UUID(int=7)}, "pass realtime.escape_key(key)"),
        ("notes.<str:name>", {"name": (1, 2)}, "pass realtime.escape_key(key)"),
        ("notes.<str:name>", {"name": "a b"}, "' '"),
        ("notes.<str:name>", {"name": "a" * 300}, "306 characters"),
    ],
)
def test_a_value_that_cannot_be_part_of_a_name_is_rejected(
    text: str, values: dict[str, object], reason: str
) -> None:
    with pytest.raises(InvalidTopicName) as caught:
        pattern(text).reverse(values)
    assert reason in str(caught.value)


def test_fill_returns_the_values_that_a_match_would_return() -> None:
    assert pattern("orders.<int:pk>").fill({"pk": "42"}) == ("orders.42", {"pk": 42})


@pytest.mark.parametrize(
    ("values", "faults"),
    [
        ({}, "without pk"),
        ({"pk": 1, "id": 1}, "with the unknown id"),
        ({"id": 1}, "without pk and with the unknown id"),
    ],
)
def test_missing_and_unknown_values_are_named(values: dict[str, object], faults: str) -> None:
    with pytest.raises(TypeError, match=faults):
        pattern("orders.<int:pk>").reverse(values)


class MoneyConverter:
    """Converts two texts to one value, and rejects one text and one value."""

    regex = "[0-9]+(?:[.,][0-9]{2})?"

    def to_python(self, value: str) -> int:
        if value == "13":
            raise ValueError("unlucky")
        return int(value.replace(",", "")) * (1 if "," in value else 100)

    def to_url(self, value: int) -> str:
        return f"{value // 100},{value % 100:02}" if value % 100 else str(value // 100)


def test_a_converter_of_the_project_decides_which_names_match() -> None:
    prices = Pattern("prices.eur<money:cents>", {"money": MoneyConverter()})
    assert prices.match("prices.eur5") == {"cents": 500}
    assert prices.match("prices.eur13") is None
    assert prices.match("prices.eur5.00") is None
    with pytest.raises(InvalidTopicName, match="cannot convert it"):
        prices.reverse({"cents": "much"})


# Specificity and shape


@pytest.mark.parametrize(
    "texts",
    [
        ["orders.new", "orders.<int:pk>"],
        ["orders.<int:pk>", "<slug:shop>.new"],
        ["a.<x>.c", "<x>.b.c"],
        ["orders.new", "orders.n<x>", "orders.<x>"],
        ["orders.ab<x>", "orders.a<x>", "orders.<x>b", "orders.<x>"],
    ],
)
def test_the_more_specific_pattern_sorts_first(texts: list[str]) -> None:
    by_specificity = sorted(map(pattern, reversed(texts)), key=lambda each: each.specificity)
    assert [each.text for each in by_specificity] == texts


def test_patterns_that_differ_only_in_converters_and_value_names_have_the_same_shape() -> None:
    assert pattern("a.<int:x>-b").shape == pattern("a.<slug:y>-b").shape
    assert len({pattern(text).shape for text in ("a.<x>", "a.<x>-b", "a.b", "a.b.<x>")}) == 4


@given(patterns_with_values(), patterns_with_values())
def test_patterns_that_do_not_overlap_have_no_name_in_common(
    one: tuple[Pattern, dict[str, object]], two: tuple[Pattern, dict[str, object]]
) -> None:
    assert one[0].overlaps(two[0]) == two[0].overlaps(one[0])
    for (here, values), (there, _) in ((one, two), (two, one)):
        try:
            name = here.reverse(values)
        except InvalidTopicName:
            continue
        if there.match(name) is not None:
            assert here.overlaps(there)


def test_patterns_overlap_if_their_literal_texts_allow_it() -> None:
    assert pattern("orders.new").overlaps(pattern("orders.<slug:x>"))
    assert pattern("a<x>").overlaps(pattern("<x>b"))
    assert not pattern("orders.new").overlaps(pattern("orders.<int:x>"))
    assert not pattern("a<x>").overlaps(pattern("b<x>"))
    assert not pattern("a.<x>").overlaps(pattern("a.<x>.c"))


# Keys


@given(st.text())
def test_an_escaped_key_is_one_segment_and_can_be_unescaped(text: str) -> None:
    segment = escape_key(text)
    assert unescape_key(segment) == text
    if 0 < len(segment) <= MAX_LENGTH:
        assert "." not in check_topic_name(segment)


@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("7", "7"),
        ("a.b", "a~2Eb"),
        ("~", "~7E"),
        ("ü", "~C3~BC"),
        ("me@example.com", "me@example~2Ecom"),
    ],
)
def test_a_key_is_escaped_byte_by_byte(text: str, segment: str) -> None:
    assert escape_key(text) == segment


@pytest.mark.parametrize(
    "key", ["ada@example.org", "Müller & Söhne", uuid.UUID(int=7), (1, "a.b"), 7]
)
def test_a_key_of_any_type_is_a_value_of_a_topic(key: object) -> None:
    notes = pattern("notes.<str:key>")
    name = notes.reverse({"key": escape_key(key)})
    found = notes.match(check_topic_name(name))
    assert found is not None
    assert unescape_key(found["key"]) == str(key)


def test_none_is_not_a_key() -> None:
    with pytest.raises(TypeError, match="save the object first"):
        escape_key(None)


@pytest.mark.parametrize("segment", ["~", "~2", "~2e", "~41", "~C3", "a.b", "~GG", "ü"])
def test_a_segment_that_is_not_an_escaped_key_is_rejected(segment: str) -> None:
    with pytest.raises(ValueError, match=r"escape_key|utf-8"):
        unescape_key(segment)


# Suggestions


def test_the_nearest_patterns_are_listed_best_match_first() -> None:
    every = [pattern(text) for text in ("everyone", "user.<str:key>", "orders.<int:pk>", "a.b.c")]
    assert nearest("order.42", every)[0] == "orders.<int:pk>"
    assert nearest("orders.abc", every)[0] == "orders.<int:pk>"
    assert nearest("everyon", every)[0] == "everyone"
    assert len(nearest("x", every)) == 3
    assert nearest("x", []) == []
