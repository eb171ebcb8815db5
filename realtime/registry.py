"""Which pattern belongs to whom, and whose a name is; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from realtime.names import Pattern, check_topic_name, nearest

__all__ = ["Registry"]

Owner = TypeVar("Owner")  # hashable


class Registry(Generic[Owner]):
    """Patterns, each with an owner; the most specific pattern that matches a name wins.

    Of two patterns of one shape the first that was added wins; the system checks report them.
    """

    def __init__(self) -> None:
        self._patterns: dict[Owner, Pattern] = {}
        self._index: _Index[Owner] | None = None

    def add(self, owner: Owner, pattern: Pattern) -> None:
        """Give an owner its pattern."""
        self._patterns[owner] = pattern
        self._index = None

    def remove(self, owner: Owner) -> None:
        """Forget an owner; raise KeyError if there is no such one."""
        del self._patterns[owner]
        self._index = None

    def get(self, owner: Owner) -> Pattern | None:
        """Return the pattern of an owner, or None."""
        return self._patterns.get(owner)

    def rivals(self, owner: Owner) -> tuple[Pattern, ...]:
        """Return the patterns that win over an owner's and may match names of it."""
        return self._indexed().rivals[owner]

    def find(self, name: str) -> tuple[Owner, dict[str, Any]] | None:
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
        """Return the patterns most like a name that has no owner, best first."""
        return nearest(name, self._patterns.values())

    def patterns(self) -> list[tuple[Pattern, Owner]]:
        """Return all patterns with their owners, the more specific first."""
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
        rivals: by owner, the more specific patterns that may match names of its own.
    """

    def __init__(self, pairs: Sequence[tuple[Pattern, Owner]]) -> None:
        self.candidates: dict[tuple[int, str | None], list[tuple[Pattern, Owner]]] = {}
        self.rivals: dict[Owner, tuple[Pattern, ...]] = {}
        before: list[Pattern] = []
        for pattern, owner in pairs:
            first = pattern.segments[0]
            key = (len(pattern.segments), first.prefix if first.param is None else None)
            self.candidates.setdefault(key, []).append((pattern, owner))
            self.rivals[owner] = tuple(rival for rival in before if rival.overlaps(pattern))
            before.append(pattern)
