"""The settings: ``settings.REALTIME``, and the few of Django's that this app uses.

No other module reads ``django.conf``.
Settings are read on first use, so this module can be imported before they are configured.
They are read again after ``override_settings``.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
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
    "channel_layer_names",
    "check",
    "csrf_trusted_origins",
    "debug",
    "earlier_secrets",
    "get",
    "has_channel_layers",
    "script_name",
    "secret",
    "secure_proxy_ssl_header",
    "session_cookie_name",
    "session_engine",
    "use_x_forwarded_host",
]

DEFAULT_STORE = "realtime.stores.database.DatabaseStore"
UNIX = "unix"  # in TRUSTED_PROXIES: a proxy on a Unix socket, which has no address
MIN_FORGET_AFTER = timedelta(days=30)  # longer than a cursor before the first event is valid
_KEYS = (
    "STORE",
    "PREFIX",
    "ALLOWED_ORIGINS",
    "TRUSTED_PROXIES",
    "AUTHENTICATE",
    "FORGET_AFTER",
    "LIMITS",
)
_STORE_KEYS = ("BACKEND", "LOCATION", "OPTIONS")
_DOTTED_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")
# Characters that need no escaping in a URL and have no special meaning in a Django route.
_PREFIX = re.compile(r"(?:[A-Za-z0-9_~-][A-Za-z0-9_.~-]*/)+")
_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:\*\.)?(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a client and of an event: ``REALTIME["LIMITS"]``.

    Attributes:
        event_bytes: size of one event's data as JSON.
        frame_bytes: size of one frame from a client.
        topics: number of topics that one connection follows.
        commands_per_second: the rate of a connection's commands. Over HTTP, the rate of the
            commands of a user, or of an address if the client is not signed in, and the rate of
            its polls and streams, of which each counts once for each of its topics, and of its
            WebSocket handshakes.
        commands_burst: commands in a burst, as when a page subscribes to all its topics.
        anonymous_requests_per_second: the rate of the polls, streams and WebSocket handshakes of
            all clients together that are not signed in and that cannot be told apart, because
            ``TRUSTED_PROXIES`` is not set; for each process, and fifty times as many at once. Each
            poll and stream counts once for each of its topics.
        publish_bytes_per_second: the rate of the bytes that a connection publishes; over HTTP, a
            user or an address. A frame counts with its whole size.
        publish_bytes_burst: bytes published in a burst.
        stored_client_bytes_per_day: bytes of ``stored_client_events`` that all clients of the site
            together can add to the logs in a day.
        pending: unanswered commands of a connection, other than subscribe and unsubscribe.
        buffer_bytes: unsent bytes of a connection; beyond them, its events are not queued but read
            from the log later.
        members: members of a topic that clients receive as a list with its changes; beyond them,
            clients receive only their number, once a second.
        total_buffer_bytes: unsent bytes of all connections of a process together; beyond them, its
            slowest clients are closed.
        lingering_topics: topics that a process keeps for a minute after their last follower, so
            that a page reload need not join them again; beyond them, the oldest one is left at
            once.
    """

    event_bytes: int = 65_536  # an event is a notification, not a file
    frame_bytes: int = 65_536
    topics: int = 100  # keeps a stream's composite cursor below 4 KB, which proxies accept
    commands_per_second: int = 50
    commands_burst: int = 200  # two reconnects with 100 topics each
    anonymous_requests_per_second: int = 200  # a handshake or a poll costs 1 to 2 ms of a core
    publish_bytes_per_second: int = 65_536  # typing events need 5 KB/s; one large comment a second
    publish_bytes_burst: int = 262_144  # four events of the largest size
    stored_client_bytes_per_day: int = 1_073_741_824  # 10,000 users with 100 comments of 1 KB each
    pending: int = 64
    buffer_bytes: int = 1_048_576
    members: int = 1_000  # who all come and go cost a million frames; a list is about 1 MB
    total_buffer_bytes: int = 268_435_456  # 256 clients with a full buffer; a fraction of 1 GB
    lingering_topics: int = 5_000  # about 15 MB; 80 topics left each second linger 60 s


@dataclass(frozen=True, slots=True)
class Config:
    """``settings.REALTIME``, checked and completed with defaults.

    Attributes:
        store_backend: dotted path of the store's class.
        store_location: where the store is, such as a URL; the store defines the format.
        store_options: the store's other options.
        prefix: the URL path under which ``ws``, ``sse``, ``poll`` and ``send`` are mounted, without
            a slash at the start and with one at the end.
        allowed_origins: origins in addition to the site's own and ``CSRF_TRUSTED_ORIGINS``.
        trusted_proxies: addresses whose ``X-Forwarded-For`` is trusted; can contain ``UNIX``.
        authenticate: dotted path of a sync or async function ``(scope, token) -> user | Identity |
            None`` that identifies a client; None uses this package's tokens and the session.
        forget_after: how long a topic has to be without events before nothing is left of it, 30
            days at least; a client that comes back later is reset. None keeps a row for each topic
            for good.
        limits: see ``Limits``.
    """

    store_backend: str = DEFAULT_STORE
    store_location: str = ""
    store_options: dict[str, object] = field(default_factory=dict, hash=False)
    prefix: str = "realtime/"
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[IPv4Network | IPv6Network | str, ...] = ()
    authenticate: str | None = None
    forget_after: timedelta | None = MIN_FORGET_AFTER
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Problem:
    """An error in ``settings.REALTIME``.

    Attributes:
        where: the setting, such as ``REALTIME["LIMITS"]["topics"]``.
        message: what is wrong, as a sentence that begins with ``where``.
        hint: what to do.
        unknown: True if no setting has this name.
    """

    where: str
    message: str
    hint: str
    unknown: bool = False


class _Reader:
    """Reads a settings dict and collects its errors."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add_problem(self, where: str, what: str, hint: str) -> None:
        self.problems.append(Problem(where, f"{where} {what}.", hint))

    def known(self, where: str, value: Any, keys: Sequence[str]) -> Mapping[str, Any]:
        """Return the known keys of a dict with their values; an empty dict for another type."""
        if not isinstance(value, Mapping):
            self.add_problem(
                where, f"is {_kind(value)}, not a dict", f"Its keys are {_listed(keys)}."
            )
            return {}
        for key in value:
            if key not in keys:
                close = get_close_matches(str(key).casefold(), [k.casefold() for k in keys], n=1)
                meant = next((k for k in keys if close and k.casefold() == close[0]), None)
                hint = f"Its keys are {_listed(keys)}."
                if meant is not None:
                    hint = f"Did you mean {meant!r}? {hint}"
                name = f'{where}["{key}"]'
                text = f"{name} is not a known setting."
                self.problems.append(Problem(name, text, hint, unknown=True))
        return {key: value[key] for key in keys if key in value}

    def read(self, value: Any) -> Config:
        known = self.known("REALTIME", value, _KEYS)
        changes: dict[str, Any] = {}
        if "STORE" in known:
            changes |= self.store(known["STORE"])
        if "PREFIX" in known:
            changes["prefix"] = self.prefix(known["PREFIX"])
        if "ALLOWED_ORIGINS" in known:
            changes["allowed_origins"] = self.origins(known["ALLOWED_ORIGINS"])
        if "TRUSTED_PROXIES" in known:
            changes["trusted_proxies"] = self.proxies(known["TRUSTED_PROXIES"])
        if known.get("AUTHENTICATE") is not None:
            changes["authenticate"] = self.authenticate(known["AUTHENTICATE"])
        if "FORGET_AFTER" in known:
            changes["forget_after"] = self.forget_after(known["FORGET_AFTER"])
        if "LIMITS" in known:
            changes["limits"] = self.limits(known["LIMITS"])
        return Config(**changes)

    def store(self, value: Any) -> dict[str, Any]:
        where = 'REALTIME["STORE"]'
        known = self.known(where, value, _STORE_KEYS)
        backend = known.get("BACKEND", DEFAULT_STORE)
        if not isinstance(backend, str) or not _DOTTED_PATH.fullmatch(backend):
            self.add_problem(
                f'{where}["BACKEND"]',
                f"is {_kind(backend)}, not the dotted path of a store",
                f"Give the path as text, such as {DEFAULT_STORE!r}.",
            )
        location = known.get("LOCATION", "")
        if not isinstance(location, str):
            self.add_problem(
                f'{where}["LOCATION"]',
                f"is {_kind(location)}, not text",
                'Give a URL, or "" if the store needs none.',
            )
        options = known.get("OPTIONS", {})
        if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
            self.add_problem(
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
            self.add_problem(
                'REALTIME["PREFIX"]',
                f"is {value!r}, not a path that ends in a slash",
                "Use letters, digits and _ . ~ - between slashes, without a slash at the start: "
                '"realtime/".',
            )
            return "realtime/"
        return value

    def origins(self, value: Any) -> tuple[str, ...]:
        where = 'REALTIME["ALLOWED_ORIGINS"]'
        if not isinstance(value, list | tuple | set | frozenset):
            self.add_problem(
                where,
                f"is {_kind(value)}, not a list",
                'Give a list of origins: ["https://app.example.com"].',
            )
            return ()
        for origin in value:
            if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
                self.add_problem(
                    where,
                    f"has {origin!r}, which is not an origin",
                    "Give scheme and host, and the port unless it is the scheme's default, without "
                    'a path: "https://app.example.com", "https://*.example.com", '
                    '"http://localhost:5173".',
                )
        return tuple(value)

    def proxies(self, value: Any) -> tuple[IPv4Network | IPv6Network | str, ...]:
        where = 'REALTIME["TRUSTED_PROXIES"]'
        hint = (
            f'Give addresses and networks, and "{UNIX}" for a Unix socket: '
            '["127.0.0.1", "10.0.0.0/8"].'
        )
        if not isinstance(value, list | tuple | set | frozenset):
            self.add_problem(where, f"is {_kind(value)}, not a list", hint)
            return ()
        good: list[IPv4Network | IPv6Network | str] = []
        for proxy in value:
            try:
                good.append(UNIX if proxy == UNIX else ip_network(_text(proxy)))
            except ValueError as error:
                self.add_problem(where, f"has {proxy!r}: {error}", hint)
        return tuple(good)

    def authenticate(self, value: Any) -> str:
        if not isinstance(value, str) or not _DOTTED_PATH.fullmatch(value):
            self.add_problem(
                'REALTIME["AUTHENTICATE"]',
                f"is {_kind(value)}, not the dotted path of a function",
                'Give the path as text, such as "shop.tokens.authenticate".',
            )
        return str(value)

    def forget_after(self, value: Any) -> timedelta | None:
        if value is not None and (not isinstance(value, timedelta) or value < MIN_FORGET_AFTER):
            self.add_problem(
                'REALTIME["FORGET_AFTER"]',
                f"is {value!r}, neither a timedelta of {MIN_FORGET_AFTER.days} days or more nor "
                "None",
                "Give a time, such as timedelta(days=90), or None to keep a row for each topic for "
                "good.",
            )
            return MIN_FORGET_AFTER
        return value

    def limits(self, value: Any) -> Limits:
        where = 'REALTIME["LIMITS"]'
        names = [limit.name for limit in fields(Limits)]
        good = {}
        for name, limit in self.known(where, value, names).items():
            if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
                self.add_problem(
                    f'{where}["{name}"]',
                    f"is {limit!r}, not a positive whole number",
                    f"The default is {getattr(Limits(), name)}; leave the key out to keep it.",
                )
            else:
                good[name] = limit
        return Limits(**good)


def _kind(value: object) -> str:
    """Describe an invalid value for an error message."""
    return repr(value) if isinstance(value, str | int | float | None) else type(value).__name__


def _text(value: object) -> str:
    """Return a value that is text; ``ip_network()`` would accept a number."""
    if not isinstance(value, str):
        raise ValueError(f"it is {_kind(value)}, not text")
    return value


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(map(repr, keys))


_config: Config | None = None


def get() -> Config:
    """Return ``settings.REALTIME``, checked and with defaults.

    Raises:
        ImproperlyConfigured: the setting has errors; the text lists all of them, with hints.
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
    """Return all errors in ``settings.REALTIME``, for the system checks."""
    reader = _Reader()
    reader.read(getattr(settings, "REALTIME", {}))
    return reader.problems


def _reset(*, setting: str, **kwargs: Any) -> None:
    global _config
    if setting == "REALTIME":
        _config = None


setting_changed.connect(_reset, dispatch_uid="realtime.conf")


def secret(salt: bytes) -> bytes:
    """Return 32 secret bytes, derived from ``SECRET_KEY`` and the salt.

    They are the same in every process of the site until ``SECRET_KEY`` changes.
    """
    return _derive(force_bytes(settings.SECRET_KEY), salt)


def earlier_secrets(salt: bytes) -> list[bytes]:
    """Return what ``secret()`` returned with each of ``SECRET_KEY_FALLBACKS``."""
    return [_derive(force_bytes(key), salt) for key in settings.SECRET_KEY_FALLBACKS]


@lru_cache(maxsize=16)
def _derive(key: bytes, salt: bytes) -> bytes:
    return hmac.digest(key, b"realtime.conf.secret:" + salt, "sha256")


def debug() -> bool:
    """Return ``DEBUG``."""
    return bool(settings.DEBUG)


def allowed_hosts() -> list[str]:
    """Return ``ALLOWED_HOSTS``; if it is empty and ``DEBUG`` is on, return Django's local hosts."""
    if settings.DEBUG and not settings.ALLOWED_HOSTS:
        return [".localhost", "127.0.0.1", "[::1]"]
    return list(settings.ALLOWED_HOSTS)


def csrf_trusted_origins() -> list[str]:
    """Return ``CSRF_TRUSTED_ORIGINS``."""
    return list(settings.CSRF_TRUSTED_ORIGINS)


def secure_proxy_ssl_header() -> tuple[str, str] | None:
    """Return ``SECURE_PROXY_SSL_HEADER``: a key of ``request.META`` and its value for HTTPS."""
    header = settings.SECURE_PROXY_SSL_HEADER
    return None if header is None else (header[0], header[1])


def use_x_forwarded_host() -> bool:
    """Return ``USE_X_FORWARDED_HOST``."""
    return bool(settings.USE_X_FORWARDED_HOST)


def script_name(root_path: str) -> str:
    """Return the path below which the site is: ``FORCE_SCRIPT_NAME``, or the server's root path."""
    return settings.FORCE_SCRIPT_NAME or root_path


def has_channel_layers() -> bool:
    """Tell whether ``CHANNEL_LAYERS`` has a default layer."""
    return "default" in (getattr(settings, "CHANNEL_LAYERS", None) or {})


def channel_layer_names() -> list[str]:
    """Return the names in ``CHANNEL_LAYERS``."""
    return list(getattr(settings, "CHANNEL_LAYERS", None) or {})


def session_cookie_name() -> str:
    """Return ``SESSION_COOKIE_NAME``."""
    return str(settings.SESSION_COOKIE_NAME)


def session_engine() -> str:
    """Return ``SESSION_ENGINE``."""
    return str(settings.SESSION_ENGINE)


def authentication_backends() -> list[str]:
    """Return ``AUTHENTICATION_BACKENDS``."""
    return list(settings.AUTHENTICATION_BACKENDS)


def middleware() -> list[str]:
    """Return the paths in the project's ``MIDDLEWARE``."""
    return list(settings.MIDDLEWARE)


def asgi_application() -> str | None:
    """Return ``ASGI_APPLICATION``, which Daphne's runserver serves; None if it is unset."""
    return getattr(settings, "ASGI_APPLICATION", None)
