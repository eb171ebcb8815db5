"""The grammar of topic names, and the patterns that they are matched against.

A topic name is 1 to 200 characters: segments of ``A-Z a-z 0-9 _ ~ @ + : -`` joined by dots.

A pattern is a name in which a segment may hold one converter, as in ``orders.<int:pk>`` or
``room-<slug:name>.chat``; ``<name>`` alone is ``<str:name>``.
Each segment is matched by itself, so no converter goes over a dot and matching takes time in
proportion to the name's length, whatever a client sends (a converter of the project's own
takes what its regex takes).
A name matches only if its values, written back, give the same name: ``orders.007`` is not
``orders.<int:pk>``, or two names would be one topic.

Converters are handed in as a mapping of names to objects with ``regex``, ``to_python`` and
``to_url``, which are Django's path converters and the project's own.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from hashlib import blake2b
from keyword import iskeyword
from typing import Any, Protocol

from realtime.exceptions import InvalidPattern, InvalidTopicName, InvalidTopicValue

__all__ = [
    "INTERNAL",
    "MAX_LENGTH",
    "Converter",
    "Pattern",
    "Segment",
    "check_topic_name",
    "escape_key",
    "is_internal",
    "nearest",
    "presence_log",
    "unescape_key",
]

MAX_LENGTH = 200  # characters; fits an index of any database and is readable in a log line
INTERNAL = (
    "$"  # first character of the topics of our own; outside the grammar, so no client has one
)

_CHARACTERS = "A-Za-z0-9_~@+:-"
_NAME = re.compile(rf"[{_CHARACTERS}]+(?:\.[{_CHARACTERS}]+)*")
_LITERAL = re.compile(rf"[{_CHARACTERS}]*")
_OUTSIDE = re.compile(rf"[^.{_CHARACTERS}]")
# One segment of a pattern; what is around the converter is checked afterwards, for a clear error.
_SEGMENT = re.compile(r"([^<>]*)<(?:([^<>:]*):)?([^<>:]*)>([^<>]*)")
_UNSAFE = re.compile(r"[^A-Za-z0-9_@+:-]")  # `~` itself is escaped, so that escapes can be undone
_ESCAPES = re.compile(r"(?:~[0-9A-F]{2})+")


class Converter(Protocol):
    """What turns a part of a name into a value and back; Django's path converters are such."""

    @property
    def regex(self) -> str:
        """The form of the text, as a regular expression."""
        ...

    def to_python(self, value: str) -> Any:
        """Return the value of a text that has the form; raise ValueError if it has none."""
        ...

    def to_url(self, value: Any) -> str:
        """Return the text of a value."""
        ...


def check_topic_name(name: str) -> str:
    """Return the name if it is a valid topic name.

    Raises:
        InvalidTopicName: it is not; the text says why.
    """
    fault = _fault(name)
    if fault is not None:
        raise InvalidTopicName(str(name), fault)
    return name


def _fault(name: object) -> str | None:
    if not isinstance(name, str):
        return f"it is {type(name).__name__}, not text"
    if len(name) <= MAX_LENGTH and _NAME.fullmatch(name):
        return None
    if not name:
        return "it is empty"
    if len(name) > MAX_LENGTH:
        return f"it has {len(name)} characters and {MAX_LENGTH} are allowed"
    outside = _OUTSIDE.search(name)
    if outside is not None:
        return f"{outside[0]!r} is not one of A-Z a-z 0-9 _ ~ @ + : - and the dot"
    return "it begins or ends with a dot, or has two in a row"


def is_internal(name: str) -> bool:
    """Return True for a topic of our own, which no pattern matches and no client can follow."""
    return name.startswith(INTERNAL)


def presence_log(topic: str) -> str:
    """Return the name of the internal log of a topic's joins and leaves.

    A name that would be too long is hashed.
    """
    name = f"{INTERNAL}presence.{topic}"
    if len(name) <= MAX_LENGTH:
        return name
    return f"{INTERNAL}presence.{INTERNAL}{blake2b(topic.encode(), digest_size=20).hexdigest()}"


def escape_key(text: str) -> str:
    """Write any text so that it can stand in one segment of a name.

    Characters outside ``A-Z a-z 0-9 _ @ + : -`` become the ``~XX`` of their UTF-8 bytes.
    Different texts stay different; the empty text stays empty and is no segment.
    """
    return _UNSAFE.sub(lambda match: "".join(f"~{byte:02X}" for byte in match[0].encode()), text)


def unescape_key(segment: str) -> str:
    """Return the text that ``escape_key()`` wrote as this segment.

    Raises:
        ValueError: ``escape_key()`` writes no text like this.
    """
    text = _ESCAPES.sub(lambda match: bytes.fromhex(match[0].replace("~", "")).decode(), segment)
    if escape_key(text) != segment:
        raise ValueError(f"{segment!r} was not written by escape_key()")
    return text


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a pattern: a literal, or a converter with literal text around it.

    Attributes:
        prefix: the text before the converter; all of a literal segment.
        suffix: the text after the converter.
        param: the name of the value; None for a literal segment.
        converter_name: the converter's name in the pattern.
        converter: what reads and writes the value.
        regex: the converter's, compiled.
    """

    prefix: str
    suffix: str = ""
    param: str | None = None
    converter_name: str = ""
    converter: Converter | None = None
    regex: re.Pattern[str] | None = None

    @property
    def shape(self) -> str:
        """The segment without the names of its converter and value."""
        return self.prefix if self.param is None else f"{self.prefix}<>{self.suffix}"

    @property
    def specificity(self) -> tuple[int, int, int]:
        """A key that sorts before that of a segment that is less specific.

        Literals first, then literal text around a converter (the longer text, then the longer
        prefix first), then a converter alone.
        """
        if self.param is None:
            return (0, 0, 0)
        length = len(self.prefix) + len(self.suffix)
        return (1, -length, -len(self.prefix)) if length else (2, 0, 0)

    def read(self, text: str) -> tuple[bool, Any]:
        """Return whether a segment of a name matches, and its value."""
        if self.converter is None or self.regex is None:
            return text == self.prefix, None
        end = len(text) - len(self.suffix)
        # The length first: in `a<x>a` the one letter of "a" must not serve on both sides.
        if end < len(self.prefix) or not text.startswith(self.prefix):
            return False, None
        if not text.endswith(self.suffix):
            return False, None
        text = text[len(self.prefix) : end]
        if not text or self.regex.fullmatch(text) is None:
            return False, None
        try:
            value = self.converter.to_python(text)
            return self.converter.to_url(value) == text, value
        except ValueError:
            return False, None

    def write(self, value: Any) -> str:
        """Return the segment of a name that holds a value.

        Raises:
            ValueError: the converter has no text for it; the text is a clause.
        """
        if self.converter is None:
            return self.prefix
        try:
            text = self.converter.to_url(value)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"<{self.converter_name}:{self.param}> has no text for it") from error
        if isinstance(text, str):
            return f"{self.prefix}{text}{self.suffix}"
        # Formatting it would make `user.None` of a forgotten value.
        raise ValueError(
            f"<{self.converter_name}:{self.param}> takes text, not {type(text).__name__}"
        )

    def overlaps(self, other: Segment) -> bool:
        """Return False if no segment of a name can match both, as far as literal text tells."""
        if self.param is None:
            return other.read(self.prefix)[0]
        if other.param is None:
            return self.read(other.prefix)[0]
        before, after = ((self.prefix, other.prefix), (self.suffix[::-1], other.suffix[::-1]))
        return all(one.startswith(two) or two.startswith(one) for one, two in (before, after))


def _checked_text(pattern: object) -> str:
    if not isinstance(pattern, str) or not pattern:
        raise InvalidPattern(str(pattern), "write one such as 'orders.<int:pk>'")
    return pattern


def _parse_segment(pattern: str, text: str, converters: Mapping[str, Converter]) -> Segment:
    if "<" not in text and ">" not in text:
        if not text:
            raise InvalidPattern(pattern, "a segment is empty")
        return Segment(_checked_literal(pattern, text))
    match = _SEGMENT.fullmatch(text)
    if match is None:
        raise InvalidPattern(
            pattern, f"write the segment {text!r} with one <converter:name> and without other < >"
        )
    prefix, converter_name, param, suffix = match.groups(default="str")
    if not param.isidentifier() or iskeyword(param) or param.startswith("_"):
        raise InvalidPattern(pattern, f"{param!r} cannot be an attribute's name")
    if converter_name == "path":
        raise InvalidPattern(pattern, "path goes over dots and slashes, a converter here does not")
    converter = converters.get(converter_name)
    if converter is None:
        known = ", ".join(sorted(converters.keys() - {"path"}))
        raise InvalidPattern(
            pattern,
            f"there is no converter {converter_name!r}, only {known}; one of your own is "
            "registered before the topics that use it",
        )
    return Segment(
        _checked_literal(pattern, prefix),
        _checked_literal(pattern, suffix),
        param,
        converter_name,
        converter,
        re.compile(converter.regex),
    )


def _checked_literal(pattern: str, text: str) -> str:
    if _LITERAL.fullmatch(text) is None:
        raise InvalidPattern(pattern, f"{text!r} has other characters than A-Z a-z 0-9 _ ~ @ + : -")
    return text


class Pattern:
    """A topic name with places for values.

    Args:
        text: such as ``orders.<int:pk>``.
        converters: what may stand before the colon.

    Attributes:
        text: as given.
        segments: its parts, left to right.
        params: the names of its values, left to right.
        shape: the text without the names of converters and values; two patterns of one shape
            cannot be told apart by specificity.
        specificity: a key that sorts before that of a pattern that is less specific.

    Raises:
        InvalidPattern: the text is no pattern; the error says why.
    """

    __slots__ = ("_wanted", "params", "segments", "shape", "specificity", "text")

    def __init__(self, text: str, converters: Mapping[str, Converter]) -> None:
        self.text = _checked_text(text)
        self.segments = tuple(_parse_segment(text, part, converters) for part in text.split("."))
        self.params = tuple(part.param for part in self.segments if part.param is not None)
        self._wanted = frozenset(self.params)
        if len(self._wanted) < len(self.params):
            raise InvalidPattern(text, "two converters have one name")
        self.shape = ".".join(part.shape for part in self.segments)
        # A value is one character at least, `<>` is two.
        if len(self.shape) - len(self.params) > MAX_LENGTH:
            raise InvalidPattern(text, f"its names have more than {MAX_LENGTH} characters")
        # The shape last: an order of all patterns that does not depend on who registered first.
        self.specificity = (tuple(part.specificity for part in self.segments), self.shape)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def match(self, name: str) -> dict[str, Any] | None:
        """Return the values of a valid topic name, or None if it does not match."""
        return self.match_parts(name.split("."))

    def match_parts(self, parts: Sequence[str]) -> dict[str, Any] | None:
        """Do as ``match()`` does for a name that is already split at its dots."""
        if len(parts) != len(self.segments):
            return None
        values = {}
        for segment, part in zip(self.segments, parts, strict=True):
            matches, value = segment.read(part)
            if not matches:
                return None
            if segment.param is not None:
                values[segment.param] = value
        return values

    def fill(self, fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the name that has these values, and the values as ``match()`` returns them.

        Raises:
            TypeError: a value is missing or has no place.
            InvalidTopicValue: there is no name with these values.
            InvalidTopicName: the name that has them is too long.
        """
        if fields.keys() != self._wanted:
            raise TypeError(self._misfit(fields))
        parts, values = [], {}
        for segment in self.segments:
            if segment.param is None:
                parts.append(segment.prefix)
                continue
            given = fields[segment.param]
            try:
                part = segment.write(given)
                matches, value = segment.read(part)
                if "." in part:
                    raise ValueError("a dot separates segments; escape_key() writes it otherwise")
                if not matches:
                    raise ValueError(f"a value of {segment.converter_name!r} has another form")
            except ValueError as error:
                reason = f"{segment.param}={reprlib.repr(given)}: {error}"
                raise InvalidTopicValue(self.text, reason) from error
            parts.append(part)
            values[segment.param] = value
        return check_topic_name(".".join(parts)), values

    def _misfit(self, fields: Mapping[str, Any]) -> str:
        missing = [param for param in self.params if param not in fields]
        unknown = [field for field in fields if field not in self.params]
        facts = [f"without {', '.join(missing)}"] if missing else []
        facts += [f"with the unknown {', '.join(unknown)}"] if unknown else []
        wanted = ", ".join(self.params) or "no value"
        return f"{self.text!r} takes {wanted}; it was called {' and '.join(facts)}"

    def reverse(self, fields: Mapping[str, Any]) -> str:
        """Return the name that has these values; raise as ``fill()`` does."""
        return self.fill(fields)[0]

    def overlaps(self, other: Pattern) -> bool:
        """Return False if no name can match both, as far as their literal text tells."""
        return len(self.segments) == len(other.segments) and all(
            one.overlaps(two) for one, two in zip(self.segments, other.segments, strict=True)
        )


def nearest(name: str, patterns: Iterable[Pattern], count: int = 3) -> list[str]:
    """Return the texts of the patterns most like a name, best first, for an error message."""
    # Cut: an error must not cost a hostile name's length squared.
    parts = name[:MAX_LENGTH].split(".")[:8]
    scores = sorted((-_likeness(parts, pattern), pattern.text) for pattern in patterns)
    return [text for _, text in scores[:count]]


def _likeness(parts: Sequence[str], pattern: Pattern) -> float:
    """Return from 0 to 1 how alike a name and a pattern are."""
    total = 0.0
    for segment, part in zip(pattern.segments, parts, strict=False):
        if segment.read(part)[0]:
            total += 1.0
        elif segment.param is None:
            total += SequenceMatcher(None, segment.prefix, part[:40]).ratio()
        else:
            total += 0.5  # the right place with a value of another form
    return total / max(len(parts), len(pattern.segments))
