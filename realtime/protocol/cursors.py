"""One text for the cursors of several topics, for URLs and ``Last-Event-ID``; pure.

``<epoch>~<entry>.<entry>…``, several epochs with ``!`` between them; an entry is six characters of
the topic's hash, six of the event's tag, and the number.
That is 12 characters and the digits a topic, so that 100 topics stay under 2 KB and pass the header
limits of proxies, which the topics' names would not.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable

from realtime.exceptions import InvalidCursor
from realtime.protocol.events import Cursor

__all__ = ["Composite", "compose", "entry", "is_composite"]

MAX_LENGTH = 16_384  # characters that are read at all; 100 topics with an epoch each take 8,000

_ENTRY = re.compile(r"([A-Za-z0-9_-]{6})([A-Za-z0-9_-]{6})(0|[1-9][0-9]{0,17})")
_EPOCH = re.compile(r"[A-Za-z0-9_-]{1,32}")


def _base64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(4, "big")).decode().rstrip("=")


def _key(topic: str) -> str:
    # SHA-256, since every language has it: the page's client makes these texts as well.
    digest = hashlib.sha256(topic.encode()).digest()[:4]
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def entry(topic: str, cursor: Cursor) -> tuple[str, str]:
    """Return the epoch and the entry of one topic."""
    return cursor.epoch, f"{_key(topic)}{_base64(cursor.tag)}{cursor.seq}"


def compose(entries: Iterable[tuple[str, str]]) -> str:
    """Return the text that holds entries as ``entry()`` made them."""
    by_epoch: dict[str, list[str]] = {}
    for epoch, text in entries:
        by_epoch.setdefault(epoch, []).append(text)
    return "!".join(f"{epoch}~{'.'.join(texts)}" for epoch, texts in by_epoch.items())


def is_composite(text: str) -> bool:
    """Tell whether a text can only be a composite cursor; a cursor of one topic has no ``~``."""
    return "~" in text


class Composite:
    """Cursors of several topics, as a text brought them.

    Two topics whose hashes agree (1 in 10 million for 100 topics) share a cursor, which then fits
    one of them and is refused by the other's log like any cursor that is not its own.

    Raises:
        InvalidCursor: the text is something else.
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
        """Return the cursor of a topic, or None if the text had none."""
        return self._cursors.get(_key(topic))
