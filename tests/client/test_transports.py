"""The client against a real Daphne over both transports: crashes, proxies, and cleanup.

Covers websocket.py; test_stream.py has more about event streams.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import websockets

from realtime.client import (
    AnswerLost,
    Client,
    CommandRefused,
    ConnectionEnded,
    EventsLost,
    connector,
)
from realtime.client.connector import Transport
from tests.client.support import take
from tests.client.support.proxy import Proxy, proxy_to
from tests.support.server import DEADLINE, Server
from tests.support.waiting import await_until

on_each = pytest.mark.parametrize("transport", ["websocket", "sse"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("client")) as running:
        yield running


@pytest.fixture(scope="module")
def cookies(server: Server) -> dict[str, str]:
    return dict([server.sign_in()["Cookie"].split("=")])


@pytest.fixture(autouse=True)
async def no_task_left(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Reconnect quickly, and check that no task is left; debug mode reports slow callbacks."""
    monkeypatch.setattr(connector, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(connector, "LAST_SECONDS", 0.3)
    asyncio.get_running_loop().set_debug(True)
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not [task for task in left if "realtime" in repr(task)]


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}/realtime/"


@pytest.fixture
async def client(
    server: Server, cookies: dict[str, str], transport: Transport
) -> AsyncIterator[Client]:
    async with asyncio.timeout(DEADLINE * 3):
        async with Client(url(server.port), cookies=cookies, transport=transport) as client:
            yield client


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with proxy_to(server.port) as running:
        yield running


async def publish(server: Server, topic: str, count: int, start: int = 0) -> None:
    await asyncio.to_thread(server.publish, topic, count, "tick", start)


@on_each
async def test_topics_can_be_followed_and_commands_run(
    server: Server, client: Client, transport: Transport
) -> None:
    name = f"public.{transport}"
    async with client.subscribe(name) as events, client.subscribe("orders.7") as order:
        assert (client.transport, client.topics[1]) == (transport, "everyone")
        assert client.topics[0] == f"user.{client.user_id}"
        await publish(server, name, 3)
        assert await take(events, 3) == [0, 1, 2]
        assert await client.call("orders.7", "rename", "new") == {
            "pk": 7,
            "name": "new",
            "by": "ada",
        }
        await client.publish("orders.7", "comment", "naïve\u2028\x85line")
        assert await take(order, 1) == ["naïve\u2028\x85line"]
    async with client.subscribe(name, last=2) as events:
        assert await take(events, 2) == [1, 2]
    async with client.subscribe(name, since="@1") as events:
        assert await take(events, 3) == [0, 1, 2]


@on_each
async def test_refusals_raise_with_the_same_text_on_each_transport(
    client: Client,
) -> None:
    async with client.subscribe("public.stays"):
        with pytest.raises(CommandRefused, match="forbidden"):
            await anext(client.subscribe("private.1"))
        with pytest.raises(CommandRefused, match="forbidden"):
            await client.publish("public.stays", "typing")
        with pytest.raises(CommandRefused, match="invalid: not a name"):
            await client.call("orders.7", "boom", "invalid")
        with pytest.raises(CommandRefused, match="unknown_action"):
            await client.call("orders.7", "not_an_action")
        with pytest.raises(CommandRefused, match="too_large"):
            await client.publish("orders.7", "comment", "x" * 100_000)
        assert await client.call("orders.7", "echo", 1) == 1, "the connection is still usable"
    with pytest.raises(CommandRefused, match="forbidden"):
        await anext(
            client.subscribe("private.1")
        )  # as the only topic, so the whole stream is refused


@on_each
async def test_each_topic_starts_where_its_own_subscribe_says(
    server: Server, client: Client, transport: Transport
) -> None:
    names = [f"public.{transport}-{n}" for n in range(4)]
    await asyncio.to_thread(
        server.run,
        "from realtime import publish\n"
        f"for name in {names}:\n    for n in range(5): publish(name, 'tick', n)",
    )
    with_last, with_more, with_time, from_now = (
        client.subscribe(names[0], last=1),
        client.subscribe(names[1], last=2),
        client.subscribe(names[2], since="@1"),
        client.subscribe(names[3]),
    )
    async with from_now, with_time:
        await publish(server, names[3], 1, 5)
        assert await take(from_now, 1) == [5]
        assert await take(with_last, 1) == [4]
        assert await take(with_more, 2) == [3, 4]
        assert await take(with_time, 5) == [0, 1, 2, 3, 4]


@on_each
async def test_the_member_list_is_updated_as_members_join_and_leave(
    server: Server, client: Client, cookies: dict[str, str], transport: Transport
) -> None:
    room = f"room.{transport}"
    received: list[list[Any]] = []

    async def read() -> None:
        async for _ in client.subscribe(room, on_members=lambda who: received.append(names(who))):
            pass

    def names(members: Any) -> list[Any]:
        return sorted(member.info["name"] for member in members)

    bobs = dict([(await asyncio.to_thread(server.sign_in, "bob"))["Cookie"].split("=")])
    reading = asyncio.create_task(read())
    try:
        await await_until(lambda: received and received[-1] == ["ada"], "it sees itself", DEADLINE)
        async with (
            Client(url(server.port), cookies=bobs, transport=transport) as other,
            other.subscribe(room) as there,
        ):
            both = ["ada", "bob"]
            await await_until(lambda: names(there.members or []) == both, "bob sees both", DEADLINE)
            await await_until(lambda: received[-1] == both, "bob is seen", DEADLINE)
            assert names(await client.members(room)) == both
            async with client.subscribe(f"public.{transport}-too"):
                # With an event stream, this opened another stream.
                assert names(await other.members(room)) == both
        await await_until(lambda: received[-1] == ["ada"], "bob has left", DEADLINE)
    finally:
        reading.cancel()
        await asyncio.wait([reading])
    with pytest.raises(CommandRefused, match="unsupported: this topic does not track"):
        await client.members("orders.7")
    with pytest.raises(CommandRefused, match="unsupported"):
        await anext(client.subscribe("orders.7", on_members=received.append))
    with pytest.raises(CommandRefused, match="forbidden"):
        await client.members("private.1")


@on_each
async def test_no_event_is_missing_after_the_server_was_killed(
    server: Server, client: Client, transport: Transport
) -> None:
    name = f"public.killed-{transport}"
    async with client.subscribe(name) as events, client.subscribe("orders.8"):
        await publish(server, name, 3)
        assert await take(events, 3) == [0, 1, 2]
        server.kill9()
        await publish(server, name, 20, 3)
        await asyncio.to_thread(server.start)
        assert await take(events, 20) == list(range(3, 23))
        await publish(server, name, 1, 23)
        assert await take(events, 1) == [23]
        assert await client.call("orders.8", "echo", 1) == 1


@on_each
async def test_a_call_waits_for_its_answer_until_the_connection_breaks(
    server: Server, client: Client
) -> None:
    async with client.subscribe("orders.81") as events:
        calling = asyncio.create_task(client.call("orders.81", "hang"))
        assert (await anext(events)).name == "hanging"
        assert await client.call("orders.81", "echo", 1) == 1, "it does not block other commands"
        assert not calling.done()
        server.kill9()
        with pytest.raises(AnswerLost):
            await calling
        await asyncio.to_thread(server.start)
        assert await client.call("orders.81", "echo", 2) == 2


@on_each
async def test_trimmed_events_are_reported_once_and_the_iteration_continues(
    server: Server, client: Client, transport: Transport
) -> None:
    name = f"tiny.{transport}"
    lost: list[EventsLost] = []
    async with client.subscribe(name, on_reset=lost.append) as events:
        await publish(server, name, 1)
        assert await take(events, 1) == [0]
        server.kill9()
        await publish(server, name, 30, 1)
        await asyncio.to_thread(
            server.run, "from realtime.retention import trim_all; print(trim_all())"
        )
        await asyncio.to_thread(server.start)
        await await_until(lambda: client.transport, "it is connected", DEADLINE)
        await await_until(lambda: events._shared._items, "it received the reset", DEADLINE)
        await publish(server, name, 1, 31)
        assert await take(events, 1) == [31]
    assert [(error.topic, error.cursor.seq) for error in lost] == [(name, 31)]


@on_each
async def test_connections_that_break_at_any_byte_lose_and_repeat_no_event(
    server: Server, proxy: Proxy, cookies: dict[str, str], transport: Transport
) -> None:
    asyncio.get_running_loop().set_debug(False)  # debug mode doubles the time
    count = 600  # of at least 120 bytes each; the log keeps 1,000
    name = f"public.cut-{transport}"
    proxy.mean_bytes = 12_000
    script = f"from realtime import publish\nfor n in range({count}): publish({name!r}, 'tick', n)"
    async with asyncio.timeout(DEADLINE * 4):
        async with Client(url(proxy.port), cookies=cookies, transport=transport) as client:
            events = client.subscribe(name, since="@1", max_queue=100)
            publishing = asyncio.create_task(asyncio.to_thread(server.run, script))
            assert await take(events, count) == list(range(count))
            await publishing
    assert proxy.cuts >= 2


async def test_a_stream_is_used_only_while_websockets_are_blocked(
    server: Server,
    proxy: Proxy,
    cookies: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connector, "WEBSOCKET_AGAIN_SECONDS", 0.3)
    proxy.blocks_websockets = True
    count = 400
    script = f"from realtime import publish\nfor n in range({count}): publish('public.hop', 't', n)"
    async with (
        Client(url(proxy.port), cookies=cookies) as client,
        client.subscribe("public.hop") as events,
    ):
        assert client.transport == "sse"
        publishing = asyncio.create_task(asyncio.to_thread(server.run, script))
        received = await take(events, count // 4)
        proxy.blocks_websockets = False
        received += await take(events, count // 4)
        await await_until(lambda: client.transport == "websocket", "it uses a WebSocket", DEADLINE)
        proxy.blocks_websockets = True
        proxy.cut()
        received += await take(events, count // 2)
        await publishing
        assert received == list(range(count))
        await await_until(lambda: client.transport == "sse", "it uses a stream again", DEADLINE)
    assert sum("GET /realtime/ws" in line for line in proxy.requests) >= 3


@pytest.mark.parametrize("status", [401, 403])
async def test_a_proxy_that_forbids_websockets_does_not_end_the_client(
    proxy: Proxy, status: int
) -> None:
    proxy.blocks_websockets, proxy.status = True, status
    async with Client(url(proxy.port)) as client, client.subscribe("public.behind") as events:
        assert (client.transport, events.topic) == ("sse", "public.behind")


async def test_our_servers_refusal_of_a_stream_is_final_even_after_a_websocket_was_tried(
    server: Server, proxy: Proxy
) -> None:
    foreign = {"Origin": "https://evil.example"}
    async with Client(url(proxy.port), headers=foreign) as client:
        with pytest.raises(ConnectionEnded, match=r"4403: .*ALLOWED_ORIGINS"):
            await anext(client.subscribe("public.news"))
    assert [head.split("?")[0][-4:] for head in proxy.heads] == ["e/ws", "/sse"]


@on_each
async def test_the_token_is_sent_in_a_header_of_each_request_and_never_in_a_url(
    server: Server, proxy: Proxy, transport: Transport
) -> None:
    token = await asyncio.to_thread(
        server.run,
        "from django.contrib.auth import get_user_model\n"
        "from realtime.auth.tokens import make_token\n"
        "user, _ = get_user_model().objects.get_or_create(username='tess')\n"
        "print(make_token(user))",
    )
    token = token.strip()
    async with (
        Client(url(proxy.port), token=token, transport=transport) as client,
        client.subscribe("orders.9"),
    ):
        assert (await client.call("orders.9", "rename", "x"))["by"] == "tess"
    assert not [line for line in proxy.requests if token in line]
    for head in proxy.heads:
        assert re.findall(r"(?im)^authorization: (.*)\r$", head) == [f"Bearer {token}"]
    assert len(proxy.heads) == (3 if transport == "sse" else 1)


@on_each
async def test_an_invalid_token_ends_the_client(server: Server, transport: Transport) -> None:
    async with Client(url(server.port), token="s3cret", transport=transport) as client:
        with pytest.raises(ConnectionEnded, match="4401"):
            await anext(client.subscribe("public.news"))


@on_each
async def test_topics_that_are_subscribed_together_share_one_stream(
    server: Server, proxy: Proxy, transport: Transport
) -> None:
    async with Client(url(proxy.port), transport=transport) as client:
        first = client.subscribe("public.together")
        held = [client.subscribe(f"public.together{n}") for n in range(20)]
        async with first:
            await await_until(lambda: all(one.cursor for one in held), "all are subscribed")
    streams = [line for line in proxy.requests if "topic=public" in line]
    assert len(streams) == (transport == "sse")


@on_each
async def test_a_refused_client_raises_the_reason_and_does_not_reconnect(
    server: Server, proxy: Proxy, transport: Transport
) -> None:
    foreign = {"Origin": "https://evil.example"}
    async with Client(url(proxy.port), headers=foreign, transport=transport) as client:
        with pytest.raises(ConnectionEnded, match=r"4403: .*HTTP 403"):
            await anext(client.subscribe("public.news"))
    assert len(proxy.heads) == 1


async def test_a_websocket_server_without_our_protocol_is_never_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def mute(socket: Any) -> None:
        await socket.wait_closed()

    monkeypatch.setattr("realtime.client.websocket.OPEN_SECONDS", 0.2)
    async with websockets.serve(mute, "127.0.0.1", 0) as other:
        port = next(iter(other.sockets)).getsockname()[1]
        async with Client(url(port)) as client:
            # It does not answer with an event stream either, so the client keeps trying both.
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await anext(client.subscribe("public.news"))
            assert client.transport is None
