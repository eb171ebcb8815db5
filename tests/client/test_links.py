"""What the transports are made of: addresses that keep secrets, and the lines of a stream."""

import itertools
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.client import Client
from realtime.client.links import Address, LinkClosed, decode, refused
from realtime.client.stream import MAX_BYTES, EventStream

URL = "https://shop.example/realtime/"


def build(url: str = URL, **options: Any) -> Address:
    names = ("token", "headers", "cookies", "ssl")
    return Address.build(url, **{name: options.get(name) for name in names})


def test_token_cookies_and_headers_are_in_headers_and_in_no_url_or_repr() -> None:
    address = build(token="s3cret", cookies={"sessionid": "s3cret2"}, headers={"X-Key": "s3cret3"})
    assert address.headers == {
        "X-Key": "s3cret3",
        "Authorization": "Bearer s3cret",
        "Cookie": "sessionid=s3cret2",
    }
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
def test_the_paths_are_below_the_url_with_or_without_its_slash(
    url: str, websocket: str, origin: str
) -> None:
    address = build(url)
    assert (address.of("ws"), address.origin) == (websocket, origin)


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        (f"{URL}?token=s3cret", {}, "a token is given apart from it"),
        ("https://ada:s3cret@shop.example/", {}, "must end with its path"),
        ("wss://shop.example/realtime/", {}, "https://host/realtime/"),
        ("/realtime/", {}, "https://host/realtime/"),
        (URL, {"token": ""}, "the token is empty"),
        (URL, {"token": "s3cret\r\nX: y"}, "the token is empty or has spaces"),
        (URL, {"token": "s3cret", "headers": {"authorization": "x"}}, "given twice"),
        (URL, {"cookies": {"a": "s3cret"}, "headers": {"Cookie": "x"}}, "given twice"),
        (URL, {"cookies": {"a": "s3cret; b=1"}}, "a semicolon"),
        (URL, {"headers": {"X": "s3cret\ny"}}, "'X' has a control character"),
    ],
)
def test_what_cannot_be_used_is_refused_without_telling_it(
    url: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        build(url, **options)
    assert "s3cret" not in str(caught.value)


def test_certificates_for_a_connection_without_tls_are_refused() -> None:
    with pytest.raises(ValueError, match="https://"):
        build("http://shop.example/", ssl=build().ssl)


def test_an_unknown_transport_is_refused() -> None:
    with pytest.raises(ValueError, match="use auto, websocket or sse"):
        Client(URL, transport="carrier pigeon")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "said", "code", "blocked"),
    [
        (401, "because", 4401, False),
        (403, "because", 4403, False),
        (401, "", 1006, True),
        (403, "", 1006, True),
        (400, "because", 1006, True),
        (426, "", 1006, True),
    ],
)
def test_a_status_says_whether_to_come_back_and_how(
    status: int, said: str, code: int, blocked: bool
) -> None:
    closed = refused(status, URL, {}, said)
    assert (closed.code, closed.blocked, closed.status) == (code, blocked, status)
    assert f"{URL} answered with HTTP {status}" in closed.reason
    assert said in closed.reason


def test_retry_after_is_spread_so_that_clients_do_not_come_back_together() -> None:
    waits = {refused(503, URL, {"Retry-After": "5"}).retry_after for _ in range(20)}
    assert all(wait is not None and 5 <= wait <= 10 for wait in waits)
    assert len(waits) > 10
    assert refused(503, URL, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}).retry_after is None


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"type":1}', "{}", b"\xff", "[" * 100_000])
def test_what_is_no_frame_is_ignored(text: str | bytes) -> None:
    assert decode(text) is None


# The event stream

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(texts, max_size=8), st.lists(st.integers(0, 300), max_size=8))
def test_a_stream_cut_anywhere_gives_every_frame_whole(frames: list[str], cuts: list[int]) -> None:
    lines = [": padding", "retry: 1000", "id: e~x", ""]
    written = []
    for frame in frames:
        written += [*lines, "data: " + json.dumps({"type": frame}, ensure_ascii=False), ""]
    body = "".join(f"{line}\n" for line in written).encode()
    stream, got = EventStream(), []
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(places):
        got += [json.loads(data)["type"] for data in stream.feed(body[start:end])]
    assert got == frames


def test_line_ends_of_other_servers_are_understood() -> None:
    assert list(EventStream().feed(b'data:{"type":"a"}\r\n\r\n')) == [b'{"type":"a"}']


def test_a_line_without_end_is_not_kept() -> None:
    stream = EventStream()
    with pytest.raises(LinkClosed, match="longer than"):
        for _ in range(40):
            list(stream.feed(b"x" * (MAX_BYTES // 32)))


# What it needs


def test_the_client_needs_no_django() -> None:
    script = (
        "import sys\n"
        "for name in ('django', 'channels', 'asgiref', 'daphne'): sys.modules[name] = None\n"
        "from realtime.client import Client\n"
        "Client('https://shop.example/realtime/', token='x')\n"
        "print(sorted(n for n in sys.modules if n.startswith('realtime.') and n.count('.') == 1))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rooms = {name.removeprefix("realtime.") for name in eval(done.stdout)}
    assert rooms <= {"client", "exceptions", "protocol"}


@pytest.mark.parametrize("missing", ["websockets", "httpx"])
def test_a_missing_extra_says_how_to_get_it(missing: str) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None\nimport realtime.client"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install 'django-channels-realtime[client]'" in done.stderr
    assert f"needs {missing}" in done.stderr
