"""Parse JSON that a person typed, and describe what is wrong with it and where."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from realtime.protocol.frames import MAX_NESTING, nesting

__all__ = ["InvalidJson", "escape_surrogates", "parse", "pretty"]

_WIDTH = 72  # characters of the line that an excerpt shows: three lines on a phone
_BEFORE = 48  # of these, characters before the error, whose cause is usually there
_STRING = r'"(?:[^"\\]|\\.)*+"?'  # matches an unclosed string too, which keeps the search linear
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
_VALUES = re.compile(rf"{_STRING}|(-?Infinity|NaN|{_NUMBER})", re.DOTALL)
_SIGNS = re.compile(rf"{_STRING}|[\[\]{{}}:]", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")

# Keys are the beginnings of the messages of Python's parser.
_REASONS = {
    "Expecting value": _("a value is missing here"),
    "Expecting property name": _("a name in double quotes is missing here"),
    "Expecting ':'": _("a colon is missing here"),
    "Expecting ','": _("a comma is missing here"),
    "Illegal trailing comma": _("there is a comma after the last item"),
    "Unterminated string": _("this string has no closing quotation mark"),
    "Invalid control character": _(
        "a string contains a line break or a tab; write \\n or \\t instead"
    ),
    "Invalid \\u": _("\\u must be followed by four hexadecimal digits"),
    "Invalid \\escape": _("this escape does not exist; write a backslash as \\\\"),
    "Extra data": _("there is extra text after the data"),
    "Unexpected UTF-8 BOM": _("an invisible character, a byte order mark, precedes the data"),
}


class InvalidJson(ValueError):
    """Text that is not JSON, or JSON that cannot be published.

    Attributes:
        reason: what is wrong, as a clause in the active language.
        line: the line of the error, counted from 1.
        column: the column of the error, counted from 1.
        excerpt: the line, shortened around the error, and below it a caret under the error.
    """

    def __init__(self, reason: str, text: str, position: int) -> None:
        super().__init__(reason, text, position)
        self.reason = reason
        self.line = text.count("\n", 0, position) + 1
        start = text.rfind("\n", 0, position) + 1
        self.column = position - start + 1
        self.excerpt = _excerpt(text[start:].split("\n", 1)[0], self.column, f"{self.line} | ")

    def __str__(self) -> str:
        return gettext("Line %(line)s, column %(column)s: %(reason)s.") % {
            "line": self.line,
            "column": self.column,
            "reason": self.reason,
        }


class _InvalidNumber(Exception):
    """A number, or a constant such as NaN, that cannot be published."""

    def __init__(self, reason: str, token: str) -> None:
        super().__init__(reason, token)
        self.reason = reason
        self.token = token


class _DuplicateName(Exception):
    """An object has the same name twice."""


def parse(text: str) -> Any:
    """Return the value of JSON text; text with only white space is None.

    Raises:
        InvalidJson: the text is not JSON, or it cannot be published: an object has the same name
            twice, a number is too large, or the nesting is too deep.
    """
    text = text.replace("\r\n", "\n")
    if not text.strip():
        return None
    if nesting(text) > MAX_NESTING:
        reason = gettext("lists and objects are nested deeper than %(limit)s levels here")
        raise InvalidJson(reason % {"limit": MAX_NESTING}, text, _find_excess_nesting(text))
    try:
        return json.loads(
            text,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_integer,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise InvalidJson(_reason(error.msg), text, error.pos) from error
    except _InvalidNumber as error:
        raise InvalidJson(error.reason, text, _find_number(text, error.token)) from error
    except _DuplicateName as error:
        name, position = _find_duplicate_name(text)
        reason = gettext("the name %(name)s is already used in this object") % {"name": name}
        raise InvalidJson(reason, text, position) from error


def pretty(data: Any) -> str:
    """Return data as indented JSON text that a person can read and edit."""
    return escape_surrogates(json.dumps(data, indent=2, ensure_ascii=False))


def escape_surrogates(text: str) -> str:
    """Replace lone surrogates by their escapes, because UTF-8 cannot encode them."""
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _reason(message: str) -> str:
    for beginning, reason in _REASONS.items():
        if message.startswith(beginning):
            return str(reason)
    return gettext("this is not JSON")


# Hooks for json.loads()


def _constant(token: str) -> Any:
    raise _InvalidNumber(gettext("JSON has no %(constant)s") % {"constant": token}, token)


def _float(token: str) -> float:
    number = float(token)
    if math.isinf(number):
        raise _InvalidNumber(gettext("this number is too large"), token)
    return number


def _integer(token: str) -> int:
    try:
        return int(token)
    except ValueError as error:  # the limit is sys.get_int_max_str_digits(): 4,300 by default
        raise _InvalidNumber(gettext("this number has too many digits"), token) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _DuplicateName
    return values


# The hooks do not know the position of an error, so these functions search for it.


def _find_number(text: str, token: str) -> int:
    """Return the position of the first number with this text, ignoring strings."""
    for match in _VALUES.finditer(text):
        if match[1] == token:
            return match.start()
    return 0


def _find_excess_nesting(text: str) -> int:
    """Return the position of the first bracket beyond the nesting limit."""
    depth = 0
    for match in _SIGNS.finditer(text):
        depth += (match[0] in "[{") - (match[0] in "]}")
        if depth > MAX_NESTING:
            return match.start()
    return 0


def _find_duplicate_name(text: str) -> tuple[str, int]:
    """Return the first duplicate name, as it was typed, and its position."""
    names: list[set[str]] = []  # a set for each open object or list
    last = None
    for match in _SIGNS.finditer(text):
        sign = match[0]
        if sign in "[{":
            names.append(set())
        elif sign in "]}":
            names.pop()
        elif sign == ":":
            assert last is not None
            name = json.loads(last[0])
            if name in names[-1]:
                return last[0], last.start()
            names[-1].add(name)
        else:
            last = match
    return "", 0


def _excerpt(line: str, column: int, prefix: str) -> str:
    start = max(0, column - 1 - _BEFORE)
    shown = line[start : start + _WIDTH]
    before = shown[: column - 1 - start]
    if start:
        prefix += "…"
    if start + _WIDTH < len(line):
        shown += "…"
    # Tabs stay tabs, so that the caret is below the wrong character.
    indent = "".join("\t" if character == "\t" else " " for character in prefix + before)
    return f"{prefix}{shown}\n{indent}^"
