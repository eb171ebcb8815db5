"""Which pages may open a connection.

A browser sends a site's cookies with the WebSocket handshake of any page, so only the ``Origin``
header protects against a foreign page that acts as its visitor.
A client that sends no ``Origin`` is not a browser, and has only the cookies that it was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.http.request import split_domain_port, validate_host
from django.utils.http import is_same_domain

from realtime import conf

__all__ = ["has_one_host", "has_origin", "is_allowed", "is_handshake"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_WEB_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
# Source: RFC 6454, section 6.2. A leading dot in the host stands for a wildcard in the settings.
# urlsplit() is too lenient: it drops control characters and spaces, which no browser sends.
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class _Origin:
    """Scheme, host and port; two origins are the same if all three are."""

    scheme: str
    host: str
    port: int | None


def is_allowed(scope: Mapping[str, Any], secure: bool | None = None) -> bool:
    """Tell whether the page that sends a request may connect.

    The requested host must be one of ``ALLOWED_HOSTS``, as for every Django view.
    The page's origin must be the site's own (scheme, host and port), or one of
    ``CSRF_TRUSTED_ORIGINS`` or ``REALTIME["ALLOWED_ORIGINS"]``.

    Args:
        scope: the ASGI scope.
        secure: whether the server's transport speaks TLS, for a scope without a scheme.
    """
    headers = scope["headers"]
    hosts = _values(headers, b"host")
    origins = _values(headers, b"origin")
    if not has_one_host(scope) or len(origins) > 1:
        return False
    host = hosts[0]
    if conf.use_x_forwarded_host() and (forwarded := _values(headers, b"x-forwarded-host")):
        host = ",".join(forwarded)  # as in Django; two joined headers are not a valid host
    domain, _ = split_domain_port(host)
    if not domain or not validate_host(domain, conf.allowed_hosts()):
        return False
    if not origins:
        return True
    origin = _parse(origins[0])
    if origin is None:
        return False
    if origin == _parse(f"{_scheme(scope, secure)}://{host}"):
        return True
    trusted = (*conf.csrf_trusted_origins(), *conf.get().allowed_origins)
    return any(_matches(origin, pattern) for pattern in trusted)


def has_one_host(scope: Mapping[str, Any]) -> bool:
    """Tell whether a request has exactly one ``Host`` header; HTTP/1.0 does not require it."""
    return len(_values(scope["headers"], b"host")) == 1


def has_origin(scope: Mapping[str, Any]) -> bool:
    """Tell whether a request has an ``Origin`` header; a browser sends one with every POST."""
    return bool(_values(scope["headers"], b"origin"))


def is_handshake(scope: Mapping[str, Any]) -> bool:
    """Tell whether a WebSocket has headers that every client sends; those of tests have none."""
    names = {name.lower() for name, _ in scope["headers"]}
    return b"host" in names or b"sec-websocket-key" in names


def _values(headers: Iterable[Sequence[bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def _parse(origin: str) -> _Origin | None:
    """Return the parts of an origin; None for ``null`` and for text that is not an origin."""
    match = _ORIGIN.fullmatch(origin.lower())
    if match is None:
        return None
    scheme = match["scheme"]
    port = int(match["port"]) if match["port"] else _DEFAULT_PORTS.get(scheme)
    return _Origin(scheme, match["host"], port)


def _scheme(scope: Mapping[str, Any], secure: bool | None) -> str:
    """Return the scheme that browsers use for the site: ``http`` or ``https``."""
    header = conf.secure_proxy_ssl_header()
    if header is not None:
        name, value = header
        key = name.removeprefix("HTTP_").replace("_", "-").lower().encode("latin-1")
        sent = _values(scope["headers"], key)
        if sent:
            # As in Django: in a list, the proxy nearest to the client wrote the first entry.
            return "https" if sent[0].split(",")[0].strip() == value else "http"
    if "scheme" in scope:
        return _WEB_SCHEMES.get(scope["scheme"], "http")
    return "https" if secure else "http"


def _matches(origin: _Origin, pattern: str) -> bool:
    """Compare an origin with ``https://app.example.com:8443`` or ``https://*.example.com``."""
    trusted = _parse(pattern.replace("://*.", "://.", 1))
    return (
        trusted is not None
        and trusted.scheme == origin.scheme
        and trusted.port == origin.port
        and is_same_domain(origin.host, trusted.host)
    )
