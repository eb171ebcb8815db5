"""System checks: ``manage.py check`` reports problems that would otherwise show later or never.

=============  ==================================================================
realtime.E001  a value in ``settings.REALTIME`` is wrong
realtime.E002  a key in ``settings.REALTIME`` is not known
realtime.E003  two topic patterns have the same shape
realtime.E004  the store cannot be created
realtime.E005  another package with the import name ``realtime`` is installed
realtime.E006  the channel layer cannot be created
realtime.E007  a database has one schema per tenant
realtime.E008  a database is of a vendor that this app does not support
realtime.E009  the store holds the logs of another site
realtime.E020  an admin class with a publish action has no ``get_publication()``
realtime.W001  ``runserver`` belongs to another app and does not serve ASGI
realtime.W002  ``ASGI_APPLICATION`` is not set, or cannot be imported
realtime.W003  a SQLite database is not set up for several writers
realtime.W004  the store is not shared by processes
realtime.W005  the channel layer is not shared by the processes that share the store
realtime.W006  a connection pool is too small for this app
realtime.W008  ``ASGI_APPLICATION`` does not serve realtime's paths
realtime.W009  a topic class has no ``can_subscribe()``
=============  ==================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from itertools import groupby
from typing import Any

from channels.layers import BaseChannelLayer, InMemoryChannelLayer, channel_layers
from django.apps import apps
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.management import get_commands, load_command_class
from django.db import connections, router
from django.utils.module_loading import import_string

from realtime import conf, topics
from realtime.asgi import is_mounted
from realtime.broadcast import get_layer
from realtime.exceptions import ForeignStore
from realtime.import_name import find_others, remedy
from realtime.layers import DatabaseChannelLayer
from realtime.stores import get_store
from realtime.stores.database.clock import explain_vendor
from realtime.stores.pool_checks import check_pool
from realtime.stores.sqlite_checks import check_database, is_sqlite
from realtime.tenants import explain_tenants
from realtime.threads import (
    ACTION_THREADS,
    IDENTITY_THREADS,
    PERMISSION_THREADS,
    RELAY_THREADS,
    STORE_THREADS,
)

__all__ = [
    "check_asgi_application",
    "check_import_name",
    "check_layer",
    "check_patterns",
    "check_permissions",
    "check_pools",
    "check_runserver",
    "check_settings",
    "check_shared_layer",
    "check_shared_store",
    "check_site",
    "check_sqlite",
    "check_store",
    "check_tenants",
    "check_vendors",
]


@register("realtime")
def check_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report every wrong value and unknown key in ``settings.REALTIME``."""
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
    """Report patterns of the same shape, where a name can match more than one of them."""
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
                    f"The topic patterns {listed} have the same shape, {shape!r}: "
                    "a name can match more than one of them.",
                    hint="Give one of them another literal segment. Until then the first is used.",
                    id="realtime.E003",
                )
            )
    return messages


@register("realtime")
def check_permissions(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report topic classes that say nowhere who is allowed to subscribe."""
    return [
        Warning(
            f"The topic {pattern.text!r} ({cls.__module__}.{cls.__qualname__}) has no "
            "can_subscribe(), so nobody is allowed to subscribe to it.",
            hint="Write def can_subscribe(self, user), which returns whether the user is allowed "
            "to; if nobody is, let it return False.",
            id="realtime.W009",
        )
        for pattern, cls in topics.patterns()
        if cls.can_subscribe is topics.Topic.can_subscribe
    ]


@register("realtime")
def check_store(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a store that cannot be created, or the messages of the store's own ``check()``."""
    if conf.check():
        return []  # check_settings reports it
    try:
        store = get_store()
    except Exception as error:  # a third-party store can raise anything
        return [
            Error(
                f'The store of REALTIME["STORE"] cannot be created: {error}',
                hint=f'The default is {{"BACKEND": "{conf.DEFAULT_STORE}"}}.',
                id="realtime.E004",
            )
        ]
    return store.check()


@register("realtime", Tags.database)
def check_site(
    app_configs: Any = None, databases: Collection[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Report a store outside the databases that holds the logs of another site.

    This asks the store, so it runs only where Django asks databases too: in ``migrate`` and in
    ``check --database default``.
    """
    try:
        if databases and get_store().alias is None:
            get_store().clock()
    except ForeignStore as error:
        return [Error(f"{error}.", id="realtime.E009")]
    except Exception:
        return []  # check_store reports it, or the store cannot be reached now
    return []


@register("realtime")
def check_layer(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a channel layer that cannot be imported or refuses its options.

    Publishing would work without it, but every wake-up would fail, and events would arrive up to
    five seconds late.
    """
    if not conf.has_channel_layers():
        return []
    try:
        # Not get_channel_layer(), which takes any KeyError of the layer for a missing entry.
        layer = channel_layers["default"]
        if not callable(getattr(layer, "group_send", None)):
            raise TypeError(f"{type(layer).__name__} is not a channel layer with groups")
    except Exception as error:  # a third-party layer can raise anything
        reason = f"{type(error).__name__}: {error}"
        return [
            Error(
                f'The channel layer of CHANNEL_LAYERS["default"] cannot be created: {reason}',
                hint='The entry is a dict with the path of a class as "BACKEND" and that class\'s '
                'options as "CONFIG". Leave it out to send wake-ups through the database, or see '
                "docs/channel-layer.md and docs/redis.md for the layers that work.",
                id="realtime.E006",
            )
        ]
    return []


@register("realtime")
def check_shared_store(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a store that processes cannot share.

    SQLite in memory is reported only if the channel layer is shared, because tests use it.
    """
    try:
        store, layer = get_store(), get_layer()
    except Exception:
        return []  # check_store or check_layer reports it
    name = store.unshared()
    if not name or (store.shared and _unshared(layer)):
        return []
    return [
        Warning(
            f"The store {name} is not shared: each process has logs of its own, "
            "so clients of this process do not receive what another process (a second server, a "
            "worker, manage.py) publishes.",
            hint=f'Use {{"BACKEND": "{conf.DEFAULT_STORE}"}} in REALTIME["STORE"], on a database '
            "that processes share. If there is only one process, put "
            '"realtime.W004" into SILENCED_SYSTEM_CHECKS.',
            id="realtime.W004",
        )
    ]


@register("realtime")
def check_shared_layer(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a channel layer that processes cannot share, if the store suggests several processes.

    A store suggests several processes if its logs are on a server: if it is shared and not in
    SQLite.
    """
    try:
        store, layer = get_store(), get_layer()
    except Exception:
        return []  # check_store or check_layer reports it
    name = _unshared(layer)
    if not name or not store.shared or (store.alias is not None and is_sqlite(store.alias)):
        return []
    return [
        Warning(
            f"The channel layer {name} is not shared, but the store {type(store).__name__} is: "
            "events of another process (a second server, a worker, manage.py) reach this one's "
            "clients up to five seconds late.",
            hint='Leave CHANNEL_LAYERS["default"] out, so that the wake-ups go through the '
            "database, or name a layer that processes share, such as "
            '"channels_redis.pubsub.RedisPubSubChannelLayer". If there is only one process, put '
            '"realtime.W005" into SILENCED_SYSTEM_CHECKS.',
            id="realtime.W005",
        )
    ]


def _unshared(layer: BaseChannelLayer) -> str:
    """Return a layer's name and why processes cannot share it, for a message; "" if they can."""
    if isinstance(layer, InMemoryChannelLayer):
        return type(layer).__name__
    # Look it up in the class: an attribute look-up in an instance of channels_redis needs a running
    # event loop.
    unshared: Callable[[BaseChannelLayer], str] | None = getattr(type(layer), "unshared", None)
    return "" if unshared is None else unshared(layer)


@register("realtime")
def check_import_name(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report other distributions that install their files into this package's folder."""
    return [
        Error(
            f"{other} is installed next to django-channels-realtime. Both have the import name "
            "'realtime', and each overwrites files of the other.",
            hint=remedy(),
            id="realtime.E005",
        )
        for other in find_others()
    ]


@register("realtime")
def check_runserver(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a ``runserver`` that serves WSGI, where clients can at most poll."""
    app = get_commands().get("runserver", "django.core")
    if app == "realtime":
        return []
    command = load_command_class(app, "runserver")
    # By name, so that Daphne is imported only where it is used.
    if any(base.__module__.startswith("daphne.") for base in type(command).__mro__):
        return []
    return [
        Warning(
            f"manage.py runserver comes from {app!r}, which does not serve ASGI: no "
            "WebSocket or event stream can connect.",
            hint='Put "realtime" first in INSTALLED_APPS; runserver then runs Daphne.',
            id="realtime.W001",
        )
    ]


@register("realtime")
def check_asgi_application(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report an ``ASGI_APPLICATION`` that is missing or does not serve realtime's paths.

    Without one, ``runserver`` does not start.
    """
    path = conf.asgi_application()
    if not path:
        return [
            Warning(
                "ASGI_APPLICATION is not set, and runserver needs it.",
                hint='Name the application in your asgi.py: "mysite.asgi.application".',
                id="realtime.W002",
            )
        ]
    try:
        application = import_string(path)
    except Exception as error:  # the module is the project's, and can raise anything
        return [
            Warning(
                f"ASGI_APPLICATION is {path!r}, which cannot be imported: "
                f"{type(error).__name__}: {error}",
                hint='Name the application in your asgi.py: "mysite.asgi.application".',
                id="realtime.W002",
            )
        ]
    if is_mounted(application):
        return []
    return [
        Warning(
            f"The ASGI application {path!r} does not serve realtime: all paths below "
            f"/{conf.get().prefix} are answered by Django, so no client can connect.",
            hint="In its module: from realtime.asgi import with_realtime, then "
            "application = with_realtime(get_asgi_application()). If clients only poll, through "
            'realtime.urls, put "realtime.W008" into SILENCED_SYSTEM_CHECKS.',
            id="realtime.W008",
        )
    ]


@register("realtime")
def check_tenants(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report databases with one schema per tenant, whose tenants would share topics."""
    return [
        Error(
            f"{reason[0].upper()}{reason[1:]}.",
            hint="Run processes per tenant, with django.db.backends.postgresql and the tenant's "
            "schema as search_path.",
            id="realtime.E007",
        )
        for reason in map(explain_tenants, connections)
        if reason
    ]


@register("realtime")
def check_vendors(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report databases that this app uses, but cannot: it needs their clock in SQL.

    It uses each database in which a router allows its tables, because it looks there for events
    that wait for their relay.
    """
    models = list(apps.get_app_config("realtime").get_models())
    return [
        Error(
            f"{reason[0].upper()}{reason[1:]}.",
            hint='Keep the tables of "realtime" in another database: name it in REALTIME["STORE"] '
            "and in using= of publish(), and let a database router answer False to "
            f'allow_migrate({alias!r}, "realtime").',
            id="realtime.E008",
        )
        for alias in connections
        if any(router.allow_migrate_model(alias, model) for model in models)
        and connections.settings[alias]["ENGINE"] != "django.db.backends.dummy"
        and (reason := explain_vendor(connections[alias]))
    ]


@register("realtime")
def check_sqlite(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report SQLite databases in which readers and writers block each other.

    They are ``default``, which holds the outbox and the fallback layer whatever the store is, and
    those of the database layers. A store on the same alias reports it in its own ``check()``.
    """
    reported = check_store()
    aliases = {"default": None, **dict.fromkeys(_aliases_of_layers())}
    messages = [message for alias in aliases for message in check_database(alias)]
    return [message for message in messages if message not in reported]


@register("realtime")
def check_pools(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report a connection pool with fewer connections than this app and one view can use."""
    try:
        store = get_store()
    except Exception:
        return []  # check_store reports it
    layers = _aliases_of_layers()
    messages: list[CheckMessage] = []
    for alias in dict.fromkeys(["default", *filter(None, [store.alias]), *layers]):
        needed = {"the outbox": RELAY_THREADS.count}
        if alias == store.alias:
            needed["the logs"] = STORE_THREADS.count
        if alias == "default":
            needed["sessions"] = IDENTITY_THREADS.count
            needed["can_subscribe"] = PERMISSION_THREADS.count
            needed["actions"] = ACTION_THREADS.count
        if alias in layers:
            needed["the channel layer"] = layers.count(alias)
        messages += check_pool(alias, needed)
    return messages


def _aliases_of_layers() -> list[str]:
    """Return the database alias of each ``DatabaseChannelLayer`` of this process."""
    layers: list[Any] = []
    with suppress(Exception):  # check_layer reports it
        layers.append(get_layer())
    for name in conf.channel_layer_names():
        if name != "default":
            with suppress(Exception):  # not used by this app
                layers.append(channel_layers[name])
    return [layer.using for layer in layers if isinstance(layer, DatabaseChannelLayer)]
