"""Encode events into text and bytes, once for all clients.

An event's data is encoded when it is published; after that, the server never decodes it.
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
from realtime.protocol.frames import MAX_INTEGER, MAX_NESTING, escape_html, nesting

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
_PATH_LENGTH = 120  # characters of a path in an error; a longer path loses its beginning


def encode_data(value: Any, default: Default, limit: int, *, exact: bool = False) -> str:
    """Return the JSON text of an event's data.

    Characters outside ASCII are not escaped, which halves their size; only a lone surrogate is,
    because it cannot be encoded as UTF-8.

    Args:
        value: the data.
        default: converts a value that JSON does not support into one that it supports; raises
            TypeError or ValueError for any other value.
        limit: maximum size in bytes of UTF-8.
        exact: whether to refuse integers that JavaScript would read as other numbers.

    Raises:
        DataNotSerializable: a value has no JSON form, or is nested deeper than ``MAX_NESTING``, or
            is refused because of ``exact``.
        DataTooLarge: the text is larger than the limit.
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
        # A lone surrogate occurs only inside a JSON string, where an escape is always valid.
        text = _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
        size = len(text.encode())
    if size > limit:
        raise DataTooLarge(size, limit)
    if nesting(text) > MAX_NESTING:
        raise _explain(value, default, RecursionError("it is nested too deeply"))
    if exact:
        _check_exact(json.loads(text), "data")
    return text


def event_frame(event: Event) -> str:
    """Return the text of an ``event`` frame; the data is inserted as it was encoded."""
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
    """Return the part of an event-stream entry that is the same for all clients: ``data: …``.

    The rest of the entry follows in the same write: the client's own ``id:`` line, if it wants
    one, and the empty line that ends the entry.

    Args:
        frame: the text of a frame. It must be JSON without line breaks between tokens, as all
            functions of this package return it. Inside strings JSON escapes line breaks, so a
            frame cannot inject a line.

    Source: HTML, section 9.2.6 (a line ends with CR LF, LF or CR).
    """
    return b"data: %b\n" % frame.encode()


def stream_entry(frame: str, id: str = "") -> bytes:
    """Return a complete entry of an event stream.

    Args:
        frame: the text of a frame; see ``sse_chunk()``.
        id: the value of the ``id:`` line; no line if empty.
    """
    return sse_chunk(frame) + (b"id: %b\n\n" % id.encode() if id else b"\n")


def http_chunk(body: bytes) -> bytes:
    """Return a chunk of a body in chunked transfer coding, or no bytes for an empty part.

    Source: RFC 9112, section 7.1 (an empty chunk would end the body).
    """
    return b"%x\r\n%b\r\n" % (len(body), body) if body else b""


class Wire(StrEnum):
    """The wire formats of a frame; in each format, all clients receive the same bytes."""

    #: a WebSocket text frame
    WEBSOCKET = "websocket"
    #: the start of an event-stream entry, up to the client's own id
    LINE = "line"
    #: an event-stream entry without an id, as an HTTP chunk
    STREAM = "stream"
    #: the same with an id, for a client that follows only this topic
    STREAM_WITH_ID = "stream_with_id"


class Kind(StrEnum):
    """The kinds of frames that the server treats differently."""

    #: an event, stored or ephemeral
    EVENT = "event"
    #: the client missed events: a ``reset``, or a ``subscribed`` with ``"recovered": false``
    RESET = "reset"
    #: everything else
    OTHER = "other"


class Frame:
    """A frame to send to clients, which is encoded once for each wire format.

    Attributes:
        text: the frame as JSON text that is safe in HTML; see ``escape_html()``.
        size: size of the text in UTF-8, in bytes.
        topic_cursor: the topic, and the cursor from which a client that has this frame resumes;
            None if the frame does not change the client's cursor.
        kind: the kind of the frame, so that nothing has to parse the text.
        made: the wire formats that ``wire()`` has encoded so far.
    """

    __slots__ = ("_entry", "kind", "made", "size", "text", "topic_cursor")

    def __init__(
        self, text: str, topic_cursor: tuple[str, Cursor] | None = None, kind: Kind = Kind.OTHER
    ) -> None:
        self.text = text = escape_html(text)
        self.size = len(text) if text.isascii() else len(text.encode())
        self.topic_cursor = topic_cursor
        self.kind = kind
        self.made: dict[Wire, bytes] = {}
        self._entry: tuple[str, str] | None = None

    @property
    def frames(self) -> Sequence[Frame]:
        """The frame itself, so that it can be used like a ``Bundle``."""
        return (self,)

    @property
    def is_event(self) -> bool:
        """Whether it is the frame of an event."""
        return self.kind is Kind.EVENT

    @property
    def entry(self) -> tuple[str, str]:
        """The entry of ``topic_cursor`` in a composite cursor; only if there is one."""
        if self._entry is None:
            assert self.topic_cursor is not None
            self._entry = entry(*self.topic_cursor)
        return self._entry

    def wire(self, form: Wire) -> bytes:
        """Return the bytes of the frame in a wire format."""
        found = self.made.get(form)
        if found is None:
            found = self.made[form] = self._make(form)
        return found

    def _make(self, form: Wire) -> bytes:
        if form is Wire.WEBSOCKET:
            return websocket_frame(self.text)
        if form is Wire.LINE:
            return sse_chunk(self.text)
        if form is Wire.STREAM or self.topic_cursor is None:
            return http_chunk(stream_entry(self.text))
        return http_chunk(stream_entry(self.text, compose([self.entry])))


class Bundle:
    """Frames that are sent together, joined once for all clients; used like a ``Frame``.

    Attributes:
        frames: the frames, in order.
        size: size of their texts in UTF-8, in bytes.
        made: the wire formats that ``wire()`` has encoded so far.
    """

    __slots__ = ("frames", "made", "size")

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames
        self.size = sum(frame.size for frame in frames)
        self.made: dict[Wire, bytes] = {}

    def wire(self, form: Wire) -> bytes:
        """Return the bytes of all frames in a wire format."""
        found = self.made.get(form)
        if found is None:
            found = self.made[form] = b"".join([frame.wire(form) for frame in self.frames])
        return found


def bundle(frames: Sequence[Frame]) -> Frame | Bundle:
    """Return one object for one or more frames: the only frame itself, or a ``Bundle``."""
    return frames[0] if len(frames) == 1 else Bundle(frames)


def _explain(value: Any, default: Default, error: Exception) -> DataNotSerializable:
    """Return an error that names the path to the value that ``json`` rejected."""
    try:
        _check(value, default, "data", ())
    except DataNotSerializable as found:
        return found
    # The value has changed since, or default() returned something else this time.
    return DataNotSerializable("data", str(error))


def _check(value: Any, default: Default, path: str, parents: tuple[int, ...]) -> None:
    """Traverse a value as ``json`` does, and raise for the first part that cannot be sent.

    ``parents`` are the ``id()`` of the values that contain this one.
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


def _check_exact(value: Any, path: str) -> None:
    """Raise for the first integer, in decoded JSON, that JavaScript cannot represent."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_exact(item, f"{path}[{_key(key)}]")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_exact(item, f"{path}[{index}]")
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise _refuse(path, "JavaScript reads integers above 2**53 as other numbers; send a string")


def _default(value: Any, default: Default, path: str) -> Any:
    try:
        return default(value)
    except (TypeError, ValueError, RecursionError) as error:
        kind = type(value)
        # Replace json's own text for an unsupported type: ours says what to publish instead.
        if str(error) == f"Object of type {kind.__name__} is not JSON serializable":
            why = "publish the fields that clients need, such as model_to_dict(…) or .values()"
            raise _refuse(path, f"it is of type {kind.__qualname__}; {why}") from error
        raise _refuse(path, f"it is of type {kind.__qualname__} ({error})") from error


def _check_integer(value: int, path: str) -> None:
    try:
        int.__repr__(value)
    except ValueError:
        # The limit is 4300 digits by default. Source: sys.set_int_max_str_digits()
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
        text = ascii(key)  # an error message must be printable
    except Exception:  # a __repr__() that fails, or an integer with too many digits
        text = f"<{type(key).__qualname__}>"
    return text if len(text) <= 40 else f"{text[:39]}…"


def _refuse(path: str, reason: str) -> DataNotSerializable:
    if len(path) > _PATH_LENGTH:
        path = f"data…{path[5 - _PATH_LENGTH :]}"
    return DataNotSerializable(path, reason)
