"""What all links use: addresses that keep secrets, errors, frames, and the silence timeout."""

import asyncio
from typing import Any

import pytest

from realtime.client import Client
from realtime.client.links import Address, LinkClosed, Silence, closed_by_status, decode
from realtime.client.stream import StreamLink
from realtime.client.websocket import WebSocketLink
from tests.client.support import FakeClient, FakeServer, passing, play

URL = "https://shop.example/realtime/"


def build(url: str = URL, **options: Any) -> Address:
    names = ("token", "headers", "cookies", "ssl")
    return Address.build(url, **{name: options.get(name) for name in names})


def test_the_token_and_cookies_are_sent_in_headers_and_never_in_a_url_or_repr() -> None:
    address = build(token="s3cret", cookies={"sessionid": "s3cret2"}, headers={"X-Key": "s3cret3"})
    assert address.headers == {"X-Key": "s3cret3", "Cookie": "sessionid=s3cret2"}
    assert asyncio.run(address.authorization()) == {"Authorization": "Bearer s3cret"}
    client = Client(URL, token="s3cret")
    assert "s3cret" not in address.of("ws") + address.of("sse") + repr(address) + repr(client)


@pytest.mark.parametrize(
    ("url", "websocket", "origin"),
    [
        (URL, f"{URL}ws?v=1", "https://shop.example"),
        ("http://[::1]:8000/rt", "http://[::1]:8000/rt/ws?v=1", "http://[::1]:8000"),
        ("http://h", "http://h/ws?v=1", "http://h"),
    ],
)
def test_endpoints_are_below_the_url_with_or_without_a_trailing_slash(
    url: str, websocket: str, origin: str
) -> None:
    address = build(url)
    assert (address.of("ws"), address.origin) == (websocket, origin)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        (f"{URL}?token=s3cret", {}, "pass a token as token="),
        ("https://ada:s3cret@shop.example/", {}, "must not have a query, a fragment, a user"),
        ("wss://shop.example/realtime/", {}, "https://host/realtime/"),
        ("/realtime/", {}, "https://host/realtime/"),
        (URL, {"token": ""}, "the token is empty"),
        (URL, {"token": "s3cret\r\nX: y"}, "the token is empty or has characters"),
        (URL, {"token": "s3cret", "headers": {"authorization": "x"}}, "given twice"),
        (URL, {"cookies": {"a": "s3cret"}, "headers": {"Cookie": "x"}}, "given twice"),
        (URL, {"cookies": {"a": "s3cret; b=1"}}, "a semicolon"),
        (URL, {"headers": {"X": "s3cret\ny"}}, "'X' has a control character"),
    ],
)
def test_invalid_arguments_are_rejected_without_revealing_secrets(
    url: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build(url, **options)
    assert "s3cret" not in str(caught.value)


def test_an_ssl_context_for_a_url_without_tls_is_rejected() -> None:
    with pytest.raises(ValueError, match="https://"):
        build("http://shop.example/", ssl=build().ssl)


@pytest.mark.parametrize(
    ("status", "explanation", "code", "blocked"),
    [
        (401, "because", 4401, False),
        (403, "because", 4403, False),
        (401, "", 1006, True),
        (403, "", 1006, True),
        (400, "because", 1006, True),
        (426, "", 1006, True),
    ],
)
def test_an_http_status_decides_whether_and_how_to_reconnect(
    status: int, explanation: str, code: int, blocked: bool
) -> None:
    closed = closed_by_status(status, URL, {}, explanation)
    assert (closed.code, closed.blocked, closed.status) == (code, blocked, status)
    assert f"{URL} answered with HTTP {status}" in closed.reason
    assert explanation in closed.reason


def test_retry_after_gets_jitter_so_that_clients_do_not_reconnect_together() -> None:
    waits = {closed_by_status(503, URL, {"Retry-After": "5"}).retry_after for _ in range(20)}
    assert all(wait is not None and 5 <= wait <= 10 for wait in waits)
    assert len(waits) > 10
    assert (
        closed_by_status(503, URL, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}).retry_after
        is None
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"type":1}', "{}", b"\xff", "[" * 100_000])
def test_a_text_that_is_not_a_frame_is_ignored(text: str | bytes) -> None:
    assert decode(text) is None


# The silence timeout


class Hanging:
    """A WebSocket, and an HTTP response, that never receives anything."""

    async def recv(self) -> str:
        await passing(10_000)
        raise AssertionError

    async def send(self, text: str) -> None:
        raise AssertionError

    async def aiter_bytes(self) -> Any:
        await passing(10_000)
        yield b""


def test_a_link_is_closed_after_35_seconds_of_silence() -> None:
    async def silent(link: Any, waiting: Any) -> None:
        link._socket = Hanging()
        loop = asyncio.get_running_loop()
        start = loop.time()
        with pytest.raises(LinkClosed, match="no frame arrived for 35 s") as caught:
            await waiting
        assert loop.time() - start == pytest.approx(35)
        assert (caught.value.code, caught.value.blocked) == (1006, False)

    address = FakeClient(FakeServer())._address
    websocket, stream = WebSocketLink(address), StreamLink(address)
    play(silent(websocket, websocket.run()))
    play(silent(stream, stream._receive(Hanging())))  # type: ignore[arg-type]


def test_the_welcome_sets_the_silence_timeout_and_a_closing_frame_shortens_it() -> None:
    silence = Silence()
    silence.update({"type": "welcome", "heartbeat": 50})
    assert silence.seconds == 60
    silence.update({"type": "event"})
    assert silence.seconds == 60
    silence.update({"type": "closing"})
    assert silence.seconds == 5
