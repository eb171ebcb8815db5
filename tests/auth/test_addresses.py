"""The source address of a request, whatever its headers claim."""

from typing import Any

import pytest
from django.test import override_settings

from realtime.auth.addresses import Source, source_of

PROXIES = ["10.0.0.0/8", "fd00::/8"]


def source(peer: str | None, *forwarded: str, trusted: list[str] = PROXIES) -> Source:
    scope: dict[str, Any] = {
        "client": None if peer is None else (peer, 1234),
        "headers": [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded],
    }
    with override_settings(REALTIME={"TRUSTED_PROXIES": trusted}):
        return source_of(scope)


@pytest.mark.parametrize(
    ("peer", "forwarded", "name"),
    [
        ("10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["1.1.1.1, 9.9.9.9"], "9.9.9.9"),  # the client wrote the first
        ("10.0.0.1", ["1.1.1.1", "9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["1.1.1.1, 9.9.9.9, 10.0.0.2,10.0.0.3"], "9.9.9.9"),
        ("10.0.0.1", ["9.9.9.9:4711"], "9.9.9.9"),
        ("10.0.0.1", ["[2001:db8:1:2:3::4]:4711"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["2001:db8:1:2:ffff::1"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["::ffff:9.9.9.9"], "9.9.9.9"),
        ("::ffff:10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("fd00::1", ["9.9.9.9, fd00::2"], "9.9.9.9"),
        ("9.9.9.9", ["1.1.1.1"], "9.9.9.9"),  # the peer is not a proxy
        ("9.9.9.9", [], "9.9.9.9"),
        ("192.168.0.5", [], "192.168.0.5"),
        ("2001:db8:1:2:3::4", ["1.1.1.1"], "2001:db8:1:2::/64"),
    ],
)
def test_the_address_is_the_rightmost_one_that_is_not_a_trusted_proxy(
    peer: str, forwarded: list[str], name: str
) -> None:
    assert source(peer, *forwarded) == Source(name, is_shared=False)


@pytest.mark.parametrize(
    ("peer", "forwarded", "name"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [" , "], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, _hidden, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["é" * 1_000], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("testclient", ["1.1.1.1"], "testclient"),
    ],
)
def test_an_address_is_shared_if_only_proxies_are_known(
    peer: str, forwarded: list[str], name: str
) -> None:
    assert source(peer, *forwarded) == Source(name, is_shared=True)


def test_a_peer_that_is_not_an_address_is_truncated() -> None:
    assert source("x" * 10_000) == Source("x" * 100, is_shared=True)


@pytest.mark.parametrize("peer", [None, ""])
def test_unix_sockets_are_trusted_if_listed(peer: str | None) -> None:
    assert source(peer, "9.9.9.9", trusted=["unix"]) == Source("9.9.9.9", is_shared=False)
    # nginx writes this if it was itself reached through a Unix socket.
    assert source(peer, "9.9.9.9, unix:", trusted=["unix"]) == Source("9.9.9.9", is_shared=False)
    assert source(peer, "9.9.9.9") == Source("unix", is_shared=False)
    assert source(peer, trusted=["unix"]) == Source("unix", is_shared=True)


@pytest.mark.parametrize(
    ("peer", "forwarded", "is_shared"),
    [
        ("9.9.9.9", [], False),
        ("9.9.9.9", ["1.1.1.1"], True),
        ("127.0.0.1", [], True),
        ("192.168.0.5", [], True),
        ("", [], True),
        ("2606:4700:1:2::3", [], False),
        ("fd00::1", [], True),
    ],
)
def test_without_the_setting_a_peer_that_can_be_a_proxy_is_shared(
    peer: str, forwarded: list[str], is_shared: bool
) -> None:
    found = source(peer, *forwarded, trusted=[])
    assert found.is_shared is is_shared
    assert "1.1.1.1" not in found.name
