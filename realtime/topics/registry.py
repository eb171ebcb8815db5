"""Which pattern belongs to which class, and whose a name is; pure.

A class annotates the values of its pattern, no more and no less, and they come from the name alone.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, TypeVar

from realtime.exceptions import shorten
from realtime.protocol.names import Pattern, Segment, check_topic_name, nearest

__all__ = ["Registry", "annotated_fields"]

Owner = TypeVar("Owner")


class Registry(Generic[Owner]):
    """Patterns, each of a class; the most specific pattern that matches a name wins.

    Of two patterns of one shape the first that was added wins; the system checks report them.

    Args:
        base: the class of which all classes here are subclasses; what it has is no value.
    """

    def __init__(self, base: type[Owner]) -> None:
        self._base = base
        self._patterns: dict[type[Owner], Pattern] = {}
        self._index: _Index[Owner] | None = None

    def add(self, owner: type[Owner], pattern: Pattern) -> None:
        """Give a class its pattern.

        Raises:
            TypeError: it is no subclass of the base, has a pattern already, or its annotations
                are not the pattern's values.
        """
        _check_class(owner, self._base)
        present = self._patterns.get(owner)
        if present is not None:
            raise TypeError(
                f"{owner.__qualname__} is registered as {present.text!r} already; make a subclass "
                "for another pattern"
            )
        _check_fields(owner, self._base, pattern)
        for other, its_pattern in list(self._patterns.items()):
            if its_pattern.text == pattern.text and _path(other) == _path(owner):
                del self._patterns[other]  # its module was reloaded
        self._patterns[owner] = pattern
        self._index = None

    def remove(self, owner: type[Owner]) -> None:
        """Forget a class; raise KeyError if it has no pattern."""
        del self._patterns[owner]
        self._index = None

    def get(self, owner: type[Owner]) -> Pattern | None:
        """Return the pattern of a class, or None."""
        return self._patterns.get(owner)

    def rivals(self, owner: type[Owner]) -> tuple[Pattern, ...]:
        """Return the patterns that win over that of a class and may match names of it."""
        return self._indexed().rivals[owner]

    def find(self, name: str) -> tuple[type[Owner], dict[str, Any]] | None:
        """Return whose a name is and the values in it, or None if no pattern matches.

        Raises:
            InvalidTopicName: the name breaks the grammar.
        """
        parts = check_topic_name(name).split(".")
        candidates = self._indexed().candidates
        count = len(parts)
        # Those with a literal first segment are more specific than all others.
        for key in ((count, parts[0]), (count, None)):
            for pattern, owner in candidates.get(key, ()):
                values = pattern.match_parts(parts)
                if values is not None:
                    return owner, values
        return None

    def nearest(self, name: str) -> list[str]:
        """Return the patterns most like a name that no pattern matches, best first."""
        return nearest(name, self._patterns.values())

    def misread(self, name: str) -> str:
        """Return why no pattern of a name's own shape matches it, as a clause; "" without one."""
        parts = name.split(".")
        for key in ((len(parts), parts[0]), (len(parts), None)):
            for pattern, _ in self._indexed().candidates.get(key, ()):
                reason = _misread(parts, pattern)
                if reason:
                    return reason
        return ""

    def patterns(self) -> list[tuple[Pattern, type[Owner]]]:
        """Return all patterns with their classes, the more specific first."""
        pairs = ((pattern, owner) for owner, pattern in self._patterns.items())
        return sorted(pairs, key=lambda pair: pair[0].specificity)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Undo at its end what was added and removed in this context; for tests."""
        patterns = dict(self._patterns)
        try:
            yield
        finally:
            self._patterns, self._index = patterns, None

    def _indexed(self) -> _Index[Owner]:
        index = self._index
        if index is None:
            index = self._index = _Index(self.patterns())
        return index


class _Index(Generic[Owner]):
    """What names are looked up in; made anew after a change.

    Attributes:
        candidates: by the number of segments and the literal first one (None where it is no
            literal), the more specific first.
        rivals: by class, the more specific patterns that may match names of its own.
    """

    def __init__(self, pairs: Sequence[tuple[Pattern, type[Owner]]]) -> None:
        self.candidates: dict[tuple[int, str | None], list[tuple[Pattern, type[Owner]]]] = {}
        self.rivals: dict[type[Owner], tuple[Pattern, ...]] = {}
        before: list[Pattern] = []
        for pattern, owner in pairs:
            first = pattern.segments[0]
            key = (len(pattern.segments), first.prefix if first.param is None else None)
            self.candidates.setdefault(key, []).append((pattern, owner))
            self.rivals[owner] = tuple(rival for rival in before if rival.overlaps(pattern))
            before.append(pattern)


def _misread(parts: Sequence[str], pattern: Pattern) -> str:
    for segment, part in zip(pattern.segments, parts, strict=True):
        if segment.read(part)[0]:
            continue
        text = part.removeprefix(segment.prefix).removesuffix(segment.suffix)
        if segment.param is None or not text or f"{segment.prefix}{text}{segment.suffix}" != part:
            return ""  # it is not of this shape
        reason = f"{shorten(text)} is no <{segment.converter_name}:{segment.param}>"
        twin = _canonical(segment, text)
        return f"{reason}, which is written {twin!r}" if twin else reason
    return ""


def _canonical(segment: Segment, text: str) -> str:
    """Return the one text of the value that a text of the right form stands for, or ""."""
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
        raise TypeError(f"{cls!r} is not a subclass of {base.__name__}")


def _check_fields(cls: type, base: type, pattern: Pattern) -> None:
    """Refuse a class whose annotations are not the values of its pattern."""
    where = f"{cls.__qualname__} ({pattern.text!r})"
    annotated = annotated_fields(cls, base).keys()
    for param in pattern.params:
        if hasattr(base, param):
            raise TypeError(
                f"{where}: {param!r} is an attribute of every {base.__name__}; rename the value"
            )
        if param not in annotated:
            raise TypeError(
                f"{where} has no annotation for {param!r}: add `{param}: …`, with the type that "
                "its converter makes"
            )
        if hasattr(cls, param):
            raise TypeError(f"{where}: {param!r} comes from the name and has no default")
    unknown = sorted(annotated - set(pattern.params))
    if unknown:
        raise TypeError(
            f"{where} annotates {', '.join(map(repr, unknown))}, which its pattern does not fill: "
            "add it to the pattern, or annotate it as ClassVar"
        )


def annotated_fields(cls: type, base: type) -> dict[str, Any]:
    """Return what a class and its parents below the base annotate as a value, and as which."""
    found: dict[str, Any] = {}
    for parent in reversed(cls.__mro__[: cls.__mro__.index(base)]):
        if sys.version_info >= (3, 14):
            import annotationlib

            # Names that only a type checker imports need not exist.
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
