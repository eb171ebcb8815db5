"""CORS: pages of an allowed origin can read the answers, other pages cannot."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.server import Server

ALLOWED = "https://app.example.com"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with Server(
        tmp_path_factory.mktemp("cors"), application="tests.consumers.allowed:application"
    ) as server:
        base = f"http://127.0.0.1:{server.port}/realtime/"
        with httpx.Client(base_url=base, timeout=20) as client:
            yield client


def cors(response: httpx.Response) -> dict[str, str]:
    prefix = "access-control-"
    return {
        name.removeprefix(prefix): value
        for name, value in response.headers.items()
        if name.startswith(prefix)
    }


@pytest.mark.parametrize("path", ["poll?topic=public.news", "poll?topic=private.1", "poll"])
def test_an_allowed_page_reads_answers_and_refusals(client: httpx.Client, path: str) -> None:
    assert cors(client.get(path, headers={"Origin": ALLOWED})) == {
        "allow-origin": ALLOWED,
        "allow-credentials": "true",
        "expose-headers": "ETag, Retry-After",
    }


def test_an_allowed_page_reads_a_stream(client: httpx.Client) -> None:
    with client.stream("GET", "sse?topic=public.news", headers={"Origin": ALLOWED}) as stream:
        assert stream.status_code == 200
        assert cors(stream)["allow-origin"] == ALLOWED


@pytest.mark.parametrize("path", ["sse", "poll", "send"])
def test_a_preflight_answers_what_an_allowed_page_may_send(client: httpx.Client, path: str) -> None:
    headers = {"Origin": ALLOWED, "Access-Control-Request-Method": "POST"}
    response = client.options(path, headers=headers)
    assert response.status_code == 204
    allowed = cors(response)["allow-headers"].split(", ")
    assert {"Authorization", "X-Realtime-Origin"} <= set(allowed)
    assert "POST" in cors(response)["allow-methods"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://app.example.com"])
def test_other_pages_get_no_cors_headers(client: httpx.Client, origin: str) -> None:
    for path in ("poll?topic=public.news", "sse?topic=public.news"):
        response = client.get(path, headers={"Origin": origin})
        assert (response.status_code, cors(response)) == (403, {})
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    response = client.options("send", headers=headers)
    assert (response.status_code, cors(response)) == (405, {})


def test_a_client_without_an_origin_gets_no_cors_headers(client: httpx.Client) -> None:
    assert cors(client.get("poll?topic=public.news")) == {}
    assert client.options("send").status_code == 405
