"""The registry: maps patterns to topic classes, and names to the class whose pattern matches.

A class must annotate exactly the values of its pattern; they always come from the name.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, TypeVar

from realtime.exceptions import shorten
from realtime.protocol.names import Pattern, Segment, check_topic_name, escape_key, nearest

__all__ = ["Registry", "annotated_fields"]

Owner = TypeVar("Owner")


class Registry(Generic[Owner]):
    """Patterns and their classes; a name belongs to the most specific pattern that matches it.

    Of two patterns of the same shape, the one that was added first wins; the system checks report
    such pairs.

    Args:
        base: the base class of all classes; a pattern's value cannot be named like one of its
            attributes.
    """

    def __init__(self, base: type[Owner]) -> None:
        self._base = base
        self._patterns: dict[type[Owner], Pattern] = {}
        self._index: _Index[Owner] | None = None

    def add(self, owner: type[Owner], pattern: Pattern) -> None:
        """Register a class with its pattern.

        Raises:
            TypeError: the class is not a subclass of the base, is already registered, or its
                annotations do not match the pattern's values.
        """
        _check_class(owner, self._base)
        existing = self._patterns.get(owner)
        if existing is not None:
            raise TypeError(
                f"{owner.__qualname__} is already registered as {existing.text!r}; write a "
                "subclass for another pattern"
            )
        _check_fields(owner, self._base, pattern)
        for other, other_pattern in list(self._patterns.items()):
            if other_pattern.text == pattern.text and _path(other) == _path(owner):
                del self._patterns[other]  # its module was reloaded
        self._patterns[owner] = pattern
        self._index = None

    def remove(self, owner: type[Owner]) -> None:
        """Unregister a class; raise KeyError if it is not registered."""
        del self._patterns[owner]
        self._index = None

    def get(self, owner: type[Owner]) -> Pattern | None:
        """Return the pattern of a class, or None if it is not registered."""
        return self._patterns.get(owner)

    def more_specific(self, owner: type[Owner]) -> tuple[Pattern, ...]:
        """Return the more specific patterns that can match names of a class's own pattern."""
        return self._get_index().more_specific[owner]

    def find(self, name: str) -> tuple[type[Owner], dict[str, Any]] | None:
        """Return the class that a name belongs to and its values, or None if no pattern matches.

        Raises:
            InvalidTopicName: the name breaks the grammar.
        """
        parts = check_topic_name(name).split(".")
        candidates = self._get_index().candidates
        count = len(parts)
        # Patterns with a literal first segment are more specific than all others.
        for key in ((count, parts[0]), (count, None)):
            for pattern, owner in candidates.get(key, ()):
                values = pattern.match_parts(parts)
                if values is not None:
                    return owner, values
        return None

    def nearest(self, name: str) -> list[str]:
        """Return the patterns that are most similar to a name, best match first."""
        return nearest(name, self._patterns.values())

    def explain_mismatch(self, name: str) -> str:
        """Return a clause that names the value that a pattern of the name's shape does not accept.

        Return "" if no pattern has the shape of the name.
        """
        parts = name.split(".")
        for key in ((len(parts), parts[0]), (len(parts), None)):
            for pattern, _ in self._get_index().candidates.get(key, ()):
                reason = _explain_mismatch(parts, pattern)
                if reason:
                    return reason
        for count in range(2, len(parts)):
            for pattern, _ in self._get_index().candidates.get((count, parts[0]), ()):
                reason = _explain_dot(parts, pattern)
                if reason:
                    return reason
        return ""

    def patterns(self) -> list[tuple[Pattern, type[Owner]]]:
        """Return all patterns with their classes, more specific patterns first."""
        pairs = ((pattern, owner) for owner, pattern in self._patterns.items())
        return sorted(pairs, key=lambda pair: pair[0].specificity)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Return a context manager that restores the registrations at its end; for tests."""
        patterns = dict(self._patterns)
        try:
            yield
        finally:
            self._patterns, self._index = patterns, None

    def _get_index(self) -> _Index[Owner]:
        index = self._index
        if index is None:
            index = self._index = _Index(self.patterns())
        return index


class _Index(Generic[Owner]):
    """An index for looking up names; rebuilt after each change of the registry.

    Attributes:
        candidates: patterns and classes by number of segments and first segment (None if it is not
            a literal), more specific patterns first.
        more_specific: for each class, the more specific patterns that can match its names.
    """

    def __init__(self, pairs: Sequence[tuple[Pattern, type[Owner]]]) -> None:
        self.candidates: dict[tuple[int, str | None], list[tuple[Pattern, type[Owner]]]] = {}
        self.more_specific: dict[type[Owner], tuple[Pattern, ...]] = {}
        before: list[Pattern] = []
        for pattern, owner in pairs:
            first = pattern.segments[0]
            key = (len(pattern.segments), first.prefix if first.param is None else None)
            self.candidates.setdefault(key, []).append((pattern, owner))
            self.more_specific[owner] = tuple(one for one in before if one.overlaps(pattern))
            before.append(pattern)


def _explain_mismatch(parts: Sequence[str], pattern: Pattern) -> str:
    for segment, part in zip(pattern.segments, parts, strict=True):
        if segment.read(part)[0]:
            continue
        text = part.removeprefix(segment.prefix).removesuffix(segment.suffix)
        if segment.param is None or not text or f"{segment.prefix}{text}{segment.suffix}" != part:
            return ""  # the name does not have this shape
        reason = f"{shorten(text)} is not a valid <{segment.converter_name}:{segment.param}>"
        canonical = _canonical(segment, text)
        return f"{reason}; write {canonical!r}" if canonical else reason
    return ""


def _explain_dot(parts: Sequence[str], pattern: Pattern) -> str:
    """Return that the last value has a dot, if it would match once it is escaped."""
    count = len(pattern.segments) - 1
    key, last = ".".join(parts[count:]), pattern.segments[-1]
    escaped = [*parts[:count], escape_key(key)]
    if last.param is None or pattern.match_parts(escaped) is None:
        return ""
    return (
        f"{shorten(key)} has a dot, which separates segments; if it is the <{last.param}>, write "
        f"{'.'.join(escaped)!r}, with realtime.escape_key()"
    )


def _canonical(segment: Segment, text: str) -> str:
    """Return the canonical form of a value's text, such as "7" for "007"; "" if it has none."""
    if segment.converter is None or segment.regex is None or not segment.regex.fullmatch(text):
        return ""
    try:
        return segment.converter.to_url(segment.converter.to_python(text))
    except ValueError:
        return ""


def _path(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _check_class(cls: object, base: type) -> None:
    if not inspect.isclass(cls) or not issubclass(cls, base) or cls is base:
        raise TypeError(f"{cls!r} is not a subclass of {base.__name__}, so it cannot be registered")


def _check_fields(cls: type, base: type, pattern: Pattern) -> None:
    """Raise TypeError if a class's annotations do not match the values of its pattern."""
    where = f"{cls.__qualname__} ({pattern.text!r})"
    annotated = annotated_fields(cls, base).keys()
    for param in pattern.params:
        if hasattr(base, param):
            raise TypeError(
                f"{where}: {param!r} is an attribute of every {base.__name__}; rename the value"
            )
        if param not in annotated:
            raise TypeError(
                f"{where} has no annotation for {param!r}: add `{param}: …`, with the type of its "
                "converter's values"
            )
        if hasattr(cls, param):
            raise TypeError(
                f"{where}: {param!r} comes from the name and has no default; remove the assignment"
            )
    unknown = sorted(annotated - set(pattern.params))
    if unknown:
        raise TypeError(
            f"{where} annotates {', '.join(map(repr, unknown))}, which its pattern does not fill: "
            "add it to the pattern, or annotate it as ClassVar"
        )


def annotated_fields(cls: type, base: type) -> dict[str, Any]:
    """Return the values that a class and its bases (up to ``base``) annotate, with their types."""
    found: dict[str, Any] = {}
    for parent in reversed(cls.__mro__[: cls.__mro__.index(base)]):
        if sys.version_info >= (3, 14):
            import annotationlib

            # An annotation can use a name that is imported for the type checker only.
            form = annotationlib.Format.FORWARDREF
            found |= annotationlib.get_annotations(parent, format=form)
        else:
            found |= inspect.get_annotations(parent)
    return {
        name: annotation
        for name, annotation in found.items()
        if not _is_class_variable(annotation) and not hasattr(base, name)
    }


def _is_class_variable(annotation: Any) -> bool:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", "")
    return (
        annotation is ClassVar
        or typing.get_origin(annotation) is ClassVar
        or text.partition("[")[0].rpartition(".")[2] == "ClassVar"
    )
