"""Code of the project that is slow, broken, or cannot reach its database, on a real Daphne."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.support.http import get_poll, http_client, open_stream, post_command
from tests.support.server import Client, Server, connect

ERRORS = [
    "Odd",
    "StopIteration",
    "StopAsyncIteration",
    "GeneratorExit",
    "SystemExit",
    "KeyboardInterrupt",
    "CancelledError",
    "RecursionError",
    "MemoryError",
]
CLIENTS, CALLS = 5, 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    application = "tests.consumers.careless:application"
    with Server(tmp_path_factory.mktemp("careless"), application=application) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with connect(server) as connected:
        yield connected


# Slow code


async def test_clients_that_call_slow_actions_lock_nobody_out(server: Server) -> None:
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(connect(server)) for _ in range(CLIENTS)]
        for client in slow:
            for number in range(1, CALLS + 1):
                await client.send(
                    type="call", id=number, topic="slow.a", action="hold", data=number
                )
            await client.ask(type="ping")  # they are under way
        # A slow action ends only after these have done all that a page does, with a session.
        for options in ({}, {"additional_headers": server.sign_in("ada")}):
            async with connect(server, **options) as quiet:
                await quiet.subscribe("orders.1" if options else "public.slow")
                await quiet.subscribe("away.slow")  # asked in a thread
        async with http_client() as http:
            await get_poll(http, server.site, "away.nothing")
        async with connect(server) as opener:
            assert (await opener.ask(type="call", topic="slow.a", action="open"))[
                "type"
            ] == "result"
        for client in slow:
            answers = [await client.receive() for _ in range(CALLS)]
            assert {answer["id"] for answer in answers} == set(range(1, CALLS + 1))
            for answer in answers:
                late = answer.get("code") == "busy" and answer["retry"]
                assert answer.get("data") == "held" or late, answer


# Broken code


@pytest.mark.parametrize("error", ERRORS)
async def test_whatever_the_project_raises_the_client_gets_an_answer(
    server: Server, client: Client, error: str
) -> None:
    for how in ("can_subscribe", "async_can_subscribe"):
        answer = await client.ask(type="subscribe", topic=f"broken.{error}.{how}")
        assert (answer["type"], answer["code"], answer["retry"]) == ("error", "forbidden", False)
    for action in ("fail", "fail_later"):
        answer = await client.ask(type="call", topic=f"broken.{error}.no", action=action)
        assert (answer["type"], answer["code"], answer["retry"]) == ("error", "failed", False)
    await client.subscribe("public.alive")
    assert server.process is not None
    assert server.process.poll() is None


async def test_an_odd_path_converter_does_not_keep_a_client_without_an_answer(
    client: Client,
) -> None:
    for error, code in (("TypeError", "forbidden"), ("TimeoutError", "unavailable")):
        for command in ({"type": "subscribe"}, {"type": "call", "action": "fail"}):
            assert (await client.ask(**command, topic=f"odd.{error}"))["code"] == code
    answer = await client.ask(type="call", topic="odd.value", action="fail")
    assert answer["code"] == "failed"


# A database that is away


async def switch(client: Client, action: str, name: str) -> None:
    answer = await client.ask(type="call", topic=f"switch.{name}", action=action)
    assert answer["type"] == "result"


async def test_an_outage_is_unavailable_on_a_websocket_and_over_with_it(client: Client) -> None:
    await switch(client, "away", "ws")
    for command in (
        {"type": "subscribe"},
        {"type": "publish", "event": "typing"},
        {"type": "call", "action": "none"},
    ):
        answer = await client.ask(**command, topic="away.ws")
        assert (answer["code"], answer["retry"]) == ("unavailable", True)
    await switch(client, "back", "ws")
    await client.subscribe("away.ws")


async def test_an_outage_is_503_over_http_and_over_with_it(server: Server, client: Client) -> None:
    await switch(client, "away", "http")
    command = {"type": "publish", "topic": "away.http", "event": "typing"}
    async with http_client() as http:
        for path in ("poll", "sse"):
            response = await http.get(f"{server.site}/realtime/{path}?topic=away.http")
            check_unavailable(response)
        check_unavailable(await http.post(f"{server.site}/realtime/send", json=command))
        await switch(client, "back", "http")
        await get_poll(http, server.site, "away.http")
        await post_command(http, server.site, **command)


def check_unavailable(response: httpx.Response) -> None:
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert (response.json()["code"], response.json()["retry"]) == ("unavailable", True)


async def test_other_topics_of_a_request_are_served_during_an_outage(
    server: Server, client: Client
) -> None:
    await switch(client, "away", "one")
    topics = ["away.one", "away.two"]
    async with http_client() as http:
        # Even a long poll answers at once, so that the client can ask again.
        since = (await get_poll(http, server.site, "away.two"))["cursor"]
        answer = await get_poll(http, server.site, topics, since=since, wait=50)
        refused = [frame for frame in answer["frames"] if frame["type"] == "error"]
        assert [(f["topic"], f["code"], f["retry"]) for f in refused] == [
            ("away.one", "unavailable", True)
        ]
    async with open_stream(server.site, topics) as stream:
        frames = [await stream.receive() for _ in range(2)]
    assert {(f["type"], f.get("topic"), f.get("retry")) for f in frames} == {
        ("error", "away.one", True),
        ("subscribed", "away.two", None),
    }


async def test_an_outage_during_an_auth_keeps_the_old_identity_and_its_topics(
    server: Server, client: Client
) -> None:
    server.sign_in("ada")
    token = server.run(
        "from django.contrib.auth.models import User\n"
        "from realtime.auth import make_token\n"
        "print(make_token(User.objects.get(username='ada')))"
    ).strip()
    await client.subscribe("away.auth")
    await switch(client, "away", "auth")
    answer = await client.ask(type="auth", token=token)
    assert (answer["code"], answer["retry"]) == ("unavailable", True)
    assert (await client.ask(type="subscribe", topic="orders.1"))["code"] == "forbidden"
    await switch(client, "back", "auth")
    assert (await client.ask(type="auth", token=token))["type"] == "ok"
    assert (await client.receive())["user"] is not None
    await client.ask(type="unsubscribe", topic="away.auth")


async def test_an_outage_is_logged_with_one_traceback(server: Server, client: Client) -> None:
    await switch(client, "away", "log")
    for _ in range(20):
        await client.ask(type="subscribe", topic="away.log")
    log = server.log.read_text()
    assert log.count("can_subscribe() of AwayTopic") == 1
