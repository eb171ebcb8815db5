"""How an event becomes text and bytes: encoded once, the same for every client.

The data is encoded when it is published; from then on it is text that nothing decodes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from realtime.exceptions import DataNotSerializable, DataTooLarge
from realtime.protocol.cursors import compose, entry
from realtime.protocol.events import Cursor, Event
from realtime.protocol.frames import MAX_NESTING, nesting

__all__ = [
    "Bundle",
    "Frame",
    "Kind",
    "Wire",
    "bundle",
    "encode_data",
    "event_frame",
    "http_chunk",
    "sse_chunk",
    "stream_entry",
    "websocket_frame",
]

Default = Callable[[Any], Any]

_SURROGATE = re.compile("[\ud800-\udfff]")
_PATH_LENGTH = 120  # characters of a path in an error; its end says most


def encode_data(value: Any, default: Default, limit: int) -> str:
    """Return the JSON text of an event's data.

    Text outside ASCII stays as it is, which is half the bytes of its escapes; a lone surrogate,
    which has no UTF-8 form, is escaped.

    Args:
        value: what was published.
        default: turns a value that JSON does not know into one that it knows; raises TypeError or
            ValueError for what it does not know either.
        limit: bytes of UTF-8 that are allowed.

    Raises:
        DataNotSerializable: a value has no JSON form or is nested deeper than ``MAX_NESTING``.
        DataTooLarge: the text is longer than the limit.
    """
    try:
        text = json.dumps(
            value, default=default, allow_nan=False, ensure_ascii=False, separators=(",", ":")
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise _explain(value, default, error) from error
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        # JSON has these characters inside strings only, so an escape is right wherever one stands.
        text = _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
        size = len(text.encode())
    if size > limit:
        raise DataTooLarge(size, limit)
    if nesting(text) > MAX_NESTING:
        raise _explain(value, default, RecursionError("it is nested too deep"))
    return text


def event_frame(event: Event) -> str:
    """Return the text of an ``event`` frame, around the data as it was encoded."""
    text = (
        f'{{"type":"event","topic":{json.dumps(event.topic)},"event":{json.dumps(event.name)}'
        f',"data":{event.json}'
    )
    if event.cursor is not None:
        text += f',"cursor":"{event.cursor}","seq":{event.cursor.seq}'
    if event.time is not None:
        text += f',"time":{json.dumps(event.time)}'
    if event.origin is not None:
        text += f',"origin":{json.dumps(event.origin)}'
    return text + "}"


def websocket_frame(text: str) -> bytes:
    """Return the bytes of an unfragmented, unmasked text frame.

    Source: RFC 6455, section 5.2.
    """
    payload = text.encode()
    length = len(payload)
    if length < 126:
        return b"\x81%c%b" % (length, payload)
    if length < 65_536:
        return b"\x81\x7e%b%b" % (length.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (length.to_bytes(8, "big"), payload)


def sse_chunk(frame: str) -> bytes:
    r"""Return the part of an event-stream entry that all clients share: its ``data:`` line.

    The client's own ``id:`` line, where it wants one, and the empty line that ends the entry
    follow in the same write.

    Args:
        frame: the text of a frame, JSON without line breaks between its tokens as everything here
            writes it; inside strings JSON has them escaped, so no frame forges a line.

    Source: HTML, section 9.2.6 (a line ends with CR LF, LF or CR).
    """
    return b"data: %b\n" % frame.encode()


def stream_entry(frame: str, id: str = "") -> bytes:
    """Return a whole entry of an event stream.

    Args:
        frame: the text of a frame; see ``sse_chunk()``.
        id: the client's id after it; none if empty.
    """
    return sse_chunk(frame) + (b"id: %b\n\n" % id.encode() if id else b"\n")


def http_chunk(body: bytes) -> bytes:
    """Return a part of a body as it travels in chunked transfer coding; none for no bytes.

    Source: RFC 9112, section 7.1 (a chunk without bytes would end the body).
    """
    return b"%x\r\n%b\r\n" % (len(body), body) if body else b""


class Wire(StrEnum):
    """The forms of a frame that all who receive it in that form share."""

    #: a WebSocket text frame
    WEBSOCKET = "websocket"
    #: the beginning of an entry of an event stream, up to the client's own id
    LINE = "line"
    #: an entry of an event stream without an id, in a chunk of HTTP
    STREAM = "stream"
    #: the same with the id of a client that follows this topic and no other
    STREAM_WITH_ID = "stream_with_id"


class Kind(StrEnum):
    """What the server has to know about a frame that it passes on."""

    #: an event, stored or ephemeral
    EVENT = "event"
    #: the client missed events: a ``reset``, or a ``subscribed`` with ``"recovered": false``
    RESET = "reset"
    #: everything else
    OTHER = "other"


class Frame:
    """A frame of the server's, whose forms are each made once, however many receive it.

    Attributes:
        text: its JSON text.
        size: the bytes of the text in UTF-8.
        place: the topic and the cursor at which it leaves its receiver; None if it moves nobody.
        kind: what it is, so that nothing has to parse the text.
        made: its forms on the wire that were made already; ``wire()`` makes them.
    """

    __slots__ = ("_entry", "kind", "made", "place", "size", "text")

    def __init__(
        self, text: str, place: tuple[str, Cursor] | None = None, kind: Kind = Kind.OTHER
    ) -> None:
        self.text = text
        self.size = len(text) if text.isascii() else len(text.encode())
        self.place = place
        self.kind = kind
        self.made: dict[Wire, bytes] = {}
        self._entry: tuple[str, str] | None = None

    @property
    def frames(self) -> Sequence[Frame]:
        """Itself: what a bundle has several of."""
        return (self,)

    @property
    def is_event(self) -> bool:
        """Whether it is the frame of an event."""
        return self.kind is Kind.EVENT

    @property
    def entry(self) -> tuple[str, str]:
        """Its place as an entry of a composite cursor; only for a frame that has a place."""
        if self._entry is None:
            assert self.place is not None
            self._entry = entry(*self.place)
        return self._entry

    def wire(self, form: Wire) -> bytes:
        """Return its bytes in a form that all receivers share."""
        found = self.made.get(form)
        if found is None:
            found = self.made[form] = self._make(form)
        return found

    def _make(self, form: Wire) -> bytes:
        if form is Wire.WEBSOCKET:
            return websocket_frame(self.text)
        if form is Wire.LINE:
            return sse_chunk(self.text)
        if form is Wire.STREAM or self.place is None:
            return http_chunk(stream_entry(self.text))
        return http_chunk(stream_entry(self.text, compose([self.entry])))


class Bundle:
    """Frames that leave together, joined once for all who receive them; used like a ``Frame``.

    Attributes:
        frames: in their order.
        size: the bytes of their texts in UTF-8.
        made: as a frame's.
    """

    __slots__ = ("frames", "made", "size")

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames
        self.size = sum(frame.size for frame in frames)
        self.made: dict[Wire, bytes] = {}

    def wire(self, form: Wire) -> bytes:
        """Return their bytes in a form that all receivers share."""
        found = self.made.get(form)
        if found is None:
            found = self.made[form] = b"".join([frame.wire(form) for frame in self.frames])
        return found


def bundle(frames: Sequence[Frame]) -> Frame | Bundle:
    """Return frames, of which there is one at least, as one thing to write."""
    return frames[0] if len(frames) == 1 else Bundle(frames)


def _explain(value: Any, default: Default, error: Exception) -> DataNotSerializable:
    """Find the value that json refused; only its error says what, and none says where."""
    try:
        _check(value, default, "data", ())
    except DataNotSerializable as found:
        return found
    # The value changed in between, or its default() does not answer the same twice.
    return DataNotSerializable("data", str(error))


def _check(value: Any, default: Default, path: str, parents: tuple[int, ...]) -> None:
    """Walk a value as json does, and raise at the first one that cannot be sent.

    ``parents`` are the identities of the values that hold this one.
    """
    if value is None or isinstance(value, str):
        return
    if isinstance(value, int):
        _check_integer(value, path)
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refuse(path, f"JSON has no {float.__repr__(value)}; send None or a string")
        return
    if id(value) in parents:
        raise _refuse(path, "it contains itself")
    if len(parents) >= MAX_NESTING:
        raise _refuse(path, f"it is nested deeper than {MAX_NESTING} levels")
    inside = (*parents, id(value))
    if isinstance(value, dict):
        for key, item in value.items():
            _check_key(key, path)
            _check(item, default, f"{path}[{_key(key)}]", inside)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, default, f"{path}[{index}]", inside)
    else:
        _check(_default(value, default, path), default, path, inside)


def _default(value: Any, default: Default, path: str) -> Any:
    try:
        return default(value)
    except (TypeError, ValueError, RecursionError) as error:
        kind = type(value)
        # What json's own encoder says of a type that it does not know, the path says better.
        if str(error) == f"Object of type {kind.__name__} is not JSON serializable":
            why = "publish what clients need of it, such as model_to_dict(…) or .values()"
            raise _refuse(path, f"it is of type {kind.__qualname__}; {why}") from error
        raise _refuse(path, f"it is of type {kind.__qualname__} ({error})") from error


def _check_integer(value: int, path: str) -> None:
    try:
        int.__repr__(value)
    except ValueError:
        # Source: sys.set_int_max_str_digits(), 4300 digits unless a project changed it
        raise _refuse(path, "it has too many digits; send a string") from None


def _check_key(key: Any, path: str) -> None:
    if not (key is None or isinstance(key, str | int | float)):
        kind = type(key).__qualname__
        raise _refuse(path, f"its key {_key(key)} is of type {kind}; use strings as keys")
    if isinstance(key, float) and not math.isfinite(key):
        raise _refuse(path, f"its key {_key(key)} has no JSON form; use strings as keys")
    if isinstance(key, int):
        _check_integer(key, path)


def _key(key: Any) -> str:
    try:
        text = ascii(key)  # an error message must be printable too
    except Exception:  # a project's own __repr__, or an integer with too many digits
        text = f"<{type(key).__qualname__}>"
    return text if len(text) <= 40 else f"{text[:39]}…"


def _refuse(path: str, reason: str) -> DataNotSerializable:
    if len(path) > _PATH_LENGTH:
        path = f"data…{path[5 - _PATH_LENGTH :]}"
    return DataNotSerializable(path, reason)
