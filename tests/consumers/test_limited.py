"""A server with low limits: what its clients are told, over WebSocket and HTTP."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
import websockets

from realtime.consumers.quota import ROW_BYTES
from realtime.protocol.frames import CloseCode
from tests.support.http import Refused, http_client, post_command
from tests.support.server import Client, Server, connect

LARGE = "x" * 60_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limited")
    with Server(folder, application="tests.consumers.limited:application") as running:
        yield running


@pytest.fixture(scope="module")
def ada(server: Server) -> dict[str, str]:
    return server.sign_in()


async def handshake(server: Server) -> list[dict[str, Any]]:
    """Connect without signing in; return the frames, and the close code if it is closed."""
    async with websockets.connect(server.url) as socket:
        client = Client(socket)
        frames = [await client.receive()]
        with contextlib.suppress(websockets.ConnectionClosed):
            if frames[0]["type"] != "welcome":
                while True:
                    frames.append(await client.receive())
        return frames if socket.close_code is None else [*frames, {"code": socket.close_code}]


async def test_handshakes_of_clients_that_cannot_be_told_apart_are_refused_with_4514(
    server: Server, ada: dict[str, str]
) -> None:
    answers = await asyncio.gather(*(handshake(server) for _ in range(60)))
    served = [frames for frames in answers if frames[0]["type"] == "welcome"]
    refused = [frames for frames in answers if frames[0]["type"] == "error"]
    assert 10 <= len(served) < 60
    assert len(served) + len(refused) == 60
    for error, closing, close in refused:
        assert (error["code"], error["retry"]) == ("rate_limited", True)
        assert closing["reason"] == "busy"
        assert 2 <= closing["retry_after"] <= 10
        assert close == {"code": CloseCode.BUSY}
    async with connect(server, additional_headers=ada) as client:
        assert client.welcome["user"]


@pytest.mark.parametrize("path", ["poll?topic=public.a", "sse?topic=public.a"])
async def test_polls_and_streams_of_clients_that_cannot_be_told_apart_get_429(
    server: Server, ada: dict[str, str], path: str
) -> None:
    url = f"{server.site}/realtime/{path}"

    async def status(client: httpx.AsyncClient, headers: Mapping[str, str] = {}) -> int:
        async with client.stream("GET", url, headers=headers) as response:
            if response.status_code == 429:
                await response.aread()
                assert response.json()["code"] == "rate_limited"
                assert int(response.headers["retry-after"]) >= 1
            return response.status_code

    async with http_client() as client:
        statuses = await asyncio.gather(*(status(client) for _ in range(60)))
        assert 429 in statuses
        assert set(statuses) <= {200, 429}
        assert await status(client, ada) == 200


async def test_a_websocket_that_publishes_more_than_its_bytes_is_refused_and_another_is_not(
    server: Server, ada: dict[str, str]
) -> None:
    large = {"type": "publish", "topic": "orders.1", "event": "typing", "data": LARGE}
    async with connect(server, additional_headers=ada) as one:
        assert (await one.ask(**large))["type"] == "ok"
        error = await one.ask(**large)
        assert (error["code"], error["retry"]) == ("rate_limited", True)
        assert "1000 bytes a second" in error["message"]
        assert (await one.ask(**{**large, "data": 1}))["type"] == "ok"  # it fits into the rest
        async with connect(server, additional_headers=ada) as other:
            assert (await other.ask(**large))["type"] == "ok"


async def test_a_user_that_publishes_more_than_its_bytes_over_http_gets_429(
    server: Server, ada: dict[str, str]
) -> None:
    large = {"type": "publish", "topic": "orders.1", "event": "typing", "data": LARGE}
    async with http_client() as client:
        await post_command(client, server.site, ada, **large)
        with pytest.raises(Refused) as refused:
            await post_command(client, server.site, ada, **large)
        assert (refused.value.status, refused.value.code) == (429, "rate_limited")
        await post_command(client, server.site, server.sign_in("grace"), **large)


async def test_clients_store_no_more_than_the_quota_and_the_server_is_not_limited(
    server: Server, ada: dict[str, str]
) -> None:
    comment = {"type": "publish", "topic": "orders.2", "event": "comment", "data": "x" * 1_000}
    grace = server.sign_in("grace")
    async with connect(server, additional_headers=ada) as client, http_client() as http:
        stored = 0
        while (answer := await client.ask(**comment))["type"] == "ok":
            stored += 1
            assert stored < 20, "it was never refused"
        assert stored == 20_000 // (1_000 + len('"comment"') + ROW_BYTES)
        assert (answer["code"], answer["retry"]) == ("rate_limited", True)
        assert "stored_client_bytes_per_day" in answer["message"]
        with pytest.raises(Refused) as refused:  # another user, over another transport
            await post_command(http, server.site, grace, **comment)
        assert (refused.value.status, refused.value.code) == (429, "rate_limited")
        assert (await client.ask(**{**comment, "event": "typing"}))["type"] == "ok"
        subscribed = await client.subscribe("orders.2", last=100)
        assert subscribed["replayed"] == stored
        await client.events(stored)
        server.publish("orders.2", 1)
        assert [event["event"] for event in await client.events(1)] == ["tick"]


async def test_the_text_of_a_projects_error_is_cut_at_1000_characters(
    server: Server, ada: dict[str, str]
) -> None:
    call = {"type": "call", "topic": "orders.1", "action": "boom", "data": "invalid long"}
    async with connect(server, additional_headers=ada) as client, http_client() as http:
        error = await client.ask(**call)
        with pytest.raises(Refused) as refused:
            await post_command(http, server.site, ada, **call)
    for body in (error, refused.value.body):
        assert (body["code"], body["message"]) == ("invalid", "é" * 999 + "…")
