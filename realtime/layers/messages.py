"""The operations of the layer's thread, and the addresses of messages.

Each row of ``LayerMessage`` has an *address*.
For a channel that ``new_channel()`` made, it is the inbox of the process that reads the channel.
Any other channel is *shared*: every process may read it, and its address is its own name.
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
    """Return a new name for a process's inbox: 80 random bits, so that no two are equal."""
    return secrets.token_hex(10)


def address_of(channel: str) -> str:
    """Return the inbox of the process that reads a channel, or a shared channel's own name."""
    match = _PROCESS_CHANNEL.fullmatch(channel)
    return channel if match is None else match[1]


def is_inbox(address: str, channel: str) -> bool:
    """Tell whether a channel's address is an inbox, so that only one process reads it."""
    return address != channel


def is_inbox_name(address: str) -> bool:
    """Tell whether an address has the form of an inbox."""
    return _INBOX_NAME.fullmatch(address) is not None


def pack(value: Any) -> bytes:
    """Encode a plain value with msgpack.

    Raises:
        TypeError: it contains something other than None, bool, int, float, str, bytes, list and
            dict.
        OverflowError: an integer needs more than 64 bits.
    """
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(packed: bytes) -> Any:
    """Decode what ``pack()`` encoded; tuples become lists."""
    return msgpack.unpackb(packed, raw=False, strict_map_key=False)


@dataclass(frozen=True, slots=True)
class Message:
    """Send a packed message to one channel, or to the members of a group in other processes.

    Attributes:
        body: the packed message.
        channel: the channel, or "" for a group message.
        group: the group, or "" for a message to one channel.
    """

    body: bytes
    channel: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Join:
    """Add a channel to a group.

    Attributes:
        group: the group.
        channel: the channel.
        new: the channel was certainly not a member before, so there is no row to extend.
    """

    group: str
    channel: str
    new: bool = False


@dataclass(frozen=True, slots=True)
class Leave:
    """Remove a channel from a group."""

    group: str
    channel: str


@dataclass(frozen=True, slots=True)
class Flush:
    """Remove every message and every membership."""
