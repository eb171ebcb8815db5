"""JSON that a person types: what is wrong with it, and where."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from realtime.protocol.frames import MAX_NESTING, nesting

__all__ = ["JsonFault", "escape_surrogates", "parse", "pretty"]

_WIDTH = 72  # characters of a faulty line that are shown: what a phone shows in three lines
_BEFORE = 48  # of them before the fault, which is mostly explained by what stands before it
_STRING = r'"(?:[^"\\]|\\.)*+"?'  # without its closing quote too, so that it takes linear time
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
_VALUES = re.compile(rf"{_STRING}|(-?Infinity|NaN|{_NUMBER})", re.DOTALL)
_SIGNS = re.compile(rf"{_STRING}|[\[\]{{}}:]", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")

# By the beginning of what Python's parser says; the longer of two that begin alike comes first.
_REASONS = {
    "Expecting value": _("a value is missing here"),
    "Expecting property name": _("a name in double quotation marks is missing here"),
    "Expecting ':'": _("a colon is missing here"),
    "Expecting ','": _("a comma is missing here"),
    "Illegal trailing comma": _("a comma stands before the end"),
    "Unterminated string": _("this text has no closing quotation mark"),
    "Invalid control character": _("a line break or a tab stands inside a text; write \\n or \\t"),
    "Invalid \\u": _("\\u must be followed by four hexadecimal digits"),
    "Invalid \\escape": _("no such escape; a backslash is written as \\\\"),
    "Extra data": _("the data has ended before this"),
    "Unexpected UTF-8 BOM": _("an invisible character, a byte order mark, stands before the data"),
}


class JsonFault(ValueError):
    """Text that is not JSON.

    Attributes:
        reason: what is wrong, as a clause in the active language.
        line: number of the faulty line, from 1 on.
        column: number of the faulty character in its line, from 1 on.
        excerpt: that line, shortened around the fault, and below it a caret at the fault.
    """

    def __init__(self, reason: str, text: str, position: int) -> None:
        super().__init__(reason, text, position)
        self.reason = reason
        self.line = text.count("\n", 0, position) + 1
        begin = text.rfind("\n", 0, position) + 1
        self.column = position - begin + 1
        self.excerpt = _excerpt(text[begin:].split("\n", 1)[0], self.column, f"{self.line} | ")

    def __str__(self) -> str:
        return gettext("Line %(line)s, column %(column)s: %(reason)s.") % {
            "line": self.line,
            "column": self.column,
            "reason": self.reason,
        }


class _Refused(Exception):
    """A number, or a word in the place of one, that cannot be published."""

    def __init__(self, reason: str, token: str) -> None:
        super().__init__(reason, token)
        self.reason = reason
        self.token = token


class _Repeated(Exception):
    """An object has a name twice."""


def parse(text: str) -> Any:
    """Return what JSON text stands for; nothing but white space stands for None.

    Raises:
        JsonFault: it is not JSON, or is JSON that cannot be published as it stands: a name twice
            in an object, a number that is too large, lists in lists without an end.
    """
    text = text.replace("\r\n", "\n")
    if not text.strip():
        return None
    if nesting(text) > MAX_NESTING:
        reason = gettext("lists and objects are nested deeper than %(limit)s levels here")
        raise JsonFault(reason % {"limit": MAX_NESTING}, text, _too_deep(text))
    try:
        return json.loads(
            text,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_integer,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise JsonFault(_reason(error.msg), text, error.pos) from error
    except _Refused as error:
        raise JsonFault(error.reason, text, _place(text, error.token)) from error
    except _Repeated as error:
        name, place = _repeated(text)
        reason = gettext("the name %(name)s stands in this object already") % {"name": name}
        raise JsonFault(reason, text, place) from error


def pretty(data: Any) -> str:
    """Return data as JSON text that people read and change."""
    return escape_surrogates(json.dumps(data, indent=2, ensure_ascii=False))


def escape_surrogates(text: str) -> str:
    """Return text with lone surrogates escaped, which no page could be sent with."""
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _reason(said: str) -> str:
    for beginning, reason in _REASONS.items():
        if said.startswith(beginning):
            return str(reason)
    return gettext("this is not JSON")


# What json calls for a piece of the text


def _constant(token: str) -> Any:
    raise _Refused(gettext("JSON has no %(constant)s") % {"constant": token}, token)


def _float(token: str) -> float:
    number = float(token)
    if math.isinf(number):
        raise _Refused(gettext("this number is too large"), token)
    return number


def _integer(token: str) -> int:
    try:
        return int(token)
    except ValueError as error:  # Source: sys.set_int_max_str_digits(), 4300 by default
        raise _Refused(gettext("this number has too many digits"), token) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Repeated
    return found


# Where it stands, which json does not say


def _place(text: str, token: str) -> int:
    """Return where a number stands first; inside of strings there is none."""
    for match in _VALUES.finditer(text):
        if match[1] == token:
            return match.start()
    return 0


def _too_deep(text: str) -> int:
    """Return where the first bracket stands that opens a level too many."""
    depth = 0
    for match in _SIGNS.finditer(text):
        depth += (match[0] in "[{") - (match[0] in "]}")
        if depth > MAX_NESTING:
            return match.start()
    return 0


def _repeated(text: str) -> tuple[str, int]:
    """Return the first name, as it is typed, that its object has already, and where it stands."""
    names: list[set[str]] = []  # of the objects and lists that are open
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


def _excerpt(line: str, column: int, label: str) -> str:
    start = max(0, column - 1 - _BEFORE)
    shown = line[start : start + _WIDTH]
    before = shown[: column - 1 - start]
    if start:
        label += "…"
    if start + _WIDTH < len(line):
        shown += "…"
    # Tabs stay tabs, so that the caret stands below its character.
    indent = "".join("\t" if character == "\t" else " " for character in label + before)
    return f"{label}{shown}\n{indent}^"
