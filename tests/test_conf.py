"""The settings, and the errors about invalid ones."""

from dataclasses import FrozenInstanceError
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from realtime import conf
from realtime.conf import Config, Limits


@pytest.mark.parametrize("absent", [{}, {"STORE": {}, "LIMITS": {}, "ALLOWED_ORIGINS": []}])
def test_every_setting_has_a_default(absent: dict[str, Any]) -> None:
    with override_settings(REALTIME=absent):
        config = conf.get()
    assert config == Config()
    assert config.store_backend == "realtime.stores.database.DatabaseStore"
    assert config.prefix == "realtime/"
    assert config.limits.event_bytes == 65_536


def test_the_setting_can_be_absent(settings: Any) -> None:
    with override_settings(REALTIME={}):
        del settings.REALTIME
        assert conf.get() == Config()
        assert conf.check() == []


def test_values_are_read() -> None:
    value = {
        "STORE": {"BACKEND": "a.b.Store", "LOCATION": "redis://x", "OPTIONS": {"using": "log"}},
        "PREFIX": "live/v1/",
        "ALLOWED_ORIGINS": ["https://a.example", "http://localhost:5173", "https://*.b.example"],
        "TRUSTED_PROXIES": ["127.0.0.1", "10.0.0.0/8", "fd00::/8", "unix"],
        "FORGET_AFTER": timedelta(days=90),
        "LIMITS": {"topics": 7},
    }
    with override_settings(REALTIME=value):
        assert conf.get() == Config(
            store_backend="a.b.Store",
            store_location="redis://x",
            store_options={"using": "log"},
            prefix="live/v1/",
            allowed_origins=tuple(value["ALLOWED_ORIGINS"]),
            trusted_proxies=(
                ip_network("127.0.0.1"),
                ip_network("10.0.0.0/8"),
                ip_network("fd00::/8"),
                "unix",
            ),
            forget_after=timedelta(days=90),
            limits=Limits(topics=7),
        )


@pytest.mark.parametrize("value", [None, timedelta(days=30), timedelta(days=400)])
def test_a_topic_is_forgotten_after_30_days_or_more_or_never(value: timedelta | None) -> None:
    assert conf.get().forget_after == timedelta(days=30)
    with override_settings(REALTIME={"FORGET_AFTER": value}):
        assert conf.check() == []
        assert conf.get().forget_after == value


def test_the_settings_are_read_once_and_again_after_a_change() -> None:
    with override_settings(REALTIME={"LIMITS": {"topics": 7}}):
        first = conf.get()
        assert conf.get() is first
        with override_settings(REALTIME={"LIMITS": {"topics": 8}}):
            assert conf.get().limits.topics == 8
        assert conf.get().limits.topics == 7
    assert conf.get().limits == Limits()


def test_a_later_change_of_the_settings_dict_has_no_effect() -> None:
    options: dict[str, object] = {"using": "log"}
    with override_settings(REALTIME={"STORE": {"OPTIONS": options}}):
        config = conf.get()
        options["using"] = "other"
        assert config.store_options == {"using": "log"}
        with pytest.raises(FrozenInstanceError):
            config.prefix = "x/"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "where", "hint"),
    [
        (None, "REALTIME", "'STORE', 'PREFIX', 'ALLOWED_ORIGINS', 'TRUSTED_PROXIES', "),
        (["STORE"], "REALTIME", "'STORE'"),
        ({"STORE": "a.b.Store"}, 'REALTIME["STORE"]', "'BACKEND'"),
        ({"STORE": {"BACKEND": "Store"}}, 'REALTIME["STORE"]["BACKEND"]', "DatabaseStore"),
        ({"STORE": {"BACKEND": None}}, 'REALTIME["STORE"]["BACKEND"]', "DatabaseStore"),
        ({"STORE": {"LOCATION": None}}, 'REALTIME["STORE"]["LOCATION"]', "URL"),
        ({"STORE": {"OPTIONS": "default"}}, 'REALTIME["STORE"]["OPTIONS"]', '{"using": "default"}'),
        ({"STORE": {"OPTIONS": {1: 2}}}, 'REALTIME["STORE"]["OPTIONS"]', '{"using": "default"}'),
        ({"PREFIX": "/realtime/"}, 'REALTIME["PREFIX"]', '"realtime/"'),
        ({"PREFIX": "realtime"}, 'REALTIME["PREFIX"]', '"realtime/"'),
        ({"PREFIX": ""}, 'REALTIME["PREFIX"]', '"realtime/"'),
        ({"PREFIX": "a/../b/"}, 'REALTIME["PREFIX"]', '"realtime/"'),
        ({"PREFIX": "a b/\n"}, 'REALTIME["PREFIX"]', '"realtime/"'),
        ({"ALLOWED_ORIGINS": "https://a.example"}, 'REALTIME["ALLOWED_ORIGINS"]', "list"),
        ({"ALLOWED_ORIGINS": ["a.example"]}, 'REALTIME["ALLOWED_ORIGINS"]', "scheme"),
        ({"ALLOWED_ORIGINS": ["*"]}, 'REALTIME["ALLOWED_ORIGINS"]', "scheme"),
        ({"ALLOWED_ORIGINS": ["https://a.example/"]}, 'REALTIME["ALLOWED_ORIGINS"]', "path"),
        ({"ALLOWED_ORIGINS": [None]}, 'REALTIME["ALLOWED_ORIGINS"]', "scheme"),
        ({"TRUSTED_PROXIES": "127.0.0.1"}, 'REALTIME["TRUSTED_PROXIES"]', '["127.0.0.1", '),
        ({"TRUSTED_PROXIES": ["proxy"]}, 'REALTIME["TRUSTED_PROXIES"]', '"unix"'),
        ({"TRUSTED_PROXIES": ["10.0.0.1/8"]}, 'REALTIME["TRUSTED_PROXIES"]', "networks"),
        ({"TRUSTED_PROXIES": [2130706433]}, 'REALTIME["TRUSTED_PROXIES"]', "networks"),
        ({"FORGET_AFTER": 30}, 'REALTIME["FORGET_AFTER"]', "timedelta(days=90)"),
        ({"FORGET_AFTER": timedelta(days=29)}, 'REALTIME["FORGET_AFTER"]', "timedelta(days=90)"),
        ({"LIMITS": 5}, 'REALTIME["LIMITS"]', "'event_bytes'"),
        ({"LIMITS": {"topics": 0}}, 'REALTIME["LIMITS"]["topics"]', "100"),
        ({"LIMITS": {"topics": True}}, 'REALTIME["LIMITS"]["topics"]', "100"),
        ({"LIMITS": {"topics": "9"}}, 'REALTIME["LIMITS"]["topics"]', "100"),
        ({"LIMITS": {"pending": 1.5}}, 'REALTIME["LIMITS"]["pending"]', "64"),
    ],
)
def test_an_invalid_value_is_a_problem_that_says_what_to_do(
    value: Any, where: str, hint: str
) -> None:
    with override_settings(REALTIME=value):
        (problem,) = conf.check()
        assert problem.where == where
        assert problem.message.startswith(where)
        assert hint in problem.hint
        assert not problem.unknown
        with pytest.raises(ImproperlyConfigured) as caught:
            conf.get()
    assert problem.message in str(caught.value)
    assert problem.hint in str(caught.value)


@pytest.mark.parametrize(
    ("value", "where", "meant"),
    [
        ({"STOER": {}}, 'REALTIME["STOER"]', "'STORE'"),
        ({"prefix": "x/"}, 'REALTIME["prefix"]', "'PREFIX'"),
        ({"ALLOWED_ORIGIN": []}, 'REALTIME["ALLOWED_ORIGIN"]', "'ALLOWED_ORIGINS'"),
        ({"STORE": {"BACKEN": "x"}}, 'REALTIME["STORE"]["BACKEN"]', "'BACKEND'"),
        ({"LIMITS": {"topic": 5}}, 'REALTIME["LIMITS"]["topic"]', "'topics'"),
    ],
)
def test_an_unknown_key_is_a_problem_that_names_the_closest_key(
    value: Any, where: str, meant: str
) -> None:
    with override_settings(REALTIME=value):
        (problem,) = conf.check()
        with pytest.raises(ImproperlyConfigured, match="Did you mean"):
            conf.get()
    assert problem.unknown
    assert problem.where == where
    assert f"Did you mean {meant}?" in problem.hint


def test_the_problem_of_an_unknown_key_lists_all_keys() -> None:
    with override_settings(REALTIME={5: 1}):
        (problem,) = conf.check()
    keys = "'STORE', 'PREFIX', 'ALLOWED_ORIGINS', 'TRUSTED_PROXIES', 'AUTHENTICATE', "
    assert problem.hint == f"Its keys are {keys}'FORGET_AFTER', 'LIMITS'."


def test_all_problems_are_reported_at_once() -> None:
    value = {"X": 1, "PREFIX": "", "STORE": {"LOCATION": 1, "Y": 2}, "LIMITS": {"topics": -1}}
    with override_settings(REALTIME=value):
        assert len(conf.check()) == 5
        with pytest.raises(ImproperlyConfigured) as caught:
            conf.get()
    assert len(str(caught.value).splitlines()) == 5


def test_a_secret_depends_on_the_key_and_the_salt() -> None:
    made = set()
    for key in ("one", "two", b"two"):
        with override_settings(SECRET_KEY=key):
            made |= {conf.secret(b"a"), conf.secret(b"b")}
    assert len(made) == 4
    assert {len(secret) for secret in made} == {32}


def test_allowed_hosts_are_those_that_django_allows() -> None:
    with override_settings(DEBUG=False, ALLOWED_HOSTS=[]):
        assert conf.allowed_hosts() == []
    with override_settings(DEBUG=True, ALLOWED_HOSTS=[]):
        assert conf.allowed_hosts() == [".localhost", "127.0.0.1", "[::1]"]
    with override_settings(DEBUG=True, ALLOWED_HOSTS=["a.example"]):
        assert conf.allowed_hosts() == ["a.example"]


def test_settings_of_django_are_read() -> None:
    with override_settings(
        DEBUG=True,
        CSRF_TRUSTED_ORIGINS=["https://a.example"],
        SECURE_PROXY_SSL_HEADER=["HTTP_X_SCHEME", "https"],
        USE_X_FORWARDED_HOST=True,
        ASGI_APPLICATION="mysite.asgi.application",
    ):
        assert conf.debug()
        assert conf.csrf_trusted_origins() == ["https://a.example"]
        assert conf.secure_proxy_ssl_header() == ("HTTP_X_SCHEME", "https")
        assert conf.use_x_forwarded_host()
        assert conf.asgi_application() == "mysite.asgi.application"
    with override_settings(SECURE_PROXY_SSL_HEADER=None, ASGI_APPLICATION=None):
        assert conf.secure_proxy_ssl_header() is None
        assert conf.asgi_application() is None


@pytest.mark.parametrize(
    ("layers", "has"), [(None, False), ({}, False), ({"x": {}}, False), ({"default": {}}, True)]
)
def test_only_a_default_channel_layer_counts(layers: Any, has: bool) -> None:
    with override_settings(CHANNEL_LAYERS=layers):
        assert conf.has_channel_layers() is has
