"""The address of a client behind the proxies that the project trusts.

A client can send any ``X-Forwarded-For``, and each proxy appends the address that it saw.
So the header is read from the right, and an entry counts only if a trusted proxy wrote it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextvars import Token
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, TypeAlias

from realtime import conf, user_code

__all__ = ["Source", "is_trusted_proxy", "set_source", "source_of"]

CLIENT_BITS = 64  # leading bits of an IPv6 address; a household or a host has a whole /64 network
FORWARDED = b"x-forwarded-for"
NAME_LENGTH = 100  # characters of a peer's name that is not an address; memory holds thousands

# None stands for the peer of a Unix socket, which has no address.
_Hop: TypeAlias = IPv4Address | IPv6Address | None


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of a request on the network.

    Attributes:
        name: the address; the /64 network of an IPv6 address; ``unix`` behind a Unix socket.
        is_shared: whether it can be a proxy's address, which many clients share.
    """

    name: str
    is_shared: bool


def source_of(scope: Mapping[str, Any]) -> Source:
    """Return the source of a request.

    With ``REALTIME["TRUSTED_PROXIES"]``, the source is the peer, unless that is a trusted proxy.
    Then it is the rightmost address in ``X-Forwarded-For`` that is not a trusted proxy's.
    Without the setting, the source is the peer. It counts as shared if it can be a proxy: if its
    address is not public, or if it sends the header.
    """
    client = scope.get("client")
    peer = str(client[0]) if client and client[0] else conf.UNIX
    try:
        hop = _read(peer)
    except ValueError:  # such as header text that Daphne's --proxy-headers passes on
        return Source(peer[:NAME_LENGTH], is_shared=True)
    forwarded = _forwarded(scope)
    if not conf.get().trusted_proxies:
        is_public = hop is not None and hop.is_global
        return Source(_name(hop), is_shared=not is_public or bool(forwarded))
    while forwarded and _is_trusted(hop):
        try:
            hop = _read(forwarded.pop())
        except ValueError:
            break  # such as "unknown": use the proxy that wrote it
    return Source(_name(hop), is_shared=_is_trusted(hop))


def set_source(scope: Mapping[str, Any], connection: Hashable = None) -> Token[Hashable]:
    """Set the source of the current task, with which anonymous clients share their turns.

    Args:
        scope: the ASGI scope.
        connection: identifies the connection; it is the source behind a proxy that can be shared.

    Returns:
        The token for ``user_code.source.reset()``.
    """
    found = source_of(scope)
    is_connection = found.is_shared and connection is not None
    name = ("connection", connection) if is_connection else ("address", found.name)
    return user_code.source.set(name)


def is_trusted_proxy(scope: Mapping[str, Any]) -> bool:
    """Tell whether the peer of a request is in ``REALTIME["TRUSTED_PROXIES"]``."""
    client = scope.get("client")
    try:
        return _is_trusted(_read(str(client[0]) if client and client[0] else conf.UNIX))
    except ValueError:
        return False


def _forwarded(scope: Mapping[str, Any]) -> list[str]:
    lines = [v.decode("latin-1") for key, v in scope["headers"] if key.lower() == FORWARDED]
    return [entry.strip() for entry in ",".join(lines).split(",") if entry.strip()]


def _read(text: str) -> _Hop:
    """Read an address, with or without a port.

    Raises:
        ValueError: the text is not an address.
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
    return any(not isinstance(entry, str) and hop in entry for entry in trusted)


def _name(hop: _Hop) -> str:
    if hop is None:
        return conf.UNIX
    if isinstance(hop, IPv6Address):
        return str(IPv6Network((int(hop), CLIENT_BITS), strict=False))
    return str(hop)
