"""How an event becomes text and bytes: encoded once, the same for every client.

The data is encoded when it is published; from then on it is text that nothing decodes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from realtime.events import Cursor, Event
from realtime.exceptions import DataNotSerializable, DataTooLarge
from realtime.frames import MAX_NESTING, nesting

__all__ = ["Frame", "encode_data", "event_frame", "sse_chunk", "websocket_frame"]

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


class Frame:
    """A frame of the server's, whose forms are each made once, however many receive it.

    Attributes:
        text: its JSON text.
        size: the bytes of the text in UTF-8.
        place: the topic and the cursor at which it leaves its receiver; None if it moves nobody.
    """

    __slots__ = ("_chunk", "place", "size", "text")

    def __init__(self, text: str, place: tuple[str, Cursor] | None = None) -> None:
        self.text = text
        self.size = len(text) if text.isascii() else len(text.encode())
        self.place = place
        self._chunk: bytes | None = None

    @property
    def is_event(self) -> bool:
        """Whether it is the frame of an event."""
        return self.text.startswith('{"type":"event"')

    @property
    def chunk(self) -> bytes:
        """What an event stream shares of it; see ``sse_chunk()``."""
        if self._chunk is None:
            self._chunk = sse_chunk(self.text)
        return self._chunk


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
