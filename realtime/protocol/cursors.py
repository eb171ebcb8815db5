"""Composite cursors: the cursors of several topics in one text, for URLs and ``Last-Event-ID``.

The format is ``<epoch>~<entry>.<entry>…``, with ``!`` between epochs.
An entry consists of six characters for the hash of the topic's name, six for the event's tag, and
the digits of its seq.
With 12 characters plus the digits for each topic, the cursors of 100 topics take about 2 KB and fit
into the header size limits of proxies. With the topics' names instead of hashes they would not fit.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable

from realtime.exceptions import InvalidCursor
from realtime.protocol.events import Cursor

__all__ = ["CompositeCursor", "compose", "entry", "is_composite"]

MAX_LENGTH = 16_384  # in characters; 100 topics, each with its own epoch, take at most 6,400

_ENTRY = re.compile(r"([A-Za-z0-9_-]{6})([A-Za-z0-9_-]{6})(0|[1-9][0-9]{0,17})")
_EPOCH = re.compile(r"[A-Za-z0-9_-]{1,32}")


def _base64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(4, "big")).decode().rstrip("=")


def _key(topic: str) -> str:
    # SHA-256, because every language has it; the JavaScript client builds composite cursors too.
    digest = hashlib.sha256(topic.encode()).digest()[:4]
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def entry(topic: str, cursor: Cursor) -> tuple[str, str]:
    """Return the epoch of a topic's cursor, and the topic's entry in a composite cursor."""
    return cursor.epoch, f"{_key(topic)}{_base64(cursor.tag)}{cursor.seq}"


def compose(entries: Iterable[tuple[str, str]]) -> str:
    """Return the composite cursor of entries that ``entry()`` returned."""
    by_epoch: dict[str, list[str]] = {}
    for epoch, text in entries:
        by_epoch.setdefault(epoch, []).append(text)
    return "!".join(f"{epoch}~{'.'.join(texts)}" for epoch, texts in by_epoch.items())


def is_composite(text: str) -> bool:
    """Return whether a text looks like a composite cursor; a topic's own cursor has no ``~``."""
    return "~" in text


class CompositeCursor:
    """The cursors of several topics, parsed from a text.

    Two topics with the same hash (a chance of 1 in a million for 100 topics) share a cursor. It is
    valid for one of them; the log of the other rejects it, like any other foreign cursor.

    Raises:
        InvalidCursor: the text is not a composite cursor.
    """

    def __init__(self, text: str) -> None:
        self._cursors: dict[str, Cursor] = {}
        if len(text) > MAX_LENGTH:
            raise InvalidCursor(text)
        for group in text.split("!"):
            epoch, separator, entries = group.partition("~")
            if not separator or not _EPOCH.fullmatch(epoch):
                raise InvalidCursor(text)
            for part in entries.split("."):
                match = _ENTRY.fullmatch(part)
                if match is None:
                    raise InvalidCursor(text)
                tag = int.from_bytes(base64.urlsafe_b64decode(match[2] + "=="), "big")
                self._cursors[match[1]] = Cursor(epoch, int(match[3]), tag)

    def get(self, topic: str) -> Cursor | None:
        """Return the cursor of a topic, or None if the composite cursor does not contain it."""
        return self._cursors.get(_key(topic))
