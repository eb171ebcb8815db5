"""From where a request came, past the proxies that the project trusts.

Whoever sends a request writes into ``X-Forwarded-For`` what they like, and each proxy adds the
address that it saw to the right.
So the list is read from the right, and believed as far as those who wrote it are trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, TypeAlias

from realtime import conf

__all__ = ["Source", "source_of"]

CLIENT_BITS = 64  # of an IPv6 address: a household or a host has the rest to itself, all of it
FORWARDED = b"x-forwarded-for"
NAME_LENGTH = 100  # of what is no address; names are remembered by the thousand

# A socket file's peer has no address.
_Hop: TypeAlias = IPv4Address | IPv6Address | None


@dataclass(frozen=True, slots=True)
class Source:
    """From where a request came.

    Attributes:
        name: the address; of IPv6 its /64 network, ``unix`` behind a socket file.
        is_shared: it is, or may be, a proxy's, so that many clients have it.
    """

    name: str
    is_shared: bool


def source_of(scope: Mapping[str, Any]) -> Source:
    """Return from where a request came.

    With ``REALTIME["TRUSTED_PROXIES"]`` that is the first, from the right, of the addresses in
    ``X-Forwarded-For`` which is none of theirs, if the peer is one of them; else the peer.
    Without, it is the peer, and a peer that may be a proxy counts as one: it has no public
    address, or sends such a header.
    """
    client = scope.get("client")
    peer = str(client[0]) if client and client[0] else conf.UNIX
    try:
        hop = _read(peer)
    except ValueError:  # what a server calls it, such as a header's text under --proxy-headers
        return Source(peer[:NAME_LENGTH], is_shared=True)
    forwarded = _forwarded(scope)
    if not conf.get().trusted_proxies:
        is_public = hop is not None and hop.is_global
        return Source(_name(hop), is_shared=not is_public or bool(forwarded))
    while forwarded and _is_trusted(hop):
        try:
            hop = _read(forwarded.pop())
        except ValueError:
            break  # such as "unknown": the proxy that wrote it is the last that is known
    return Source(_name(hop), is_shared=_is_trusted(hop))


def _forwarded(scope: Mapping[str, Any]) -> list[str]:
    lines = [v.decode("latin-1") for key, v in scope["headers"] if key.lower() == FORWARDED]
    return [entry.strip() for entry in ",".join(lines).split(",") if entry.strip()]


def _read(text: str) -> _Hop:
    """Read an address, with or without a port.

    Raises:
        ValueError: it is none.
    """
    if text.rstrip(":") == conf.UNIX:  # nginx writes "unix:"
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_trusted(hop: _Hop) -> bool:
    trusted = conf.get().trusted_proxies
    if hop is None:
        return conf.UNIX in trusted
    return any(not isinstance(one, str) and hop in one for one in trusted)


def _name(hop: _Hop) -> str:
    if hop is None:
        return conf.UNIX
    if isinstance(hop, IPv6Address):
        return str(IPv6Network((int(hop), CLIENT_BITS), strict=False))
    return str(hop)
