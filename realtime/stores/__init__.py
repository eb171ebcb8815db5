"""Stores: where the topics' logs are kept.

``get_store()`` returns the store that the settings name; ``base`` is the contract of every store.
"""

from __future__ import annotations

import threading
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from realtime import conf
from realtime.stores.base import Store

__all__ = ["get_store"]

_lock = threading.Lock()
_store: Store | None = None


def get_store() -> Store:
    """Return the process's store, made from ``settings.REALTIME["STORE"]``.

    Raises:
        ImproperlyConfigured: the class cannot be imported, or it refuses its options.
    """
    global _store
    store = _store
    if store is None:
        with _lock:
            store = _store
            if store is None:
                store = _store = _make_store()
    return store


def _make_store() -> Store:
    config = conf.get()
    try:
        backend = import_string(config.store_backend)
    except ImportError as error:
        raise ImproperlyConfigured(
            f'REALTIME["STORE"]["BACKEND"] names {config.store_backend!r}, which cannot be '
            f"imported: {error}"
        ) from error
    if not (isinstance(backend, type) and issubclass(backend, Store)):
        raise ImproperlyConfigured(
            f'REALTIME["STORE"]["BACKEND"] names {config.store_backend!r}, which is not a '
            "subclass of realtime.stores.base.Store"
        )
    return backend(config.store_location, config.store_options)


def _reset_store(*, setting: str, **_: Any) -> None:
    global _store
    if setting == "REALTIME":
        with _lock:
            store, _store = _store, None
        if store is not None:
            store.close()


setting_changed.connect(_reset_store, dispatch_uid="realtime.stores")
