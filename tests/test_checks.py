"""The system checks: each problem has its id, and a hint that solves it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import ERROR, CheckMessage, run_checks
from django.core.management import get_commands
from django.db import NotSupportedError, connections
from django.test import override_settings

from realtime import checks
from realtime.stores.database.clock import DatabaseClock
from realtime.stores.memory import MemoryStore
from realtime.topics import Topic, isolated, register

WAL = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"


@pytest.fixture(autouse=True)
def _registrations_end_with_the_test() -> Iterator[None]:
    with isolated():
        yield


def found() -> list[str]:
    """Return the ids that all checks report."""
    return [message.id or "" for message in run_checks(tags=["realtime"])]


def test_a_project_that_is_set_up_correctly_has_no_problem() -> None:
    assert found() == []


# Settings


def test_a_wrong_value_is_reported_with_a_valid_one() -> None:
    with override_settings(REALTIME={"PREFIX": "/x"}):
        (message,) = checks.check_settings()
        assert found() == ["realtime.E001"]
    assert message.id == "realtime.E001"
    assert 'REALTIME["PREFIX"]' in message.msg
    assert '"realtime/"' in (message.hint or "")


def test_an_unknown_key_is_reported_with_the_nearest_known_one() -> None:
    with override_settings(REALTIME={"LIMITS": {"topic": 5}, "STOER": {}}):
        messages = checks.check_settings()
    assert {message.id for message in messages} == {"realtime.E002"}
    assert [(message.hint or "").partition("?")[0] for message in messages] == [
        "Did you mean 'STORE'",
        "Did you mean 'topics'",
    ]


# Patterns


def test_two_patterns_of_the_same_shape_are_reported_with_their_classes() -> None:
    @register("bills.<int:pk>")
    class BillTopic(Topic):
        pk: int

    @register("bills.<slug:name>")
    class NamedBillTopic(Topic):
        name: str

    (message,) = checks.check_patterns()
    assert message.id == "realtime.E003"
    for text in ("'bills.<int:pk>'", "BillTopic", "'bills.<slug:name>'", "NamedBillTopic"):
        assert text in message.msg


def test_a_more_specific_pattern_is_no_problem() -> None:
    @register("orders.new")
    class NewOrderTopic(Topic):
        pass

    assert checks.check_patterns() == []


def test_a_topic_that_says_nowhere_who_is_allowed_to_subscribe_is_reported() -> None:
    @register("bills.<int:pk>")
    class BillTopic(Topic):
        pk: int

    (message,) = checks.check_permissions()
    assert message.id == "realtime.W009"
    assert "'bills.<int:pk>'" in message.msg
    assert "BillTopic) has no can_subscribe()" in message.msg
    assert "def can_subscribe(self, user)" in (message.hint or "")


def test_a_topic_that_inherits_its_can_subscribe_is_no_problem() -> None:
    class Closed(Topic):
        def can_subscribe(self, user: Any) -> bool:
            return False

    @register("bills.<int:pk>")
    class BillTopic(Closed):
        pk: int

    assert checks.check_permissions() == []


# Store


@pytest.mark.parametrize(
    ("store", "text"),
    [
        ({"BACKEND": "realtime.stores.nowhere.Store"}, "realtime.stores.nowhere"),
        ({"BACKEND": "realtime.stores.base.Page"}, "realtime.stores.base.Page"),
        ({"OPTIONS": {"using": "nowhere"}}, "nowhere"),
    ],
)
def test_a_store_that_cannot_be_created_is_reported(store: dict[str, Any], text: str) -> None:
    with override_settings(REALTIME={"STORE": store}):
        (message,) = checks.check_store()
        assert found() == ["realtime.E004"]
    assert message.id == "realtime.E004"
    assert text in message.msg


def test_a_store_whose_settings_are_wrong_is_reported_once() -> None:
    with override_settings(REALTIME={"STORE": {"BACKEND": 5}}):
        assert found() == ["realtime.E001"]


class ThirdPartyStore(MemoryStore):
    shared = True


def test_a_store_that_is_not_shared_is_reported() -> None:
    store = {"BACKEND": "realtime.stores.memory.MemoryStore"}
    with override_settings(REALTIME={"STORE": store}):
        (message,) = checks.check_shared_store()
        assert found() == ["realtime.W004"]
    assert "MemoryStore is not shared: each process has logs of its own" in message.msg
    assert "realtime.stores.database.DatabaseStore" in (message.hint or "")
    with override_settings(REALTIME={"STORE": {"BACKEND": "tests.test_checks.ThirdPartyStore"}}):
        assert found() == []


MEMORY_LAYER = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
REDIS_LAYER = {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}}
REDIS_STORE = {
    "STORE": {"BACKEND": "realtime.stores.redis.RedisStore", "LOCATION": "redis://localhost"}
}
SERVER = {"ENGINE": "django.db.backends.postgresql", "NAME": "x"}
IN_MEMORY = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


@pytest.mark.parametrize(
    ("store", "layers", "default", "ids"),
    [
        (REDIS_STORE, MEMORY_LAYER, None, ["realtime.W005"]),
        (REDIS_STORE, REDIS_LAYER, None, []),
        (REDIS_STORE, {}, None, []),
        (REDIS_STORE, {}, IN_MEMORY, ["realtime.W005"]),
        ({}, MEMORY_LAYER, SERVER, ["realtime.W005"]),
        ({}, REDIS_LAYER, SERVER, []),
        ({}, {}, SERVER, []),
        ({}, MEMORY_LAYER, None, []),  # a SQLite file: probably one process
        ({}, MEMORY_LAYER, IN_MEMORY, []),  # a test
        ({}, {}, IN_MEMORY, []),
        ({}, REDIS_LAYER, IN_MEMORY, ["realtime.W004"]),
        (
            {"STORE": {"BACKEND": "realtime.stores.memory.MemoryStore"}},
            REDIS_LAYER,
            None,
            ["realtime.W004"],
        ),
    ],
)
def test_an_unshared_store_or_layer_is_reported_if_the_settings_suggest_several_processes(
    monkeypatch: pytest.MonkeyPatch,
    store: dict[str, Any],
    layers: dict[str, Any],
    default: dict[str, Any] | None,
    ids: list[str],
) -> None:
    if default is not None:
        monkeypatch.setitem(connections.settings, "default", {"OPTIONS": {}, **default})
    with override_settings(REALTIME=store, CHANNEL_LAYERS=layers):
        assert found() == ids
        for message in [*checks.check_shared_layer(), *checks.check_shared_store()]:
            named = {"realtime.W004": "The store ", "realtime.W005": "The channel layer "}
            assert message.msg.startswith(named[message.id or ""])
            assert str(message.id) in (message.hint or "")


OURS = "realtime.layers.DatabaseChannelLayer"


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ({"BACKEND": OURS, "CONFIG": {"hosts": []}}, "unexpected keyword argument 'hosts'"),
        ({"BACKEND": OURS, "CONFIG": {"using": "nope"}}, "using is 'nope', which is not an alias"),
        ({"BACKEND": OURS, "CONFIG": {"polling_interval": -1}}, "polling_interval is -1"),
        ({"BACKEND": "channels_redis.pubsub.Nope"}, "channels_redis.pubsub.Nope"),
        ({"BACKEND": "tests.test_checks.LayerWithoutItsKey"}, "KeyError: 'address'"),
        ({"BACKEND": "builtins.dict"}, "dict is not a channel layer with groups"),
        ({"CONFIG": {}}, "No BACKEND"),
        (None, "NoneType"),
    ],
)
@pytest.mark.parametrize("store", [{}, REDIS_STORE], ids=["database", "redis"])
def test_a_layer_that_cannot_be_created_is_reported_once(
    store: dict[str, Any], layer: object, text: str
) -> None:
    with override_settings(REALTIME=store, CHANNEL_LAYERS={"default": layer}):
        (message,) = checks.check_layer()
        assert found() == ["realtime.E006"]
    assert message.id == "realtime.E006"
    assert 'CHANNEL_LAYERS["default"] cannot be created: ' in message.msg
    assert text in message.msg
    assert '"BACKEND"' in (message.hint or "")


class LayerWithoutItsKey:
    def __init__(self) -> None:
        raise KeyError("address")


def test_no_layer_and_a_layer_that_can_be_created_are_no_problem() -> None:
    for layers in ({}, MEMORY_LAYER, REDIS_LAYER, {"default": {"BACKEND": OURS}}):
        with override_settings(CHANNEL_LAYERS=layers):
            assert checks.check_layer() == []


# runserver


@pytest.fixture
def _commands_are_looked_up_again() -> Iterator[None]:
    yield
    get_commands.cache_clear()


@pytest.mark.usefixtures("_commands_are_looked_up_again")
@pytest.mark.parametrize(
    ("first", "ids"),
    [
        (["realtime", "daphne", "django.contrib.staticfiles"], []),
        (["daphne", "realtime", "django.contrib.staticfiles"], []),
        (["django.contrib.staticfiles", "realtime"], ["realtime.W001"]),
        (["tests.testapp", "realtime"], []),
    ],
)
def test_a_runserver_that_is_not_daphne_is_reported(first: list[str], ids: list[str]) -> None:
    rest = ["django.contrib.contenttypes", "django.contrib.auth"]
    with override_settings(INSTALLED_APPS=[*first, *rest]):
        get_commands.cache_clear()
        messages = checks.check_runserver()
    assert [message.id for message in messages] == ids
    for message in messages:
        assert 'Put "realtime" first' in (message.hint or "")


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_asgi_application_is_reported(value: str | None) -> None:
    with override_settings(ASGI_APPLICATION=value):
        (message,) = checks.check_asgi_application()
    assert message.id == "realtime.W002"
    assert "mysite.asgi.application" in (message.hint or "")


START = (
    "from django.core.asgi import get_asgi_application\n"
    "from channels.routing import ProtocolTypeRouter, URLRouter\n"
    "inner = get_asgi_application()\n"
)
WITH = "from realtime.asgi import with_realtime\n"


@pytest.mark.parametrize(
    ("module", "reported"),
    [
        (WITH + "application = with_realtime(inner)", []),
        (WITH + "application = print, with_realtime(inner)", []),  # within a middleware
        (
            "from realtime.routing import websocket_urlpatterns\n"
            "routes = URLRouter(websocket_urlpatterns)\n"
            "application = ProtocolTypeRouter({'http': inner, 'websocket': routes})",
            [],
        ),
        ("application = inner", ["realtime.W008"]),
        ("application = ProtocolTypeRouter({'http': inner})", ["realtime.W008"]),
        (WITH + "served = with_realtime(inner)\napplication = inner", ["realtime.W008"]),
        ("1 / 0", ["realtime.W002"]),
    ],
    ids=["plain", "middleware", "routing", "forgotten", "router", "another-name", "fails"],
)
def test_an_asgi_application_that_does_not_serve_realtime_is_reported(
    tmp_path: Path, module: str, reported: list[str]
) -> None:
    (tmp_path / "mysite_asgi.py").write_text(START + module)
    script = (
        "import django\n"
        "from django.conf import settings\n"
        "settings.configure(ASGI_APPLICATION='mysite_asgi.application', SECRET_KEY='x',\n"
        "    INSTALLED_APPS=['realtime', 'django.contrib.contenttypes'])\n"
        "django.setup()\n"
        "from realtime.checks import check_asgi_application\n"
        "for message in check_asgi_application(): print(message.id, message.msg, message.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == reported
    if reported == ["realtime.W008"]:
        assert "application = with_realtime(get_asgi_application())" in done.stdout
    if reported == ["realtime.W002"]:
        assert "ZeroDivisionError: division by zero" in done.stdout


# SQLite


def sqlite_messages() -> list[CheckMessage]:
    """Return the messages of all checks about SQLite databases, by alias."""
    reported = [m for m in run_checks(tags=["realtime"]) if m.id == "realtime.W003"]
    return sorted(reported, key=lambda message: message.msg)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the settings of `default`, which is a SQLite file in this test."""
    entry: dict[str, Any] = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": tmp_path / "x.sqlite3",
        "OPTIONS": {},
    }
    monkeypatch.setitem(connections.settings, "default", entry)
    return entry


def test_a_sqlite_file_with_djangos_defaults_is_reported_with_settings_to_paste(
    database: dict[str, Any],
) -> None:
    (message,) = sqlite_messages()
    assert message.id == "realtime.W003"
    assert "'default'" in message.msg
    assert "IMMEDIATE" in message.msg
    assert "WAL" in message.msg
    pasted = (message.hint or "").partition(":\n")[2]
    exec(f"database.update({{{pasted}}})", {"database": database})
    assert database["OPTIONS"]["timeout"] == 20
    assert sqlite_messages() == []


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"transaction_mode": "IMMEDIATE"}, ["WAL"]),
        ({"transaction_mode": "DEFERRED", "init_command": WAL}, ["IMMEDIATE"]),
        ({"transaction_mode": "immediate", "init_command": "pragma journal_mode = wal"}, []),
        ({"transaction_mode": "EXCLUSIVE", "init_command": WAL}, []),
    ],
)
def test_the_settings_that_a_sqlite_file_lacks_are_named(
    database: dict[str, Any], options: dict[str, str], missing: list[str]
) -> None:
    database["OPTIONS"] = options
    text = " ".join(message.msg for message in sqlite_messages())
    assert [word for word in ("IMMEDIATE", "WAL") if word in text] == missing


def test_a_file_in_wal_mode_needs_no_init_command(database: dict[str, Any]) -> None:
    import sqlite3

    database["OPTIONS"] = {"transaction_mode": "IMMEDIATE"}
    for mode, ids in [("WAL", []), ("DELETE", ["realtime.W003"])]:
        connection = sqlite3.connect(database["NAME"])
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute(f"CREATE TABLE {mode}_ (x)")
        connection.commit()
        connection.close()
        assert [message.id for message in sqlite_messages()] == ids


@pytest.mark.parametrize(
    "entry",
    [
        {"ENGINE": "django.db.backends.postgresql", "NAME": "x"},
        {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:x?mode=memory&cache=shared"},
    ],
)
def test_other_databases_are_not_reported(database: dict[str, Any], entry: dict[str, Any]) -> None:
    database.update(entry)
    assert sqlite_messages() == []


def test_the_stores_database_is_checked_too(
    database: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**database, "NAME": database["NAME"].with_name("other.sqlite3")}
    monkeypatch.setitem(connections.settings, "other", other)
    with override_settings(REALTIME={"STORE": {"OPTIONS": {"using": "other"}}}):
        messages = sqlite_messages()
    assert ["'default'" in messages[0].msg, "'other'" in messages[1].msg] == [True, True]


def test_the_database_of_each_channel_layer_is_checked_too(
    database: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**database, "NAME": database["NAME"].with_name("other.sqlite3")}
    database["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "init_command": WAL}
    monkeypatch.setitem(connections.settings, "other", other)
    layer = {"BACKEND": "realtime.layers.DatabaseChannelLayer", "CONFIG": {"using": "other"}}
    for name in ("default", "chat"):
        with override_settings(CHANNEL_LAYERS={name: layer}):
            (message,) = sqlite_messages()
        assert "'other'" in message.msg


# Vendors


@pytest.mark.parametrize("vendor", ["sqlite", "postgresql", "mysql"])
def test_a_database_whose_clock_is_known_is_not_reported(
    vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections["default"], "vendor", vendor)
    assert checks.check_vendors() == []


@pytest.mark.parametrize("vendor", ["oracle", "microsoft"])
def test_a_database_of_an_unknown_vendor_is_refused(
    vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections["other"], "vendor", vendor)
    monkeypatch.setattr(connections["other"], "display_name", "Another")
    (message,) = checks.check_vendors()
    assert (message.id, message.level) == ("realtime.E008", ERROR)
    assert "'other' is Another; realtime keeps its logs in SQLite" in message.msg
    assert "allow_migrate('other', \"realtime\")" in (message.hint or "")
    with pytest.raises(NotSupportedError, match="'other' is Another"):
        DatabaseClock().as_sql(None, connections["other"])  # type: ignore[arg-type]


class ElsewhereRouter:
    def allow_migrate(self, db: str, app_label: str, **hints: object) -> bool | None:
        return False if (db, app_label) == ("other", "realtime") else None


def test_a_database_of_an_unknown_vendor_that_a_router_excludes_is_no_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections["other"], "vendor", "oracle")
    with override_settings(DATABASE_ROUTERS=[ElsewhereRouter()]):
        assert checks.check_vendors() == []


# Connection pools


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        (True, 4),
        ({"min_size": 2}, 2),
        ({"min_size": 2, "max_size": 27}, 27),
        ({"max_size": 28}, None),
        ({"min_size": 30}, None),
        (False, None),
        (None, None),
    ],
)
def test_a_pool_that_is_too_small_is_reported_with_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, pool: object, size: int | None
) -> None:
    entry = {"ENGINE": "django.db.backends.postgresql", "NAME": "x", "OPTIONS": {"pool": pool}}
    monkeypatch.setitem(connections.settings, "default", entry)
    messages = [m for m in run_checks(tags=["realtime"]) if m.id == "realtime.W006"]
    assert len(messages) == (size is not None)
    for message in messages:
        assert f"at most {size} connections" in message.msg
        assert "up to 27 of them" in message.msg
        assert "to 27 plus the number of requests" in (message.hint or "")


def test_an_app_that_uses_redis_needs_fewer_connections_of_a_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = {"ENGINE": "django.db.backends.postgresql", "NAME": "x"}
    monkeypatch.setitem(connections.settings, "default", entry)
    with override_settings(REALTIME=REDIS_STORE, CHANNEL_LAYERS=REDIS_LAYER):
        for size, ids in ((22, ["realtime.W006"]), (23, [])):
            monkeypatch.setitem(entry, "OPTIONS", {"pool": {"max_size": size}})
            assert found() == ids
