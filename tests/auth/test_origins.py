"""Which pages may connect, for every spelling of an origin by browsers and attackers."""

from collections.abc import Sequence
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from realtime.auth.origins import has_one_host, is_allowed, is_handshake

PROXY = {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")}


def scope(*headers: tuple[str, str], **fields: Any) -> dict[str, Any]:
    return {
        "type": "websocket",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        **fields,
    }


def allowed(
    origin: str | Sequence[str] | None,
    host: str | Sequence[str] = "shop.example",
    *more: tuple[str, str],
    secure: bool | None = None,
    settings: dict[str, Any] | None = None,
    **fields: Any,
) -> bool:
    hosts = [host] if isinstance(host, str) else host
    origins = [origin] if isinstance(origin, str) else origin or ()
    headers = [("host", value) for value in hosts] + [("origin", value) for value in origins]
    hosts_allowed = {"ALLOWED_HOSTS": ["shop.example", ".wild.example", "[::1]", "127.0.0.1"]}
    with override_settings(**hosts_allowed | (settings or {})):
        return is_allowed(scope(*headers, *more, **fields), secure)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "shop.example"),
        ("http://shop.example", "shop.example"),
        ("http://shop.example:80", "shop.example"),
        ("http://shop.example", "shop.example:80"),
        ("http://shop.example:8000", "shop.example:8000"),
        ("http://SHOP.Example", "shop.example"),
        ("HTTP://shop.example", "Shop.EXAMPLE"),
        ("http://a.wild.example", "a.wild.example"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://[::1]", "[::1]"),
        ("http://127.0.0.1", "127.0.0.1"),
        ("http://shop.example.", "shop.example."),
    ],
)
def test_the_sites_own_pages_may_connect(origin: str | None, host: str) -> None:
    assert allowed(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "shop.example"),
        ("http://evil.shop.example", "shop.example"),
        ("http://shop.example.evil.example", "shop.example"),
        ("http://evilshop.example", "shop.example"),
        ("http://shop.example:8000", "shop.example"),
        ("http://shop.example", "shop.example:8000"),
        ("http://shop.example:443", "shop.example"),
        ("https://shop.example", "shop.example"),
        ("ws://shop.example", "shop.example"),
        ("file://", "shop.example"),
        ("null", "shop.example"),
        ("", "shop.example"),
        (" ", "shop.example"),
        ("*", "shop.example"),
        ("shop.example", "shop.example"),
        ("//shop.example", "shop.example"),
        ("http:shop.example", "shop.example"),
        ("http:///shop.example", "shop.example"),
        ("http://", "shop.example"),
        ("http://shop.example/", "shop.example"),
        ("http://shop.example/path", "shop.example"),
        ("http://shop.example?", "shop.example"),
        ("http://shop.example#", "shop.example"),
        ("http://shop.example?q", "shop.example"),
        ("http://shop.example#f", "shop.example"),
        ("http://user@shop.example", "shop.example"),
        ("http://@shop.example", "shop.example"),
        ("http://user:secret@shop.example", "shop.example"),
        ("http://shop.example@evil.example", "shop.example"),
        ("http://shop.example:0", "shop.example"),
        ("http://shop.example:", "shop.example"),
        ("http://shop.example:x", "shop.example"),
        ("http://shop.example:99999", "shop.example"),
        ("http://shop.example:+80", "shop.example"),
        ("http://shop.example", "shop.example."),  # to a browser these are different origins
        ("http://shop.example.", "shop.example"),
        ("http://.shop.example", "shop.example"),
        ("http://shop.example, http://evil.example", "shop.example"),
        ("http://shop.example http://evil.example", "shop.example"),
        ("http://shop\texample", "shop.example"),
        ("http://shop.exam\nple", "shop.example"),
        ("\x00http://shop.example", "shop.example"),
        (" http://shop.example", "shop.example"),
        ("http://shop.example\\@evil.example", "shop.example"),
        ("http://[::1", "[::1]"),
        ("http://[::2]", "[::1]"),
        ("http://::1", "[::1]"),
        ("http://shop.example..", "shop.example"),
    ],
)
def test_other_pages_may_not_connect(origin: str, host: str) -> None:
    assert not allowed(origin, host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "", " ", "shop.example:x", "shop.example/", "a@shop.example",
        "shop.example,", "shop.example evil.example", "[::2]", "shop..example", "evil.example:80",
        "wildXexample",
    ],
)  # fmt: skip
def test_a_host_that_is_not_allowed_is_refused(host: str) -> None:
    assert not allowed(None, host)
    assert not allowed(f"http://{host}", host)


def test_repeated_or_missing_origins_and_hosts_are_refused() -> None:
    assert not allowed(["http://shop.example", "http://evil.example"])
    assert not allowed(["http://shop.example", "http://shop.example"])
    assert not allowed("http://shop.example", ["shop.example", "evil.example"])
    assert not allowed("http://shop.example", ["shop.example", "shop.example"])
    assert not allowed(None, [])
    assert not allowed("http://shop.example", [])


def test_a_request_must_have_exactly_one_host() -> None:
    assert has_one_host(scope(("Host", "evil.example")))
    assert not has_one_host(scope(("origin", "http://shop.example")))
    assert not has_one_host(scope(("host", "shop.example"), ("HOST", "shop.example")))


def test_header_names_are_read_in_any_case() -> None:
    with override_settings(ALLOWED_HOSTS=["shop.example"]):
        headers = [("Host", "shop.example"), ("ORIGIN", "http://evil.example")]
        assert not is_allowed(scope(*headers))


@override_settings(DEBUG=True, ALLOWED_HOSTS=[])
def test_local_hosts_need_no_setting_under_debug() -> None:
    for host in ("localhost:8000", "app.localhost", "127.0.0.1", "[::1]:8000"):
        assert is_allowed(scope(("host", host), ("origin", f"http://{host}")))
    assert not is_allowed(scope(("host", "shop.example")))


# The scheme


@pytest.mark.parametrize(
    ("fields", "secure", "https"),
    [
        ({"scheme": "ws"}, None, False),
        ({"scheme": "wss"}, None, True),
        ({"scheme": "http"}, None, False),
        ({"scheme": "https"}, None, True),
        ({"scheme": "gopher"}, None, False),
        ({"scheme": "ws"}, True, False),  # the scope takes precedence
        ({}, True, True),
        ({}, False, False),
        ({}, None, False),
    ],
)
def test_the_scheme_is_from_the_scope_else_from_the_transport(
    fields: dict[str, str], secure: bool | None, https: bool
) -> None:
    assert allowed("https://shop.example", secure=secure, **fields) is https
    assert allowed("http://shop.example", secure=secure, **fields) is not https
    assert allowed("https://shop.example:443", secure=secure, **fields) is https
    assert allowed("https://shop.example", "shop.example:443", secure=secure, **fields) is https


@pytest.mark.parametrize(
    ("sent", "https"),
    [
        (["https"], True),
        (["https, http"], True),
        (["https,http"], True),
        ([" https "], True),
        (["http"], False),
        (["http, https"], False),
        (["HTTPS"], False),  # as in Django
        ([""], False),
        ([], False),
    ],
)
def test_the_proxys_header_sets_the_scheme_if_configured(sent: list[str], https: bool) -> None:
    more = [("x-forwarded-proto", value) for value in sent]
    own = ("shop.example", *more)
    assert allowed("https://shop.example", *own, settings=PROXY, scheme="ws") is https
    assert allowed("http://shop.example", *own, settings=PROXY, scheme="ws") is not https
    assert not allowed("https://shop.example", *own, scheme="ws"), "not without the setting"


def test_the_proxys_header_twice_is_not_secure() -> None:
    # Django joins them with a comma and takes the first; the client may have sent that one.
    more = [("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")]
    assert not allowed("https://shop.example", "shop.example", *more, settings=PROXY)


def test_the_forwarded_host_is_used_if_django_uses_it() -> None:
    own = ("internal.example", ("x-forwarded-host", "shop.example"))
    settings = {"USE_X_FORWARDED_HOST": True}
    assert allowed("http://shop.example", *own, settings=settings)
    assert not allowed("http://internal.example", *own, settings=settings)
    assert not allowed("http://shop.example", *own)
    twice = (*own, ("x-forwarded-host", "shop.example"))
    assert not allowed("http://shop.example", *twice, settings=settings)
    forged = ("shop.example", ("x-forwarded-host", "evil.example"))
    assert not allowed("http://evil.example", *forged, settings=settings)


# Other trusted origins


@pytest.mark.parametrize("setting", ["CSRF_TRUSTED_ORIGINS", "ALLOWED_ORIGINS"])
@pytest.mark.parametrize(
    ("pattern", "origin", "may"),
    [
        ("https://app.example", "https://app.example", True),
        ("https://app.example", "https://APP.example:443", True),
        ("https://App.Example", "https://app.example", True),
        ("https://app.example", "http://app.example", False),
        ("https://app.example", "https://app.example:8443", False),
        ("https://app.example", "https://a.app.example", False),
        ("https://app.example:8443", "https://app.example:8443", True),
        ("https://app.example:8443", "https://app.example", False),
        ("https://*.app.example", "https://a.app.example", True),
        ("https://*.app.example", "https://a.b.app.example", True),
        ("https://*.app.example", "https://app.example", True),  # as in Django
        ("https://*.app.example", "https://evilapp.example", False),
        ("https://*.app.example", "http://a.app.example", False),
        ("https://*.app.example", "https://a.app.example:8443", False),
        ("https://*.app.example:8443", "https://a.app.example:8443", True),
        ("http://localhost:5173", "http://localhost:5173", True),
        ("http://[::1]:5173", "http://[::1]:5173", True),
        ("http://[::1]:5173", "http://[::2]:5173", False),
        ("https://*.app.example", "null", False),
    ],
)
def test_trusted_origins_may_connect(setting: str, pattern: str, origin: str, may: bool) -> None:
    settings = {setting: [pattern]}
    if setting == "ALLOWED_ORIGINS":
        settings = {"REALTIME": settings}  # type: ignore[dict-item]
    assert allowed(origin, settings=settings) is may


def test_the_scheme_of_a_mobile_app_can_be_allowed() -> None:
    settings = {"REALTIME": {"ALLOWED_ORIGINS": ["capacitor://localhost"]}}
    assert allowed("capacitor://localhost", settings=settings)
    assert not allowed("capacitor://localhost")


# Arbitrary input

anything = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(
            [b"http", b"s", b"://", b":", b"[", b"]", b"@", b".", b"*", b"/", b"shop.example",
             b"80", b"::1", b"\xff", b" ", b",", b"%", b"\\", b"?", b"#", b"\x00"]
        ),
        max_size=8,
    ).map(b"".join),
)  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"host",
                    b"origin",
                    b"x-forwarded-proto",
                    b"x-forwarded-host",
                    b"x-forwarded-port",
                    b"Origin",
                ]
            )
            | anything,
            anything,
        ),
        max_size=6,
    ),
    st.none() | st.booleans(),
    st.booleans(),
)
def test_no_headers_raise_an_error(
    headers: list[tuple[bytes, bytes]], secure: bool | None, proxied: bool
) -> None:
    settings = {"USE_X_FORWARDED_HOST": True, "USE_X_FORWARDED_PORT": True} | PROXY
    with override_settings(ALLOWED_HOSTS=["*"], **settings if proxied else {}):
        assert is_allowed({"headers": headers}, secure) in (True, False)


@given(anything)
def test_no_spelling_of_a_foreign_origin_is_allowed(origin: bytes) -> None:
    with override_settings(ALLOWED_HOSTS=["shop.example"]):
        headers = [(b"host", b"shop.example"), (b"origin", origin)]
        if is_allowed({"headers": headers}):
            assert origin.lower() in (
                b"http://shop.example",
                b"http://shop.example:80",
            )


def test_a_websocket_of_a_test_has_no_headers_of_a_handshake() -> None:
    assert not is_handshake(scope())
    assert not is_handshake(scope(("cookie", "sessionid=x"), ("origin", "https://shop.example")))
    assert is_handshake(scope(("Host", "shop.example")))
    assert is_handshake(scope(("Sec-WebSocket-Key", "x")))
