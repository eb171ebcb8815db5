"""Tokens on the transports: what they allow, and how they expire."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from tests.consumers.test_websocket import closed
from tests.support.server import Server, connect


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("tokens")
    with Server(folder) as running:
        running.sign_in("ada")
        running.sign_in("bo")
        yield running


def make(server: Server, name: str, options: str = "") -> str:
    return server.run(
        "from datetime import timedelta\n"
        "from django.contrib.auth.models import User\n"
        "from realtime.auth import make_token\n"
        f"print(make_token(User.objects.get(username={name!r}), {options}))"
    ).strip()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def url(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.port}/realtime/{path}"


async def test_a_token_in_the_handshake_sets_the_user_and_its_topics(server: Server) -> None:
    token = make(server, "ada", "topics=['orders.1']")
    async with connect(server, additional_headers=bearer(token)) as client:
        assert client.welcome["user"] is not None
        assert client.welcome["topics"] == []
        await client.subscribe("orders.1")
        for command in (
            {"type": "subscribe", "topic": "orders.2"},
            {"type": "publish", "topic": "orders.2", "event": "typing"},
            {"type": "call", "topic": "orders.2", "action": "rename"},
        ):
            assert (await client.ask(**command))["code"] == "forbidden"
        assert (await client.ask(type="publish", topic="orders.1", event="typing"))["type"] == "ok"


async def test_a_wrong_token_in_the_handshake_gets_an_error_and_a_close(server: Server) -> None:
    async with websockets.connect(server.url, additional_headers=bearer("x")) as socket:
        from tests.support.server import Client

        code, frames = await closed(Client(socket))
    assert code == 4401
    assert [(frame["type"], frame.get("code")) for frame in frames] == [
        ("error", "unauthorized"),
        ("closing", None),
    ]


async def test_an_auth_frame_changes_the_user_of_the_connection(server: Server) -> None:
    ada, bo = make(server, "ada"), make(server, "bo", "topics=['orders.2']")
    async with connect(server) as client:
        assert client.welcome["user"] is None
        await client.subscribe("public.news")
        assert (await client.ask(type="auth", token=ada))["type"] == "ok"
        welcome = await client.receive()
        assert welcome["type"] == "welcome"
        assert welcome["user"] is not None
        await client.subscribe("orders.1")
        await client.subscribe("orders.2")
        # The next user's token is for one of the topics; the others are withdrawn.
        assert (await client.ask(type="auth", token=bo))["type"] == "ok"
        frames = [await client.receive() for _ in range(3)]
        assert frames[0]["user"] != welcome["user"]
        assert {(one["type"], one.get("topic")) for one in frames[1:]} == {
            ("unsubscribed", "public.news"),
            ("unsubscribed", "orders.1"),
        }
        server.publish("orders.1", 1)
        server.publish("orders.2", 1)
        assert [event["topic"] for event in await client.events(1)] == ["orders.2"]


async def test_a_wrong_auth_frame_changes_nothing(server: Server) -> None:
    async with connect(server, additional_headers=server.sign_in("ada")) as client:
        await client.subscribe("orders.1")
        assert (await client.ask(type="auth", token="x"))["code"] == "unauthorized"
        server.publish("orders.1", 1)
        await client.events(1)


async def test_a_connection_closes_when_its_token_expires(server: Server) -> None:
    token = make(server, "ada", "expires=timedelta(seconds=3)")
    async with connect(server, additional_headers=bearer(token)) as client:
        await client.subscribe("orders.1")
        code, frames = await closed(client)
    assert code == 4401
    assert frames[-1] == {"type": "closing", "reason": "signed_out"}


async def test_a_stream_closes_when_its_token_expires_and_cannot_be_reopened(
    server: Server,
) -> None:
    headers = bearer(make(server, "ada", "expires=timedelta(seconds=3)"))
    async with httpx.AsyncClient(timeout=20, headers=headers) as client:
        async with client.stream("GET", url(server, "sse?topic=orders.1")) as stream:
            text = (await stream.aread()).decode()
        assert '"reason":"signed_out"' in text.splitlines()[-2]
        again = await client.get(url(server, "sse?topic=orders.1"))
    assert again.status_code == 401
    assert again.headers["www-authenticate"].startswith("Bearer")
    assert again.json()["code"] == "unauthorized"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "sse?topic=orders.1", None),
        ("GET", "poll?topic=orders.1", None),
        ("POST", "send", {"type": "publish", "topic": "orders.1", "event": "typing"}),
    ],
)
def test_every_request_checks_its_token(
    server: Server, method: str, path: str, body: dict[str, Any] | None
) -> None:
    def ask(token: str, path: str = path, body: Any = body) -> int:
        request = {"headers": bearer(token), "json": body, "timeout": 20}
        with httpx.stream(method, url(server, path), **request) as response:  # type: ignore[arg-type]
            return response.status_code

    assert ask("x") == 401
    limited = make(server, "ada", "topics=['orders.1']")
    assert ask(limited) == 200
    other = body and {**body, "topic": "orders.2"}
    assert ask(limited, path.replace("orders.1", "orders.2"), other) == 403


async def test_the_last_of_two_tokens_wins_and_later_commands_wait_for_it(server: Server) -> None:
    ada, bo = make(server, "ada"), make(server, "bo", "topics=['public.x']")
    for _ in range(20):
        async with connect(server) as client:
            await client.send(type="auth", id=1, token=ada)
            await client.send(type="auth", id=2, token=bo)
            await client.send(type="call", id=3, topic="orders.1", action="rename")
            await client.send(type="subscribe", id=4, topic="orders.1")
            await client.send(type="subscribe", id=5, topic="public.x")
            answers = {}
            while len(answers) < 5:
                frame = await client.receive()
                if "id" in frame:
                    answers[frame["id"]] = frame.get("code", frame["type"])
        assert answers == {1: "ok", 2: "ok", 3: "forbidden", 4: "forbidden", 5: "subscribed"}


async def test_a_subscribe_that_a_new_token_forbids_is_answered(server: Server) -> None:
    ada, bo = make(server, "ada"), make(server, "bo", "topics=['public.x']")
    server.publish("orders.7", 3)
    for _ in range(20):
        async with connect(server, additional_headers=bearer(ada)) as client:
            await client.send(type="subscribe", id=1, topic="orders.7", last=3)
            await client.send(type="auth", id=2, token=bo)
            frames = []
            while {1, 2} - {frame.get("id") for frame in frames}:
                frames.append(await client.receive())
            answer = next(frame for frame in frames if frame.get("id") == 1)
            assert answer["type"] == "subscribed" or answer["code"] == "forbidden"
