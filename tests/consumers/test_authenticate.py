"""A project's own ``AUTHENTICATE`` function: expiring tokens, failures and denials."""

from collections.abc import Iterator
from typing import Any

import pytest
import websockets

from tests.consumers.test_websocket import closed
from tests.support.http import Refused, get_poll, http_client, open_stream, post_command
from tests.support.server import Client, Server, connect


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    application = "tests.consumers.authenticating:application"
    with Server(tmp_path_factory.mktemp("authenticate"), application=application) as running:
        running.sign_in("ada")
        yield running


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_connection_closes_when_its_token_expires(server: Server) -> None:
    async with connect(server, additional_headers=bearer("ends")) as client:
        code, frames = await closed(client)
    assert code == 4401
    assert frames[-1] == {"type": "closing", "reason": "signed_out"}


async def test_a_stream_closes_when_its_token_expires(server: Server) -> None:
    async with open_stream(server.site, "orders.1", bearer("ends")) as stream:
        while (frame := await stream.receive())["type"] != "closing":
            pass
        assert frame == {"type": "closing", "reason": "signed_out"}


async def test_the_welcome_lists_only_topics_of_the_token(server: Server) -> None:
    async with connect(server, additional_headers=bearer("own")) as client:
        assert client.welcome["topics"] == [f"user.{client.welcome['user']}"]
        own = client.welcome["topics"][0]
    async with http_client() as http:
        welcome = (await get_poll(http, server.site, own, bearer("own")))["frames"][0]
        assert welcome["topics"] == [own]
    async with connect(server, additional_headers=server.sign_in("ada")) as client:
        assert client.welcome["topics"] == [own, "everyone"]


@pytest.mark.parametrize(
    ("token", "code", "close_code"),
    [("broken", "unavailable", 4500), ("denied", "unauthorized", 4401)],
)
async def test_failures_and_denials_are_sent_before_the_close(
    server: Server, token: str, code: str, close_code: int
) -> None:
    async with websockets.connect(server.url, additional_headers=bearer(token)) as socket:
        said, frames = await closed(Client(socket))
    assert said == close_code
    assert [(frame["type"], frame.get("code")) for frame in frames] == [
        ("error", code),
        ("closing", None),
    ]
    async with connect(server, additional_headers=server.sign_in("ada")) as client:
        assert (await client.ask(type="auth", token=token))["code"] == code
        await client.subscribe("orders.1")  # it still has its old identity


@pytest.mark.parametrize(("token", "status"), [("broken", 503), ("denied", 401)])
async def test_failures_and_denials_are_answered_over_http(
    server: Server, token: str, status: int
) -> None:
    headers, topic = bearer(token), "public.a"
    command: dict[str, Any] = {"type": "call", "topic": topic, "action": "rename"}
    async with http_client() as client:
        with pytest.raises(Refused) as polled:
            await get_poll(client, server.site, topic, headers)
        with pytest.raises(Refused) as sent:
            await post_command(client, server.site, headers, **command)
        with pytest.raises(Refused) as streamed:
            async with open_stream(server.site, topic, headers):
                pass
    assert {caught.value.status for caught in (polled, sent, streamed)} == {status}
    assert "which no client may read" not in str(polled.value.body)
