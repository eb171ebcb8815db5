"""Which pages may open a connection.

A browser sends the cookies of a site with a WebSocket handshake of any page, so the ``Origin``
header decides whether that page is one of ours; nothing else protects a WebSocket against a foreign
site that acts in its visitor's name.
A client that sends no ``Origin`` is no browser, and has only the cookies that it was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.http.request import is_same_domain, split_domain_port, validate_host

from realtime import conf

__all__ = ["is_allowed"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_WEB_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}


def is_allowed(scope: Mapping[str, Any], secure: bool | None = None) -> bool:
    """Tell whether the page that asks for this connection may have it.

    The host that it asked for must be one of ``ALLOWED_HOSTS``, as for every Django view.
    Its origin must be the site's own (scheme, host and port), or one of ``CSRF_TRUSTED_ORIGINS``
    or ``REALTIME["ALLOWED_ORIGINS"]``.

    Args:
        scope: the ASGI scope.
        secure: whether the server's transport speaks TLS, where the scope does not say.
    """
    headers = scope["headers"]
    hosts = _values(headers, b"host")
    origins = _values(headers, b"origin")
    if len(hosts) != 1 or len(origins) > 1:
        return False
    host = hosts[0]
    if conf.use_x_forwarded_host() and (forwarded := _values(headers, b"x-forwarded-host")):
        host = forwarded[0]
    domain, _ = split_domain_port(host)
    if not domain or not validate_host(domain, conf.allowed_hosts()):
        return False
    if not origins:
        return True
    origin = _parse(origins[0])
    if origin is None:
        return False
    if _matches_host(origin, _scheme(scope, secure), host):
        return True
    trusted = (*conf.csrf_trusted_origins(), *conf.get().allowed_origins)
    return any(_matches(origin, pattern) for pattern in trusted)


def _values(headers: Iterable[Sequence[bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def _parse(origin: str) -> SplitResult | None:
    """Return the parts of an origin; None for ``null`` and everything that is not one."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if not parts.scheme or not parts.hostname or parts.path or parts.query or parts.fragment:
        return None
    return parts if parts.username is None and port != 0 else None


def _port(parts: SplitResult) -> int | None:
    return parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _scheme(scope: Mapping[str, Any], secure: bool | None) -> str:
    """Return the scheme of the site as browsers see it: ``http`` or ``https``."""
    header = conf.secure_proxy_ssl_header()
    if header is not None:
        name, value = header
        key = name.removeprefix("HTTP_").replace("_", "-").lower().encode("latin-1")
        sent = _values(scope["headers"], key)
        if sent:
            # As in Django: of a list, the proxy nearest to the client wrote the first.
            return "https" if sent[0].split(",")[0].strip() == value else "http"
    if "scheme" in scope:
        return _WEB_SCHEMES.get(scope["scheme"], "http")
    return "https" if secure else "http"


def _matches_host(origin: SplitResult, scheme: str, host: str) -> bool:
    own = _parse(f"{scheme}://{host}")
    return (
        own is not None
        and origin.scheme == scheme
        and origin.hostname == own.hostname
        and _port(origin) == _port(own)
    )


def _matches(origin: SplitResult, pattern: str) -> bool:
    """Compare with ``https://app.example.com:8443`` or ``https://*.example.com``."""
    trusted = _parse(pattern.replace("://*.", "://."))
    return (
        trusted is not None
        and trusted.scheme == origin.scheme
        and _port(trusted) == _port(origin)
        and is_same_domain(origin.hostname or "", trusted.hostname or "")
    )
