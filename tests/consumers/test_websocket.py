"""The WebSocket transport on a real Daphne: handshakes, commands and bad clients."""

import asyncio
import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets

from realtime.protocol.frames import CloseCode
from tests.support.server import DEADLINE, Client, Server, connect
from tests.support.waiting import wait_until

APPLICATION = "tests.consumers.application:application"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("websocket"), application=APPLICATION) as running:
        yield running


@pytest.fixture(scope="module")
def ada(server: Server) -> dict[str, Any]:
    """Options to connect as a user: `connect(server, **ada)`."""
    return {"additional_headers": server.sign_in("ada")}


@pytest.fixture
async def bystander(server: Server, ada: dict[str, Any]) -> AsyncIterator[None]:
    """Another client, which must still receive events after the test."""
    async with connect(server, **ada) as client:
        await client.subscribe("orders.1")
        yield
        await client.send(type="publish", topic="orders.1", event="comment", data="alive")
        while (frame := await client.receive())["type"] != "event":
            pass
        assert frame["data"] == "alive"


async def error_code(client: Client, text: str | bytes) -> str:
    await client.socket.send(text)
    frame = await client.receive()
    assert frame["type"] == "error", frame
    code: str = frame["code"]
    return code


async def closed(client: Client) -> tuple[int | None, list[dict[str, Any]]]:
    """Return the close code and the frames before it."""
    frames = []
    while True:
        try:
            frames.append(await client.receive())
        except websockets.ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else None, frames


# Handshake


async def handshake(server: Server, path: str = "/realtime/ws", *headers: str) -> int:
    """Return the HTTP status of a handshake with these headers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", *headers, "", "",
    ]  # fmt: skip
    writer.write("\r\n".join(lines).encode("latin-1"))
    async with asyncio.timeout(DEADLINE):
        status = int((await reader.readline()).split()[1])
    writer.close()
    return status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Host: shop.example"], 101),
        (["Host: shop.example", "Origin: http://shop.example"], 101),
        (["Host: shop.example", "Origin: http://evil.example"], 403),
        (["Host: shop.example", "Origin: https://shop.example"], 403),
        (["Host: shop.example", "Origin: http://shop.example:8000"], 403),
        (["Host: shop.example", "Origin: null"], 403),
        (["Host: evil.example"], 403),
        (["Host: evil.example", "Origin: http://evil.example"], 403),
        (["Host: shop.example", "Cookie: sessionid=\xff\xfe; ;;="], 101),
    ],
)
async def test_foreign_pages_and_hosts_are_refused_before_the_accept(
    server: Server, headers: list[str], status: int
) -> None:
    assert await handshake(server, "/realtime/ws?v=1", *headers) == status


async def test_repeated_or_missing_origins_and_hosts_are_refused(server: Server) -> None:
    for headers in (
        ["Host: shop.example", "Origin: http://shop.example", "Origin: http://evil.example"],
        ["Host: shop.example", "Host: shop.example"],
        [],
    ):
        assert await handshake(server, "/realtime/ws", *headers) in (400, 403)


async def test_the_welcome_of_an_anonymous_client_has_no_user_and_no_topics(server: Server) -> None:
    async with connect(server) as client:
        assert client.welcome["user"] is None
        assert client.welcome["topics"] == []
        assert client.welcome["version"] == 1


async def test_the_welcome_names_the_user_and_its_topics(
    server: Server, ada: dict[str, Any]
) -> None:
    async with connect(server, **ada) as client, connect(server, **ada) as second:
        key = client.welcome["user"]
        assert client.welcome["topics"] == [f"user.{key}", "everyone"]
        assert client.welcome["connection"] != second.welcome["connection"]
        for topic in client.welcome["topics"]:
            await client.subscribe(topic)


async def test_an_unknown_version_gets_an_error_and_a_close(server: Server) -> None:
    async with websockets.connect(server.url.replace("v=1", "v=99")) as raw:
        code, frames = await closed(Client(raw))
    assert code == CloseCode.VERSION
    assert [(f["type"], f.get("code"), f.get("reason")) for f in frames] == [
        ("error", "bad_version", None),
        ("closing", None, "version"),
    ]


# Bad input

DEEP = '{"type":"ping","x":' + "[" * 30_000 + "]" * 30_000 + "}"
BAD = [
    ("bad_json", "{"),
    ("bad_frame", "[]"),
    ("bad_json", '{"type":"ping","id":NaN}'),
    ("bad_frame", "{}"),
    ("unknown_type", '{"type":"dance","id":1}'),
    ("bad_frame", '{"type":{}}'),
    ("too_large", '{"type":"ping","x":"' + "x" * 70_000 + '"}'),
    ("bad_frame", DEEP),
    ("bad_json", '"' * 60_000),
    ("bad_frame", '{"type":"ping","id":99999999999999999999}'),
    ("bad_json", '{"type":"ping","x":' + "9" * 60_000 + "}"),
    ("bad_frame", '{"type":"subscribe","topic":7}'),
    ("bad_topic", '{"type":"subscribe","topic":"a b"}'),
    ("bad_topic", json.dumps({"type": "subscribe", "topic": "a" * 201})),
    ("bad_cursor", '{"type":"subscribe","topic":"public.a","since":"yesterday"}'),
    ("bad_frame", '{"type":"subscribe","topic":"public.a","since":"@1","last":1}'),
    ("bad_frame", '{"type":"subscribe","topic":"public.a","last":-1}'),
    ("bad_frame", '{"type":"publish","topic":"public.a","event":"a b"}'),
    ("unsupported", '{"type":"members","topic":"public.a"}'),
    ("unauthorized", '{"type":"auth","token":"x"}'),
]


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize(("code", "text"), BAD, ids=lambda value: value[:40])
async def test_a_bad_frame_gets_its_error_and_the_connection_goes_on(
    server: Server, code: str, text: str
) -> None:
    async with connect(server) as client:
        assert await error_code(client, text) == code
        assert (await client.ask(type="ping"))["type"] == "pong"
        await client.subscribe("public.a")


@pytest.mark.usefixtures("bystander")
async def test_a_binary_frame_closes_with_4400(server: Server) -> None:
    async with connect(server) as client:
        await client.socket.send(b'{"type":"ping"}')
        code, frames = await closed(client)
    assert code == CloseCode.BAD
    assert [frame["type"] for frame in frames] == ["error", "closing"]


@pytest.mark.usefixtures("bystander")
async def test_ten_bad_frames_in_a_row_close_with_4400(server: Server) -> None:
    async with connect(server) as client:
        for _ in range(9):
            await error_code(client, "{")
        assert (await client.ask(type="ping"))["type"] == "pong", "in a row"
        for _ in range(10):
            await error_code(client, "{")
        code, frames = await closed(client)
    assert code == CloseCode.BAD
    assert frames[-1] == {"type": "closing", "reason": "bad"}


@pytest.mark.usefixtures("bystander")
async def test_a_flood_is_rate_limited_and_then_closed_with_4429(server: Server) -> None:
    async with connect(server) as client:
        for _ in range(1_000):  # 200 are served, 200 are refused, and a few more per second
            await client.socket.send('{"type":"ping"}')
        code, frames = await closed(client)
    assert code == CloseCode.LIMIT
    types = [frame.get("code", frame["type"]) for frame in frames]
    assert types[:200] == ["pong"] * 200
    assert "rate_limited" in types
    assert frames[-1] == {"type": "closing", "reason": "limit"}


@pytest.mark.usefixtures("bystander")
async def test_a_frame_beyond_the_servers_limit_closes_only_its_connection(
    server: Server,
) -> None:
    async with connect(server) as client:
        # The server can close it while it is still sending.
        with contextlib.suppress(websockets.ConnectionClosed):
            await client.socket.send("x" * (3 << 20))
        code, _ = await closed(client)
    assert code in (1009, None)


@pytest.mark.usefixtures("bystander")
async def test_garbage_instead_of_frames_closes_only_its_connection(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /realtime/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    writer.write(os.urandom(4_000))
    async with asyncio.timeout(DEADLINE):
        try:
            while await reader.read(65_536):
                pass
        except ConnectionError:
            pass
    writer.close()


# Unknown and forbidden


@pytest.mark.parametrize("kind", ["subscribe", "publish", "call"])
async def test_unknown_and_forbidden_topics_look_the_same(
    server: Server, ada: dict[str, Any], kind: str
) -> None:
    fields = {"type": kind, "id": 1, "event": "typing", "action": "rename"}
    texts = set()
    topics = ["private.1", "private.2", "nothing.1", "orders.one", "crash.1", "user.999999"]
    async with connect(server, **ada) as client:
        for topic in topics:
            await client.send(**fields, topic=topic)
            texts.add(await client.socket.recv())
    async with connect(server) as client:
        await client.send(**fields, topic="orders.1")  # forbidden for anonymous users
        texts.add(await client.socket.recv())
    (text,) = texts
    assert json.loads(text)["code"] == "forbidden"


# Commands


async def test_a_stored_client_event_reaches_the_followers_and_the_log(
    server: Server, ada: dict[str, Any]
) -> None:
    async with connect(server, **ada) as client, connect(server, **ada) as other:
        await other.subscribe("orders.2")
        answer = await client.ask(
            type="publish", topic="orders.2", event="comment", data={"text": "naïve \ud83d\ude00"}
        )
        assert answer["type"] == "ok"
        (event,) = await other.events(1)
        assert (event["event"], event["data"]) == ("comment", {"text": "naïve 😀"})
        await client.subscribe("orders.2", last=1)
        assert await client.events(1) == [event]


async def test_an_ephemeral_client_event_reaches_the_followers_and_not_the_log(
    server: Server, ada: dict[str, Any]
) -> None:
    async with connect(server, **ada) as client, connect(server, **ada) as other:
        await other.subscribe("orders.3")
        answer = await client.ask(type="publish", topic="orders.3", event="typing")
        assert answer["type"] == "ok"
        (event,) = await other.events(1)
        assert (event["event"], event["data"]) == ("typing", None)
        assert not {"cursor", "seq"} & set(event)
        assert (await client.subscribe("orders.3", last=9))["replayed"] == 0


@pytest.mark.parametrize(
    ("topic", "event"),
    [("orders.1", "shipped"), ("public.a", "typing"), ("crash.1", "typing"), ("private.1", "x")],
)
async def test_a_publish_that_is_not_allowed_is_forbidden(
    server: Server, ada: dict[str, Any], topic: str, event: str
) -> None:
    async with connect(server, **ada) as client:
        answer = await client.ask(type="publish", topic=topic, event=event)
        assert (answer["type"], answer["code"]) == ("error", "forbidden")


async def test_data_that_is_too_large_is_refused(server: Server, ada: dict[str, Any]) -> None:
    async with connect(server, **ada) as client:
        command = {"type": "publish", "topic": "orders.1", "event": "comment"}
        data = "1e300," * 10_000 + "0"  # written out for others as 1e+300
        text = f'{json.dumps(command)[:-1]},"data":[{data}]}}'
        assert await error_code(client, text) == "bad_data"
        assert await error_code(client, json.dumps(command | {"data": "x" * 66_000})) == "too_large"


async def test_a_call_is_answered_with_the_result_of_the_action(
    server: Server, ada: dict[str, Any]
) -> None:
    async with connect(server, **ada) as client:
        answer = await client.ask(type="call", topic="orders.7", action="rename", data="B")
        assert answer["type"] == "result"
        assert answer["data"] == {"pk": 7, "name": "B", "by": "ada"}
        for data in (None, [], {"a": [1.5, "é", None]}, "x" * 60_000):
            answer = await client.ask(type="call", topic="orders.7", action="echo", data=data)
            assert answer.get("data") == data


@pytest.mark.parametrize(
    ("action", "data", "code", "message"),
    [
        ("boom", "denied", "forbidden", "you may not do this"),
        ("boom", "invalid", "invalid", "not a name"),
        ("boom", "invalid fields", "invalid", "too long; too loud"),
        ("boom", "else", "failed", "its log says why"),
        ("not_an_action", None, "unknown_action", "no such action"),
        ("can_subscribe", None, "unknown_action", "no such action"),
        ("__init__", None, "unknown_action", "no such action"),
    ],
)
async def test_a_failing_call_reveals_only_what_the_client_may_know(
    server: Server, ada: dict[str, Any], action: str, data: Any, code: str, message: str
) -> None:
    async with connect(server, **ada) as client:
        answer = await client.ask(type="call", topic="orders.7", action=action, data=data)
        assert (answer["type"], answer["code"]) == ("error", code)
        assert message in answer["message"]
        assert "no client may read" not in answer["message"]


async def test_commands_of_a_topic_run_in_order_without_waiting_for_answers(
    server: Server, ada: dict[str, Any]
) -> None:
    async with connect(server, **ada) as client:
        kinds = ["subscribe", "unsubscribe"] * 20 + ["subscribe"]
        for number, kind in enumerate(kinds):
            await client.send(type=kind, id=number, topic="orders.4")
        answers = [await client.receive() for _ in kinds]
        assert [answer["id"] for answer in answers] == list(range(len(kinds)))
        assert [answer["type"] for answer in answers] == [f"{kind}d" for kind in kinds]
        await client.send(type="publish", topic="orders.4", event="comment", data=1)
        frames = [await client.receive() for _ in range(2)]
        assert sorted(frame["type"] for frame in frames) == ["event", "ok"], "once"
        assert (await client.ask(type="ping"))["type"] == "pong"


async def test_a_second_subscribe_is_refused_and_the_first_goes_on(
    server: Server, ada: dict[str, Any]
) -> None:
    async with connect(server, **ada) as client:
        await client.subscribe("orders.5")
        answer = await client.ask(type="subscribe", topic="orders.5")
        assert answer["code"] == "already_subscribed"
        await client.send(type="publish", topic="orders.5", event="comment")
        assert "event" in [(await client.receive())["type"] for _ in range(2)]


async def test_a_client_follows_a_hundred_topics_and_no_more(server: Server) -> None:
    async with connect(server) as client:
        for number in range(101):
            await client.send(type="subscribe", id=number, topic=f"public.t{number}")
        answers = {frame["id"]: frame for frame in [await client.receive() for _ in range(101)]}
        assert answers.pop(100)["code"] == "too_many_topics"
        assert {answer["type"] for answer in answers.values()} == {"subscribed"}


async def test_a_connection_that_breaks_during_its_commands_affects_no_other(
    server: Server, ada: dict[str, Any], bystander: None
) -> None:
    for _ in range(20):
        async with connect(server, **ada) as client:
            for number in range(30):
                await client.send(type="subscribe", topic=f"orders.{number}", last=5)
                await client.send(type="call", topic="orders.7", action="rename")
            client.socket.transport.abort()
    assert "Traceback" not in server.log.read_text().split("no client may read")[-1]


# A client that does not read


def small_socket(server: Server, size: int) -> socket.socket:
    """Return a connected socket with a receive buffer of about this many bytes."""
    raw = socket.create_connection(("127.0.0.1", server.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    return raw


async def test_a_slow_reader_receives_all_of_a_burst_larger_than_the_buffers(
    server: Server,
) -> None:
    async with (
        connect(server, sock=small_socket(server, 65_536), max_queue=1) as slow,
        connect(server) as fast,
    ):
        for client in (slow, fast):
            await client.subscribe("public.burst")
        reading = [asyncio.create_task(client.events(150)) for client in (slow, fast)]
        await asyncio.to_thread(
            server.run,
            "from realtime import publish_many\n"
            "publish_many([('public.burst', 'tick', 'x' * 50_000) for n in range(150)])",
        )
        for events in await asyncio.gather(*reading):
            assert [event["seq"] for event in events] == list(range(1, 151))
        for client in (slow, fast):
            assert (await client.ask(type="ping"))["type"] == "pong"


async def test_a_client_that_never_reads_is_closed_and_needs_little_memory(
    server: Server, ada: dict[str, Any]
) -> None:
    size, count = 50_000, 600  # 30 MB
    lazy_socket = await websockets.connect(
        server.url, sock=small_socket(server, 4_096), max_queue=1, ping_interval=None
    )
    async with connect(server, max_queue=10_000) as reader:
        lazy = Client(lazy_socket)
        await lazy.send(type="subscribe", topic="public.flood")
        await reader.subscribe("public.flood")
        before = memory(server)
        publishing = asyncio.to_thread(
            server.run,
            "from realtime import publish\n"
            f"for n in range({count}): publish('public.flood', 'tick', str(n) + 'x' * {size})",
        )
        task = asyncio.create_task(publishing)
        peak = before
        for number in range(count):
            (event,) = await reader.events(1)
            assert event["seq"] == number + 1
            peak = max(peak, memory(server))
        await task
        code, frames = await closed(lazy)
    seqs = [frame["seq"] for frame in frames if frame["type"] == "event"]
    assert seqs == list(range(1, len(seqs) + 1)), "it received events without a gap"
    assert code in (CloseCode.SLOW, None)
    assert len(seqs) < count
    assert peak - before < 25 << 20, f"{(peak - before) >> 20} MB"


def memory(server: Server) -> int:
    """Return the bytes of memory that the server uses."""
    assert server.process is not None
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


# The documented clients


def documented_client(server: Server, topic: str, session: str) -> str:
    """Return the Python client in docs/wire-protocol.md, with the URL and topic of a test."""
    text = (ROOT / "docs" / "wire-protocol.md").read_text()
    match = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert match is not None
    code = match[1]
    call = '"ws://localhost:8000/realtime/ws?v=1", "orders.42", "…"'
    assert call in code
    return code.replace(call, f"{server.url!r}, {topic!r}, {session!r}")


def test_the_documented_client_connects_subscribes_receives_and_resumes(tmp_path: Path) -> None:
    with Server(tmp_path, application=APPLICATION) as server:
        session = server.sign_in()["Cookie"].partition("=")[2]
        code = documented_client(server, "orders.42", session)
        with (tmp_path / "client.log").open("w") as output:
            client = subprocess.Popen(
                [sys.executable, "-u", "-c", code], stdout=output, stderr=subprocess.STDOUT
            )
        try:

            def printed() -> list[dict[str, Any]]:
                lines = (tmp_path / "client.log").read_text().splitlines()
                return [eval(line) for line in lines if line.startswith("{")]

            def wait_for(seqs: list[int]) -> None:
                wait_until(
                    lambda: [frame["seq"] for frame in printed() if "seq" in frame] == seqs,
                    f"it printed {seqs}: {printed()}",
                    DEADLINE,
                )

            wait_until(lambda: len(printed()) >= 2, "it subscribed", DEADLINE)
            server.publish("orders.42", 2)
            wait_for([1, 2])
            server.kill9()
            server.publish("orders.42", 3, start=2)
            server.start()
            wait_for([1, 2, 3, 4, 5])
            answers = [frame for frame in printed() if frame["type"] == "subscribed"]
            assert [answer.get("recovered") for answer in answers] == [None, True]
            assert client.poll() is None
        finally:
            client.kill()
            client.wait()


async def test_the_echo_consumer_sends_back_text_and_bytes(server: Server) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/echo/") as echo:
        await echo.send("hello")
        assert await echo.recv() == "hello"
        await echo.send(b"\x00\xff")
        assert await echo.recv() == b"\x00\xff"
