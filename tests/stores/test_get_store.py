"""`get_store()` returns the process's store, made from the settings."""

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from realtime.stores import get_store
from realtime.stores.base import Store
from realtime.stores.database import DatabaseStore
from realtime.stores.memory import MemoryStore
from tests.stores.contract import in_threads

MEMORY = {"STORE": {"BACKEND": "realtime.stores.memory.MemoryStore"}}


def test_the_default_is_the_database_store() -> None:
    with override_settings(REALTIME={}):
        store = get_store()
    assert isinstance(store, DatabaseStore)
    assert store.alias == "default"


def test_a_process_has_one_store() -> None:
    with override_settings(REALTIME=MEMORY):
        stores = in_threads(8, lambda _: get_store())
    assert len({id(store) for store in stores}) == 1
    assert isinstance(stores[0], MemoryStore)


def test_changed_settings_create_another_store() -> None:
    with override_settings(REALTIME=MEMORY):
        first = get_store()
    with override_settings(REALTIME=MEMORY):
        assert get_store() is not first


def test_a_store_gets_its_location_and_options() -> None:
    settings = {"STORE": {"BACKEND": f"{__name__}.Recorded", "LOCATION": "x", "OPTIONS": {"a": 1}}}
    with override_settings(REALTIME=settings):
        store = get_store()
    assert (store.location, store.options) == ("x", {"a": 1})


class Recorded(MemoryStore):
    def __init__(self, *arguments: Any) -> None:
        Store.__init__(self, *arguments)


@pytest.mark.parametrize(
    ("backend", "cause"),
    [
        ("realtime.stores.nowhere.Store", ImportError),
        ("realtime.stores.memory.NoStore", ImportError),
        ("realtime.protocol.events.Event", None),
        ("realtime.stores.get_store", None),
    ],
)
def test_a_backend_that_is_not_a_store_is_refused_with_its_name(
    backend: str, cause: type[Exception] | None
) -> None:
    with (
        override_settings(REALTIME={"STORE": {"BACKEND": backend}}),
        pytest.raises(ImproperlyConfigured, match=backend) as caught,
    ):
        get_store()
    assert isinstance(caught.value.__cause__, cause or type(None))
