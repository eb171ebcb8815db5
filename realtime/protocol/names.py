"""The grammar of topic names and of the patterns that match them.

A topic name has 1 to 200 characters: segments of ``A-Z a-z 0-9 _ ~ @ + : -``, joined by dots.

A pattern is a name in which each segment can contain one converter, as in ``orders.<int:pk>`` or
``room-<slug:name>.chat``; ``<name>`` is short for ``<str:name>``.
Each segment is matched separately, so a converter never matches a dot. Matching takes linear time
for any name that a client sends, if the regexes of the project's own converters do.
A name matches only if converting its values back to text gives the same name. So ``orders.007``
does not match ``orders.<int:pk>``; otherwise one topic would have two names.

Converters are passed as a mapping of names to objects with ``regex``, ``to_python`` and ``to_url``:
Django's path converters and those of the project.
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
# The first character of internal topics. It is outside the grammar, so clients cannot name them.
INTERNAL = "$"

_CHARACTERS = "A-Za-z0-9_~@+:-"
_NAME = re.compile(rf"[{_CHARACTERS}]+(?:\.[{_CHARACTERS}]+)*")
_LITERAL = re.compile(rf"[{_CHARACTERS}]*")
_OUTSIDE = re.compile(rf"[^.{_CHARACTERS}]")
_OUTSIDE_SEGMENT = re.compile(rf"[^{_CHARACTERS}]")
# One segment of a pattern; the text around the converter is checked later, for a clearer error.
_SEGMENT = re.compile(r"([^<>]*)<(?:([^<>:]*):)?([^<>:]*)>([^<>]*)")
_UNSAFE = re.compile(r"[^A-Za-z0-9_@+:-]")  # includes `~`, so that escaping is reversible
_ESCAPES = re.compile(r"(?:~[0-9A-F]{2})+")


class Converter(Protocol):
    """Converts part of a name into a value and back; Django's path converters implement this."""

    @property
    def regex(self) -> str:
        """The regular expression that the text must match."""
        ...

    def to_python(self, value: str) -> Any:
        """Return the value of a text that matches; raise ValueError if it has no value."""
        ...

    def to_url(self, value: Any) -> str:
        """Return the text of a value, as it appears in a name."""
        ...


def check_topic_name(name: str) -> str:
    """Return the name if it is a valid topic name.

    Raises:
        InvalidTopicName: the name is not valid; the error says why.
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
        return (
            f"{outside[0]!r} is not one of A-Z a-z 0-9 _ ~ @ + : - and the dot; escape a key with "
            "realtime.escape_key()"
        )
    return "it begins or ends with a dot, or has two dots in a row"


def is_internal(name: str) -> bool:
    """Return whether a topic is internal: no pattern matches it, and no client can follow it."""
    return name.startswith(INTERNAL)


def presence_log(topic: str) -> str:
    """Return the name of the internal topic that logs a topic's joins and leaves.

    If the name would be too long, it contains a hash of the topic instead.
    """
    name = f"{INTERNAL}presence.{topic}"
    if len(name) <= MAX_LENGTH:
        return name
    return f"{INTERNAL}presence.{INTERNAL}{blake2b(topic.encode(), digest_size=20).hexdigest()}"


def escape_key(key: object) -> str:
    """Escape a key, such as an e-mail address, so that it can be used as one segment of a name.

    Characters of its ``str()`` outside ``A-Z a-z 0-9 _ @ + : -`` are replaced by their UTF-8 bytes,
    as ``~XX``: ``escape_key("ada@example.org")`` is ``ada@example~2Eorg``.
    Different texts have different results. The empty text stays empty and is not a valid segment.

    Raises:
        TypeError: the key is None, as that of an object that is not saved yet.
    """
    if key is None:
        raise TypeError("None is not a key; save the object first")
    return _UNSAFE.sub(
        lambda match: "".join(f"~{byte:02X}" for byte in match[0].encode()), str(key)
    )


def unescape_key(segment: str) -> str:
    """Return the text whose ``escape_key()`` a segment is.

    Raises:
        ValueError: the segment is not a result of ``escape_key()``.
    """
    text = _ESCAPES.sub(lambda match: bytes.fromhex(match[0].replace("~", "")).decode(), segment)
    if escape_key(text) != segment:
        raise ValueError(f"{segment!r} is not a result of escape_key()")
    return text


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a pattern: a literal, or a converter with literal text around it.

    Attributes:
        prefix: the text before the converter; in a literal segment, the whole text.
        suffix: the text after the converter.
        param: the name of the value; None for a literal segment.
        converter_name: the name of the converter in the pattern.
        converter: converts the value; None for a literal segment.
        regex: the converter's regular expression, compiled.
    """

    prefix: str
    suffix: str = ""
    param: str | None = None
    converter_name: str = ""
    converter: Converter | None = None
    regex: re.Pattern[str] | None = None

    @property
    def shape(self) -> str:
        """The segment's text without the names of the converter and the value."""
        return self.prefix if self.param is None else f"{self.prefix}<>{self.suffix}"

    @property
    def specificity(self) -> tuple[int, int, int]:
        """A sort key; more specific segments sort first.

        The order is: literals, converters with literal text around them (longer text first, then
        longer prefix first), converters alone.
        """
        if self.param is None:
            return (0, 0, 0)
        length = len(self.prefix) + len(self.suffix)
        return (1, -length, -len(self.prefix)) if length else (2, 0, 0)

    def read(self, text: str) -> tuple[bool, Any]:
        """Return whether this segment matches a segment of a name, and the value if it does."""
        if self.converter is None or self.regex is None:
            return text == self.prefix, None
        end = len(text) - len(self.suffix)
        # Without the length check, `a<x>a` would match "a", as both its prefix and its suffix.
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
        """Return the segment of a name for a value.

        Raises:
            ValueError: the converter cannot convert the value to text; the message is a clause.
        """
        if self.converter is None:
            return self.prefix
        try:
            text = self.converter.to_url(value)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"<{self.converter_name}:{self.param}> cannot convert it") from error
        if isinstance(text, str):
            return f"{self.prefix}{text}{self.suffix}"
        # Formatting any type as text would turn a missing value into `user.None`.
        raise ValueError(
            f"<{self.converter_name}:{self.param}> takes text, not {type(text).__name__}; for the "
            "key of an object, pass realtime.escape_key(key)"
        )

    def overlaps(self, other: Segment) -> bool:
        """Return whether one segment of a name could match both, judging by the literal texts."""
        if self.param is None:
            return other.read(self.prefix)[0]
        if other.param is None:
            return self.read(other.prefix)[0]
        before, after = ((self.prefix, other.prefix), (self.suffix[::-1], other.suffix[::-1]))
        return all(one.startswith(two) or two.startswith(one) for one, two in (before, after))


def _checked_text(pattern: object) -> str:
    if not isinstance(pattern, str) or not pattern:
        raise InvalidPattern(str(pattern), "use a text such as 'orders.<int:pk>'")
    return pattern


def _parse_segment(pattern: str, text: str, converters: Mapping[str, Converter]) -> Segment:
    if "<" not in text and ">" not in text:
        if not text:
            raise InvalidPattern(pattern, "a segment is empty")
        return Segment(_checked_literal(pattern, text))
    match = _SEGMENT.fullmatch(text)
    if match is None:
        raise InvalidPattern(
            pattern, f"write the segment {text!r} with one <converter:name> and no other < or >"
        )
    prefix, converter_name, param, suffix = match.groups(default="str")
    if not param.isidentifier() or iskeyword(param) or param.startswith("_"):
        raise InvalidPattern(pattern, f"{param!r} cannot be an attribute's name; use another one")
    if converter_name == "path":
        raise InvalidPattern(
            pattern, "the converter path matches more than one segment; use str for each segment"
        )
    converter = converters.get(converter_name)
    if converter is None:
        known = ", ".join(sorted(converters.keys() - {"path"}))
        raise InvalidPattern(
            pattern,
            f"there is no converter {converter_name!r}, only {known}; register your own converter "
            "before the topics that use it",
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
        raise InvalidPattern(
            pattern, f"{text!r} has a character that is not one of A-Z a-z 0-9 _ ~ @ + : -"
        )
    return text


class Pattern:
    """A pattern for topic names.

    Args:
        text: the pattern, such as ``orders.<int:pk>``.
        converters: the converters by name.

    Attributes:
        text: the pattern.
        segments: its segments, from left to right.
        params: the names of its values, from left to right.
        shape: the text without the names of converters and values; patterns of the same shape are
            equally specific.
        specificity: a sort key; more specific patterns sort first.

    Raises:
        InvalidPattern: the text is not a pattern; the error says why.
    """

    __slots__ = ("_param_names", "params", "segments", "shape", "specificity", "text")

    def __init__(self, text: str, converters: Mapping[str, Converter]) -> None:
        self.text = _checked_text(text)
        self.segments = tuple(_parse_segment(text, part, converters) for part in text.split("."))
        self.params = tuple(part.param for part in self.segments if part.param is not None)
        self._param_names = frozenset(self.params)
        if len(self._param_names) < len(self.params):
            raise InvalidPattern(text, "two values have the same name")
        self.shape = ".".join(part.shape for part in self.segments)
        # Each `<>` counts as one character, because a value has at least one.
        if len(self.shape) - len(self.params) > MAX_LENGTH:
            raise InvalidPattern(text, f"its names would have more than {MAX_LENGTH} characters")
        # The shape breaks ties, so the order does not depend on the order of registration.
        self.specificity = (tuple(part.specificity for part in self.segments), self.shape)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def match(self, name: str) -> dict[str, Any] | None:
        """Return the values of a valid topic name, or None if it does not match."""
        return self.match_parts(name.split("."))

    def match_parts(self, parts: Sequence[str]) -> dict[str, Any] | None:
        """Match a name that is already split at its dots; see ``match()``."""
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
        """Return the name for these values, and the values as ``match()`` returns them.

        Raises:
            TypeError: a value is missing or unknown.
            InvalidTopicValue: a converter does not accept its value.
            InvalidTopicName: the name would be too long.
        """
        if fields.keys() != self._param_names:
            raise TypeError(self._explain_mismatch(fields))
        parts, values = [], {}
        for segment in self.segments:
            if segment.param is None:
                parts.append(segment.prefix)
                continue
            given = fields[segment.param]
            try:
                part = segment.write(given)
                if unsafe := _OUTSIDE_SEGMENT.search(part):
                    raise ValueError(
                        f"{unsafe[0]!r} cannot be part of a value in a name; pass "
                        f"{segment.param}=realtime.escape_key(…)"
                    )
                matches, value = segment.read(part)
                if not matches:
                    raise ValueError(f"it does not match the converter {segment.converter_name!r}")
            except ValueError as error:
                reason = f"{segment.param}={reprlib.repr(given)}: {error}"
                raise InvalidTopicValue(self.text, reason) from error
            parts.append(part)
            values[segment.param] = value
        return check_topic_name(".".join(parts)), values

    def _explain_mismatch(self, fields: Mapping[str, Any]) -> str:
        missing = [param for param in self.params if param not in fields]
        unknown = [field for field in fields if field not in self.params]
        faults = [f"without {', '.join(missing)}"] if missing else []
        faults += [f"with the unknown {', '.join(unknown)}"] if unknown else []
        expected = ", ".join(self.params) or "no value"
        return f"{self.text!r} takes {expected}; it was called {' and '.join(faults)}"

    def reverse(self, fields: Mapping[str, Any]) -> str:
        """Return the name for these values; raises the same errors as ``fill()``."""
        return self.fill(fields)[0]

    def overlaps(self, other: Pattern) -> bool:
        """Return whether one name could match both patterns, judging by the literal texts."""
        return len(self.segments) == len(other.segments) and all(
            one.overlaps(two) for one, two in zip(self.segments, other.segments, strict=True)
        )


def nearest(name: str, patterns: Iterable[Pattern], count: int = 3) -> list[str]:
    """Return the texts of the patterns most similar to a name, best match first."""
    # Cut the name: comparing takes quadratic time, and a client chooses the name's length.
    parts = name[:MAX_LENGTH].split(".")[:8]
    scores = sorted((-_similarity(parts, pattern), pattern.text) for pattern in patterns)
    return [text for _, text in scores[:count]]


def _similarity(parts: Sequence[str], pattern: Pattern) -> float:
    """Return the similarity of a name and a pattern, from 0 to 1."""
    total = 0.0
    for segment, part in zip(pattern.segments, parts, strict=False):
        if segment.read(part)[0]:
            total += 1.0
        elif segment.param is None:
            total += SequenceMatcher(None, segment.prefix, part[:40]).ratio()
        else:
            total += 0.5  # a value that the converter does not accept
    return total / max(len(parts), len(pattern.segments))
