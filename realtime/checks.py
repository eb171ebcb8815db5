"""System checks: what would fail later, or silently not work, found by ``manage.py check``.

=============  ==================================================================
realtime.E001  a value in ``settings.REALTIME`` is wrong
realtime.E002  a key in ``settings.REALTIME`` is not known
realtime.E003  two topic patterns have one shape
realtime.E004  the store cannot be made
realtime.E005  PyPI's other package with the import name ``realtime`` is installed
realtime.E006  the channel layer cannot be made
realtime.W001  ``runserver`` belongs to another app and does not serve ASGI
realtime.W002  ``ASGI_APPLICATION`` is not set
realtime.W003  a SQLite database is not set up for several writers
realtime.W004  the store is not shared by processes
realtime.W005  the channel layer is not shared by the processes that share the store
=============  ==================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

from channels.layers import BaseChannelLayer, InMemoryChannelLayer, channel_layers
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.management import get_commands, load_command_class
from django.db import connections

from realtime import conf, topics
from realtime.broadcast import get_layer
from realtime.layers.database import DatabaseChannelLayer
from realtime.stores import get_store
from realtime.stores.base import Store

__all__ = [
    "check_asgi_application",
    "check_import_name",
    "check_layer",
    "check_patterns",
    "check_runserver",
    "check_settings",
    "check_shared_layer",
    "check_shared_store",
    "check_sqlite",
    "check_store",
]

_SQLITE_HINT = """Set it up so, in settings.DATABASES[{alias!r}]:
    "OPTIONS": {{
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        "timeout": 20,
    }},"""


@register("realtime")
def check_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report everything that is wrong in ``settings.REALTIME``."""
    return [
        Error(
            problem.message,
            hint=problem.hint,
            id="realtime.E002" if problem.unknown else "realtime.E001",
        )
        for problem in conf.check()
    ]


@register("realtime")
def check_patterns(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report patterns that no name can choose between."""
    by_shape = sorted(topics.patterns(), key=lambda pair: pair[0].shape)
    messages: list[CheckMessage] = []
    for shape, group in groupby(by_shape, key=lambda pair: pair[0].shape):
        pairs = list(group)
        if len(pairs) > 1:
            listed = " and ".join(
                f"{pattern.text!r} ({cls.__module__}.{cls.__qualname__})" for pattern, cls in pairs
            )
            messages.append(
                Error(
                    f"The topic patterns {listed} have one shape, {shape!r}: "
                    "a name may match both.",
                    hint="Give one of them another literal segment. The first one is used now.",
                    id="realtime.E003",
                )
            )
    return messages


@register("realtime")
def check_store(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a store that cannot be imported or refuses its options."""
    if conf.check():
        return []  # reported with its settings
    try:
        get_store()
    except Exception as error:  # a store of the project's may fail in any way
        return [
            Error(
                f'The store of REALTIME["STORE"] cannot be made: {error}',
                hint=f'The default is {{"BACKEND": "{conf.DEFAULT_STORE}"}}.',
                id="realtime.E004",
            )
        ]
    return []


@register("realtime")
def check_layer(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a channel layer that cannot be imported or refuses its options.

    Publishing would go on, and each wake-up fail: the events would come up to five seconds late.
    """
    if not conf.has_channel_layers():
        return []
    try:
        # Not get_channel_layer(): it takes a KeyError of the layer's own for a missing entry.
        layer = channel_layers["default"]
        if not callable(getattr(layer, "group_send", None)):
            raise TypeError(f"{type(layer).__name__} is no channel layer with groups")
    except Exception as error:  # a layer of the project's may fail in any way
        reason = f"{type(error).__name__}: {error}"
        return [
            Error(
                f'The channel layer of CHANNEL_LAYERS["default"] cannot be made: {reason}',
                hint='It is a dict with the path of a class as "BACKEND" and that class\'s options '
                'as "CONFIG". Leave it out, so that the wake-ups go through the database, or see '
                "docs/channel-layer.md and docs/redis.md for what may stand there.",
                id="realtime.E006",
            )
        ]
    return []


@register("realtime")
def check_shared_store(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a store of which each process has its own.

    SQLite in memory is what tests have, so it is reported only beside a layer that processes share.
    """
    try:
        store, layer = get_store(), get_layer()
    except Exception:
        return []  # reported by check_store or check_layer
    name = type(store).__name__
    if store.shared:
        if not _in_memory(store.alias) or _alone(layer):
            return []
        name += f" on {store.alias!r}, which is SQLite in memory,"
    return [
        Warning(
            f"The store {name} is not shared: each process has logs of its own, "
            "and what another process publishes (a second server, a worker, manage.py) reaches "
            "none of this one's clients.",
            hint=f'Use {{"BACKEND": "{conf.DEFAULT_STORE}"}} in REALTIME["STORE"], on a database '
            "that processes share. If one process is all there is, put "
            '"realtime.W004" into SILENCED_SYSTEM_CHECKS.',
            id="realtime.W004",
        )
    ]


@register("realtime")
def check_shared_layer(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a layer of which each process has its own, beside a store that suggests several.

    A store suggests several processes if its log is on a server: on any that is shared and not in
    SQLite.
    """
    try:
        store, layer = get_store(), get_layer()
    except Exception:
        return []  # reported by check_store or check_layer
    if not store.shared or _in_sqlite(store) or not _alone(layer):
        return []
    name = type(layer).__name__
    if isinstance(layer, DatabaseChannelLayer):
        name += f" on {layer.using!r}, which is SQLite in memory,"
    return [
        Warning(
            f"The channel layer {name} is not shared, but the store {type(store).__name__} is: "
            "events of another process (a second server, a worker, manage.py) reach this one's "
            "clients up to five seconds late.",
            hint='Leave CHANNEL_LAYERS["default"] out, so that the wake-ups go through the '
            "database, or name a layer that processes share, such as "
            '"channels_redis.pubsub.RedisPubSubChannelLayer". If one process is all there is, put '
            '"realtime.W005" into SILENCED_SYSTEM_CHECKS.',
            id="realtime.W005",
        )
    ]


def _alone(layer: BaseChannelLayer) -> bool:
    """Tell whether no other process can use a layer."""
    if isinstance(layer, DatabaseChannelLayer):
        return _in_memory(layer.using)
    return isinstance(layer, InMemoryChannelLayer)


def _in_sqlite(store: Store) -> bool:
    return store.alias is not None and _is_sqlite(connections.settings[store.alias])


def _in_memory(alias: str | None) -> bool:
    if alias is None or not _is_sqlite(connections.settings[alias]):
        return False
    return _names_memory(str(connections.settings[alias]["NAME"]))


@register("realtime")
def check_import_name(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report the distribution ``realtime``, whose files lie in the folder of ours."""
    try:
        other = version("realtime")
    except PackageNotFoundError:
        return []
    return [
        Error(
            f"The package realtime {other} is installed beside django-channels-realtime. Both have "
            "the import name 'realtime', and each overwrites files of the other.",
            hint="Keep it in another environment: pip uninstall realtime, then "
            "pip install --force-reinstall --no-deps django-channels-realtime.",
            id="realtime.E005",
        )
    ]


@register("realtime")
def check_runserver(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a ``runserver`` that would serve WSGI, where no client can connect."""
    app = get_commands().get("runserver", "django.core")
    if app == "realtime":
        return []
    command = load_command_class(app, "runserver")
    # By name: Daphne's command is imported only where somebody uses it.
    if any(base.__module__.startswith("daphne.") for base in type(command).__mro__):
        return []
    return [
        Warning(
            f"manage.py runserver is that of {app!r}, which does not serve ASGI.",
            hint='Put "realtime" first in INSTALLED_APPS; runserver is Daphne then.',
            id="realtime.W001",
        )
    ]


@register("realtime")
def check_asgi_application(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a missing ``ASGI_APPLICATION``, without which runserver does not start."""
    if conf.asgi_application():
        return []
    return [
        Warning(
            "ASGI_APPLICATION is not set, and runserver needs it.",
            hint='Name the application in your asgi.py: "mysite.asgi.application".',
            id="realtime.W002",
        )
    ]


@register("realtime")
def check_sqlite(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report SQLite databases in which readers and writers block one another."""
    # `default` holds the outbox and the fallback layer, whichever store the logs are in.
    aliases = {"default", _store_alias()} & connections.settings.keys()
    messages: list[CheckMessage] = []
    for alias in sorted(aliases):
        missing = _lacking(connections.settings[alias])
        if missing:
            messages.append(
                Warning(
                    f"The SQLite database {alias!r} lacks {' and '.join(missing)}: under load, "
                    "publishing fails with 'database is locked'.",
                    hint=_SQLITE_HINT.format(alias=alias),
                    id="realtime.W003",
                )
            )
    return messages


def _store_alias() -> str:
    try:
        return get_store().alias or "default"
    except Exception:
        return "default"  # reported by check_store


def _lacking(database: Mapping[str, Any]) -> list[str]:
    """Return what a database needs for several writers, if it is a SQLite file."""
    name = str(database["NAME"])
    if not _is_sqlite(database) or _names_memory(name):
        return []  # in memory nobody else can write to it
    options = database.get("OPTIONS") or {}
    missing = []
    if str(options.get("transaction_mode")).upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        missing.append("IMMEDIATE transactions")
    command = str(options.get("init_command", "")).casefold().replace(" ", "")
    if "journal_mode=wal" not in command and not _is_wal(Path(name)):
        missing.append("write-ahead logging (WAL)")
    return missing


def _is_sqlite(database: Mapping[str, Any]) -> bool:
    return str(database["ENGINE"]).endswith(("sqlite3", "spatialite"))


def _names_memory(name: str) -> bool:
    return ":memory:" in name or "mode=memory" in name


def _is_wal(path: Path) -> bool:
    """Return True if a SQLite file says that it is written ahead of.

    Source: https://www.sqlite.org/fileformat.html, 1.3.3: the write version at offset 18 is 2.
    """
    try:
        with path.open("rb") as file:
            return file.read(19)[18:] == b"\x02"
    except OSError:
        return False
