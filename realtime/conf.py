"""The settings: ``settings.REALTIME``, and the few of Django's that are read.

No other module reads ``django.conf``.
Everything is read lazily, and anew after ``override_settings``, so that this module can be imported
before the settings exist.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.encoding import force_bytes

__all__ = [
    "DEFAULT_STORE",
    "UNIX",
    "Config",
    "Limits",
    "Problem",
    "allowed_hosts",
    "asgi_application",
    "authentication_backends",
    "check",
    "csrf_trusted_origins",
    "debug",
    "get",
    "has_channel_layers",
    "secret",
    "secure_proxy_ssl_header",
    "session_cookie_name",
    "session_engine",
    "use_x_forwarded_host",
]

DEFAULT_STORE = "realtime.stores.database.DatabaseStore"
UNIX = "unix"  # in TRUSTED_PROXIES: whoever comes through a socket file, which has no address
_KEYS = ("STORE", "PREFIX", "ALLOWED_ORIGINS", "TRUSTED_PROXIES", "AUTHENTICATE", "LIMITS")
_STORE_KEYS = ("BACKEND", "LOCATION", "OPTIONS")
_DOTTED_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")
# What needs no escaping in a URL and has no meaning in a route or a regex that is made of it.
_PREFIX = re.compile(r"(?:[A-Za-z0-9_~-][A-Za-z0-9_.~-]*/)+")
_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:\*\.)?(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client or one event may take: ``REALTIME["LIMITS"]``.

    Attributes:
        event_bytes: JSON of one event's data.
        frame_bytes: one frame that a client sends.
        topics: topics that one connection follows.
        commands_per_second: commands that a connection may go on sending; over HTTP commands of a
            user, or of an address where nobody is signed in, and as many polls and streams.
        commands_burst: commands that it may send at once, such as a page that subscribes to all
            its topics.
        pending: commands of a connection that are under way at once.
        buffer_bytes: unsent bytes of a connection, beyond which it is slow.
    """

    event_bytes: int = 65_536  # an event is a notice, not a file; also what a client may send
    frame_bytes: int = 65_536
    topics: int = 100  # the composite cursor of a stream stays under 4 KB, which proxies pass
    commands_per_second: int = 50
    commands_burst: int = 200  # 100 subscribes of a reconnect, twice
    pending: int = 64
    buffer_bytes: int = 1_048_576


@dataclass(frozen=True, slots=True)
class Config:
    """``settings.REALTIME``, checked and complete.

    Attributes:
        store_backend: dotted path of the store's class.
        store_location: where the store is, such as a URL; its meaning is the store's.
        store_options: what else the store wants to know.
        prefix: URL path under which ``ws``, ``sse``, ``poll`` and ``send`` are mounted; no slash in
            front, one at the end.
        allowed_origins: origins besides the site's own and ``CSRF_TRUSTED_ORIGINS``.
        trusted_proxies: addresses whose ``X-Forwarded-For`` is believed, and ``UNIX``.
        authenticate: dotted path of ``(scope, token) -> user | Identity | None``, sync or async,
            which tells who a client is; None leaves it to our tokens and the session.
        limits: see ``Limits``.
    """

    store_backend: str = DEFAULT_STORE
    store_location: str = ""
    store_options: dict[str, object] = field(default_factory=dict, hash=False)
    prefix: str = "realtime/"
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[IPv4Network | IPv6Network | str, ...] = ()
    authenticate: str | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong in ``settings.REALTIME``.

    Attributes:
        where: the setting, such as ``REALTIME["LIMITS"]["topics"]``.
        message: what is wrong with it, as a sentence that begins with ``where``.
        hint: what to do.
        unknown: True if the key itself is not known.
    """

    where: str
    message: str
    hint: str
    unknown: bool = False


class _Reader:
    """Reads a settings dict and collects what is wrong with it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def wrong(self, where: str, what: str, hint: str) -> None:
        self.problems.append(Problem(where, f"{where} {what}.", hint))

    def known(self, where: str, value: Any, keys: Sequence[str]) -> Mapping[str, Any]:
        """Return the part of a dict that has known keys; an empty one for something else."""
        if not isinstance(value, Mapping):
            self.wrong(where, f"is {_kind(value)}, not a dict", f"Its keys are {_listed(keys)}.")
            return {}
        for key in value:
            if key not in keys:
                near = get_close_matches(str(key).casefold(), [k.casefold() for k in keys], n=1)
                meant = next((k for k in keys if near and k.casefold() == near[0]), None)
                hint = f"Its keys are {_listed(keys)}."
                if meant is not None:
                    hint = f"Did you mean {meant!r}? {hint}"
                name = f'{where}["{key}"]'
                text = f"{name} is not a known setting."
                self.problems.append(Problem(name, text, hint, unknown=True))
        return {key: value[key] for key in keys if key in value}

    def read(self, value: Any) -> Config:
        given = self.known("REALTIME", value, _KEYS)
        changes: dict[str, Any] = {}
        if "STORE" in given:
            changes |= self.store(given["STORE"])
        if "PREFIX" in given:
            changes["prefix"] = self.prefix(given["PREFIX"])
        if "ALLOWED_ORIGINS" in given:
            changes["allowed_origins"] = self.origins(given["ALLOWED_ORIGINS"])
        if "TRUSTED_PROXIES" in given:
            changes["trusted_proxies"] = self.proxies(given["TRUSTED_PROXIES"])
        if given.get("AUTHENTICATE") is not None:
            changes["authenticate"] = self.authenticate(given["AUTHENTICATE"])
        if "LIMITS" in given:
            changes["limits"] = self.limits(given["LIMITS"])
        return Config(**changes)

    def store(self, value: Any) -> dict[str, Any]:
        where = 'REALTIME["STORE"]'
        given = self.known(where, value, _STORE_KEYS)
        backend = given.get("BACKEND", DEFAULT_STORE)
        if not isinstance(backend, str) or not _DOTTED_PATH.fullmatch(backend):
            self.wrong(
                f'{where}["BACKEND"]',
                f"is {_kind(backend)}, not the dotted path of a store",
                f"Give the path as text, such as {DEFAULT_STORE!r}.",
            )
        location = given.get("LOCATION", "")
        if not isinstance(location, str):
            self.wrong(
                f'{where}["LOCATION"]',
                f"is {_kind(location)}, not text",
                'Give a URL, or "" where the store needs none.',
            )
        options = given.get("OPTIONS", {})
        if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
            self.wrong(
                f'{where}["OPTIONS"]',
                f"is {_kind(options)}, not a dict with text for keys",
                'Give the store\'s options, such as {"using": "default"}.',
            )
            options = {}
        return {
            "store_backend": backend,
            "store_location": location,
            "store_options": dict(options),
        }

    def prefix(self, value: Any) -> str:
        if not isinstance(value, str) or not _PREFIX.fullmatch(value):
            self.wrong(
                'REALTIME["PREFIX"]',
                f"is {value!r}, not a path that ends in a slash",
                "Use letters, digits and _ . ~ - between slashes, without a slash in front: "
                '"realtime/".',
            )
            return "realtime/"
        return value

    def origins(self, value: Any) -> tuple[str, ...]:
        where = 'REALTIME["ALLOWED_ORIGINS"]'
        if not isinstance(value, list | tuple | set | frozenset):
            self.wrong(
                where,
                f"is {_kind(value)}, not a list",
                'Give a list of origins: ["https://app.example.com"].',
            )
            return ()
        for origin in value:
            if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
                self.wrong(
                    where,
                    f"has {origin!r}, which is not an origin",
                    "Give scheme and host, and the port where it is not the scheme's own, without "
                    'a path: "https://app.example.com", "https://*.example.com", '
                    '"http://localhost:5173".',
                )
        return tuple(value)

    def proxies(self, value: Any) -> tuple[IPv4Network | IPv6Network | str, ...]:
        where = 'REALTIME["TRUSTED_PROXIES"]'
        hint = (
            f'Give addresses and networks, and "{UNIX}" for a socket file: '
            '["127.0.0.1", "10.0.0.0/8"].'
        )
        if not isinstance(value, list | tuple | set | frozenset):
            self.wrong(where, f"is {_kind(value)}, not a list", hint)
            return ()
        good: list[IPv4Network | IPv6Network | str] = []
        for proxy in value:
            try:
                good.append(UNIX if proxy == UNIX else ip_network(_text(proxy)))
            except ValueError as error:
                self.wrong(where, f"has {proxy!r}: {error}", hint)
        return tuple(good)

    def authenticate(self, value: Any) -> str:
        if not isinstance(value, str) or not _DOTTED_PATH.fullmatch(value):
            self.wrong(
                'REALTIME["AUTHENTICATE"]',
                f"is {_kind(value)}, not the dotted path of a function",
                'Give the path as text, such as "shop.tokens.authenticate".',
            )
        return str(value)

    def limits(self, value: Any) -> Limits:
        where = 'REALTIME["LIMITS"]'
        names = [limit.name for limit in fields(Limits)]
        good = {}
        for name, limit in self.known(where, value, names).items():
            if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
                self.wrong(
                    f'{where}["{name}"]',
                    f"is {limit!r}, not a positive whole number",
                    f"The default is {getattr(Limits(), name)}; leave the key out to keep it.",
                )
            else:
                good[name] = limit
        return Limits(**good)


def _kind(value: object) -> str:
    """Describe a value of a wrong type or form for an error message."""
    return repr(value) if isinstance(value, str | int | float | None) else type(value).__name__


def _text(value: object) -> str:
    """Return a value that is text; ``ip_network()`` would take a number for an address."""
    if not isinstance(value, str):
        raise ValueError(f"it is {_kind(value)}, not text")
    return value


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(map(repr, keys))


_config: Config | None = None


def get() -> Config:
    """Return ``settings.REALTIME``, checked and with its defaults.

    Raises:
        ImproperlyConfigured: something in it is wrong; the text lists all that is, with hints.
    """
    global _config
    config = _config
    if config is None:
        reader = _Reader()
        config = reader.read(getattr(settings, "REALTIME", {}))
        if reader.problems:
            raise ImproperlyConfigured(
                "\n".join(f"{problem.message} {problem.hint}" for problem in reader.problems)
            )
        _config = config
    return config


def check() -> list[Problem]:
    """Return everything that is wrong in ``settings.REALTIME``; for the system checks."""
    reader = _Reader()
    reader.read(getattr(settings, "REALTIME", {}))
    return reader.problems


def _reset(*, setting: str, **kwargs: Any) -> None:
    global _config
    if setting == "REALTIME":
        _config = None


setting_changed.connect(_reset, dispatch_uid="realtime.conf")


def secret(salt: bytes) -> bytes:
    """Return 32 secret bytes made of ``SECRET_KEY``, other ones for each salt.

    The same in every process of the site; a new ``SECRET_KEY`` makes new ones.
    """
    return _derive(force_bytes(settings.SECRET_KEY), salt)


@lru_cache(maxsize=16)
def _derive(key: bytes, salt: bytes) -> bytes:
    return hmac.digest(key, b"realtime.conf.secret:" + salt, "sha256")


def debug() -> bool:
    """Return ``DEBUG``."""
    return bool(settings.DEBUG)


def allowed_hosts() -> list[str]:
    """Return ``ALLOWED_HOSTS``; if it is empty, the hosts that Django allows under ``DEBUG``."""
    if settings.DEBUG and not settings.ALLOWED_HOSTS:
        return [".localhost", "127.0.0.1", "[::1]"]
    return list(settings.ALLOWED_HOSTS)


def csrf_trusted_origins() -> list[str]:
    """Return ``CSRF_TRUSTED_ORIGINS``."""
    return list(settings.CSRF_TRUSTED_ORIGINS)


def secure_proxy_ssl_header() -> tuple[str, str] | None:
    """Return ``SECURE_PROXY_SSL_HEADER``: a name as in ``request.META`` and the secure value."""
    header = settings.SECURE_PROXY_SSL_HEADER
    return None if header is None else (header[0], header[1])


def use_x_forwarded_host() -> bool:
    """Return ``USE_X_FORWARDED_HOST``."""
    return bool(settings.USE_X_FORWARDED_HOST)


def has_channel_layers() -> bool:
    """Return True if ``CHANNEL_LAYERS`` has a default layer."""
    return "default" in (getattr(settings, "CHANNEL_LAYERS", None) or {})


def session_cookie_name() -> str:
    """Return ``SESSION_COOKIE_NAME``."""
    return str(settings.SESSION_COOKIE_NAME)


def session_engine() -> str:
    """Return ``SESSION_ENGINE``."""
    return str(settings.SESSION_ENGINE)


def authentication_backends() -> list[str]:
    """Return ``AUTHENTICATION_BACKENDS``."""
    return list(settings.AUTHENTICATION_BACKENDS)


def asgi_application() -> str | None:
    """Return ``ASGI_APPLICATION``, which Daphne's runserver serves; None if it is not set."""
    return getattr(settings, "ASGI_APPLICATION", None)
