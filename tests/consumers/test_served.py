"""The HTTP transports on real servers and raw sockets: HTTP features and resources."""

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from realtime.threads import (
    ACTION_THREADS,
    IDENTITY_THREADS,
    PERMISSION_THREADS,
    RELAY_THREADS,
    STORE_THREADS,
)
from tests.support.http import Stream, get_poll, http_client, open_stream
from tests.support.server import DEADLINE, Publisher, Server, connect
from tests.support.waiting import await_until, wait_until

APPLICATION = "tests.consumers.application:application"


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    with Server(folder, application=APPLICATION, name=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(server: Server) -> Iterator[Publisher]:
    publisher = Publisher(server)
    yield publisher
    publisher.close()


async def state(server: Server) -> dict[str, int]:
    async with http_client() as client:
        answer: dict[str, int] = (await client.get(f"{server.site}/state")).json()
        return answer


async def until_all_have_left(server: Server) -> None:
    async def is_empty() -> bool:
        now = await state(server)
        return (now["connections"], now["followers"]) == (0, 0)

    await await_until(is_empty, "the hub has removed the client", DEADLINE)


@asynccontextmanager
async def raw(
    server: Server, *lines: str, limit: int = 2**16
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send the lines of a request, and yield the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=limit)
    writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def head_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    async with asyncio.timeout(DEADLINE):
        text = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = text.split("\r\n")
    fields = (line.partition(":") for line in lines if line)
    return int(status.split()[1]), {name.lower(): value.strip() for name, _, value in fields}


async def body_of(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """Yield the bytes of an answer's body until it ends."""
    if "transfer-encoding" not in headers:
        while data := await reader.read(65_536):
            yield data
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]


def sends_chunks_over_http_1_0(server: Server) -> bool:
    """Tell whether a server wrongly sends chunks to a client of HTTP/1.0."""
    return server.name == "uvicorn" and importlib.util.find_spec("httptools") is not None


async def test_a_stream_over_http_1_0_has_every_event(server: Server, publisher: Publisher) -> None:
    lines = ["GET /realtime/sse?topic=public.old HTTP/1.0", "Host: 127.0.0.1"]
    async with raw(server, *lines) as (reader, _):
        status, headers = await head_of(reader)
        assert status == 200
        assert ("transfer-encoding" in headers) == sends_chunks_over_http_1_0(server)
        stream = Stream(body_of(reader, headers))
        assert [(await stream.receive())["type"] for _ in range(2)] == ["welcome", "subscribed"]
        await publisher.publish("public.old", 50)
        assert [event["data"] for event in await stream.events(50)] == list(range(50))
    await until_all_have_left(server)


async def test_a_poll_over_http_1_0_is_answered_completely(server: Server) -> None:
    lines = ["GET /realtime/poll?topic=public.old HTTP/1.0", "Host: 127.0.0.1"]
    async with raw(server, *lines) as (reader, _):
        status, headers = await head_of(reader)
        body = await reader.read()
    assert status == 200
    assert len(body) == int(headers["content-length"])
    assert json.loads(body)["more"] is False


async def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    line = "GET /realtime/poll?topic=public.{} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    async with raw(server, line.format("one"), line.format("two")) as (reader, _):
        for name in ("one", "two"):
            status, headers = await head_of(reader)
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            assert status == 200
            assert body["frames"][1]["topic"] == f"public.{name}"


@pytest.mark.parametrize("path", ["sse", "poll"])
async def test_a_head_request_is_answered_without_a_body(server: Server, path: str) -> None:
    async with http_client() as client:
        for _ in range(2):  # the connection can be used again
            url = f"{server.site}/realtime/{path}?topic=public.a"
            answer = await client.head(url)
            assert (answer.status_code, answer.content) == (200, b"")
    await until_all_have_left(server)


async def test_the_projects_compression_does_not_apply_to_the_transports(
    server: Server, publisher: Publisher
) -> None:
    headers = {"Accept-Encoding": "gzip"}
    async with http_client(headers=headers) as client:
        page = await client.get(f"{server.site}/page/public.zip/")
        assert page.headers["content-encoding"] == "gzip", "the middleware is active"
        answer = await client.get(f"{server.site}/realtime/poll?topic=public.zip&last=100")
        assert "content-encoding" not in answer.headers
    async with open_stream(server.site, "public.zip", headers) as stream:
        await stream.receive()
        await publisher.publish("public.zip", 3)
        assert [event["data"] for event in await stream.events(3)] == [0, 1, 2]


async def test_a_client_that_half_closes_its_socket_leaves_nothing_behind(
    server: Server,
) -> None:
    lines = ["GET /realtime/sse?topic=public.half HTTP/1.1", "Host: 127.0.0.1"]
    async with raw(server, *lines) as (reader, writer):
        await head_of(reader)
        writer.write_eof()
        await until_all_have_left(server)


@pytest.mark.parametrize(
    "path", ["sse?topic=public.gone", "poll?topic=public.gone&since={}&wait=50"]
)
async def test_a_client_that_disconnects_leaves_nothing_behind(server: Server, path: str) -> None:
    async with http_client() as client:
        cursor = (await get_poll(client, server.site, "public.gone"))["cursor"]
    lines = [f"GET /realtime/{path.format(cursor)} HTTP/1.1", "Host: 127.0.0.1"]
    async with raw(server, *lines):

        async def is_there() -> bool:
            return (await state(server))["followers"] == 1

        await await_until(is_there, "the client follows", DEADLINE)
    await until_all_have_left(server)


async def test_a_request_that_is_cut_off_at_any_byte_leaves_nothing_behind(server: Server) -> None:
    text = b"GET /realtime/sse?topic=public.bytes HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    for length in range(0, len(text) + 1, 7):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(text[:length])
        await writer.drain()
        writer.transport.abort()
    await until_all_have_left(server)


async def test_a_huge_header_affects_only_its_own_request(server: Server) -> None:
    header = {"Last-Event-ID": "e~" + "A" * 100_000}
    async with http_client() as client:
        try:
            answer = await client.get(f"{server.site}/realtime/poll?topic=public.a", headers=header)
            assert answer.status_code in (200, 400, 431)
        except httpx.TransportError:
            pass
        assert (await get_poll(client, server.site, "public.a"))["events"] == []


async def test_a_client_that_never_reads_is_closed_and_its_buffer_is_bounded(
    server: Server,
) -> None:
    count = 900
    lines = ["GET /realtime/sse?topic=public.burst&ids=0 HTTP/1.0", "Host: 127.0.0.1"]
    async with raw(server, *lines, limit=1_000) as (reader, _):
        _, headers = await head_of(reader)
        script = (
            "from realtime import publish_many\n"
            f"publish_many([('public.burst', 'tick', 'x' * 20_000) for n in range({count})])"
        )
        publishing = asyncio.create_task(asyncio.to_thread(server.run, script))
        most = 0

        async def is_over() -> bool:
            nonlocal most
            now = await state(server)
            most = max(most, now["unsent"])
            return publishing.done() and now["connections"] == 0

        await await_until(is_over, "the client is closed", DEADLINE)
        await publishing
        assert most < 2_100_000
        stream = Stream(body_of(reader, headers))
        seen: list[int] = []
        with pytest.raises((EOFError, OSError)):
            while True:
                frame = await stream.receive()
                if frame["type"] == "event":
                    seen.append(frame["seq"])
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) < count


CLIENTS, TOPICS = 500, 100
USER_POOLS = IDENTITY_THREADS, PERMISSION_THREADS, ACTION_THREADS
THREADS = sum(pool.count for pool in (STORE_THREADS, RELAY_THREADS, *USER_POOLS))


async def test_five_hundred_streams_of_a_hundred_topics_need_one_task_each_and_no_threads(
    server: Server, publisher: Publisher
) -> None:
    names = [f"public.many{number}" for number in range(TOPICS)]
    url = "/realtime/sse?ids=0&" + "&".join(f"topic={name}" for name in names)
    lines = [f"GET {url} HTTP/1.0", "Host: 127.0.0.1"]
    async with open_stream(server.site, names) as witness:
        for _ in names:
            await witness.receive()
        before = await state(server)
        readers, writers = [], []
        for _ in range(CLIENTS):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
            readers.append(reader)
            writers.append(writer)
        streams = []
        for reader in readers:
            status, headers = await head_of(reader)
            assert status == 200
            stream = Stream(body_of(reader, headers))
            streams.append(stream)
            for _ in range(1 + TOPICS):
                await stream.receive()
        after = await state(server)
        assert after["connections"] == before["connections"] + CLIENTS
        # The threads of the pools start on demand; their number does not grow with the clients.
        assert after["threads"] <= before["threads"] + THREADS
        assert after["tasks"] <= before["tasks"] + (CLIENTS + 5)
        await publisher.publish(names[0], 1)
        for stream in streams:
            assert (await stream.receive())["type"] == "event"
        for writer in writers:
            writer.transport.abort()
    await until_all_have_left(server)


@pytest.mark.parametrize("name", ["daphne", "uvicorn"])
def test_a_server_that_is_stopped_signs_off(tmp_path: Path, name: str) -> None:
    count = "from realtime.stores import get_store; print(len(get_store().nodes()))"
    with Server(tmp_path, application="tests.asgi:application", name=name) as server:
        httpx.get(f"{server.site}/realtime/poll?topic=public.news&wait=0").raise_for_status()
        wait_until(lambda: server.run(count) == "1\n", "it has registered", DEADLINE)
        server.stop()
        assert server.run(count) == "0\n"


HTML = "<img src=x onerror=boom()> &amp;"


async def test_text_of_an_event_cannot_become_html_on_any_transport(server: Server) -> None:
    server.run(f"from realtime import publish; publish('public.html', 'said', {HTML!r})")
    query = "topic=public.html&last=1"
    received = []
    async with connect(server) as client:
        await client.send(type="subscribe", id=1, topic="public.html", last=1)
        await client.send(type="<b>", id=2)
        async with asyncio.timeout(DEADLINE):
            received += [str(await client.socket.recv()) for _ in range(3)]
    async with http_client() as http:
        received.append((await http.get(f"{server.site}/realtime/poll?{query}")).text)
        async with http.stream("GET", f"{server.site}/realtime/sse?{query}") as response:
            async for text in response.aiter_text():
                received.append(text)
                if "said" in text:
                    break
        received.append((await http.get(f"{server.site}/realtime/poll?topic=<b>")).text)
        command = {"type": "call", "topic": "public.html", "action": "<b>"}
        received.append((await http.post(f"{server.site}/realtime/send", json=command)).text)
    together = "\n".join(received)
    assert not set(together) & set("<>&"), together
    said = json.dumps(HTML).translate({ord(one): f"\\u{ord(one):04x}" for one in "<>&"})
    assert together.count(f'"data":{said}') == 3
    assert together.count("\\u003cb\\u003e") >= 2  # the errors repeat what was wrong
