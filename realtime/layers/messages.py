"""What travels through the database between processes, and where it goes.

An *address* is what a row of ``LayerMessage`` is kept under: the inbox of a process for the
channels that ``new_channel()`` made there, and for any other channel its own name, because any
process may read it.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any

import msgpack  # type: ignore[import-untyped]

__all__ = [
    "Flush",
    "Join",
    "Leave",
    "Message",
    "address_of",
    "is_inbox",
    "is_inbox_name",
    "new_inbox",
    "pack",
    "unpack",
]

_PROCESS_CHANNEL = re.compile(r"[A-Za-z0-9_.-]+\.([0-9a-f]{20})![A-Za-z0-9_.-]*")
_INBOX_NAME = re.compile(r"[0-9a-f]{20}")


def new_inbox() -> str:
    """Return a name for the inbox of one process: 80 random bits, so that no two share one."""
    return secrets.token_hex(10)


def address_of(channel: str) -> str:
    """Return the inbox of a process's channel, and of any other channel its name."""
    match = _PROCESS_CHANNEL.fullmatch(channel)
    return channel if match is None else match[1]


def is_inbox(address: str, channel: str) -> bool:
    """Tell whether a channel's address is a process's inbox."""
    return address != channel


def is_inbox_name(address: str) -> bool:
    """Tell whether an address looks like a process's inbox."""
    return _INBOX_NAME.fullmatch(address) is not None


def pack(value: Any) -> bytes:
    """Encode plain values.

    Raises:
        TypeError: a value is neither None, bool, int, float, str, bytes, list nor dict.
        OverflowError: an integer needs more than 64 bits.
    """
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(packed: bytes) -> Any:
    """Decode what ``pack()`` encoded; tuples have become lists."""
    return msgpack.unpackb(packed, raw=False, strict_map_key=False)


@dataclass(frozen=True, slots=True)
class Message:
    """A packed message to the channels of a group in other processes, or to one channel."""

    body: bytes
    channel: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Join:
    """A channel enters a group; ``new`` if it surely was no member yet."""

    group: str
    channel: str
    new: bool = False


@dataclass(frozen=True, slots=True)
class Leave:
    """A channel leaves a group."""

    group: str
    channel: str


@dataclass(frozen=True, slots=True)
class Flush:
    """Every message and every membership goes."""
