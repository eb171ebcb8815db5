"""The WebSocket transport on a server whose `send()` waits for the client."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets

from tests.support.server import DEADLINE, Server, connect
from tests.support.waiting import await_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    application = "tests.consumers.application:application"
    with Server(tmp_path, application=application, name="uvicorn") as running:
        yield running


async def test_a_client_follows_and_resumes(server: Server) -> None:
    async with connect(server) as client:
        await client.subscribe("public.news")
        await asyncio.to_thread(server.publish, "public.news", 3)
        cursor = (await client.events(3))[-1]["cursor"]
    await asyncio.to_thread(server.publish, "public.news", 2)
    async with connect(server) as client:
        answer = await client.subscribe("public.news", since=cursor)
        assert (answer["recovered"], answer["replayed"]) == (True, 2)
        assert [event["seq"] for event in await client.events(2)] == [4, 5]


async def test_a_foreign_origin_is_refused(server: Server) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with connect(server, origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == 403


async def test_a_client_that_does_not_read_is_closed_and_resumes_without_a_gap(
    server: Server,
) -> None:
    count = 900  # within the retention, and far more than the kernel buffers
    slow = {"max_queue": 1, "ping_interval": None, "close_timeout": 1, "compression": None}
    async with connect(server) as witness, connect(server, **slow) as client:
        for each in (witness, client):
            await each.subscribe("public.burst")
        reading = asyncio.create_task(witness.events(count))
        await asyncio.to_thread(
            server.run,
            "from realtime import publish_many\n"
            f"publish_many([('public.burst', 'tick', 'x' * 20_000) for n in range({count})])",
        )
        assert [event["seq"] for event in await reading] == list(range(1, count + 1))
        # It reads nothing until the server has closed it. Then it receives what was sent already,
        # in order, and the reason or a broken connection, but never waits in silence.
        await wait_for_close(server)
        seen = []
        cursor = None
        with contextlib.suppress(websockets.ConnectionClosed):
            while (frame := await client.receive())["type"] == "event":
                seen.append(frame["seq"])
                cursor = frame["cursor"]
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) < count
    async with connect(server) as client:
        answer = await client.subscribe("public.burst", since=cursor)
        assert answer["recovered"] is True
        rest = await client.events(count - len(seen))
        assert [event["seq"] for event in rest] == list(range(len(seen) + 1, count + 1))


async def test_a_command_with_a_too_large_content_length_is_refused_before_it_is_sent(
    server: Server,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    lines = [
        "POST /realtime/send HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json",
        "Content-Length: 100000000", "", "{",
    ]  # fmt: skip
    writer.write("\r\n".join(lines).encode())
    async with asyncio.timeout(DEADLINE):
        assert int((await reader.readline()).split()[1]) == 413
    writer.close()


async def wait_for_close(server: Server) -> None:
    """Wait until the server has stopped waiting for a client to close."""
    await await_until(
        lambda: "closing a client ended" in server.log.read_text(), "a client is closed", DEADLINE
    )
