"""Clients of a real Daphne that together leave too many bytes unread."""

import asyncio
import base64
import re
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.consumers.test_floods import frame
from tests.support.http import get_poll, http_client
from tests.support.server import DEADLINE, Server, connect
from tests.support.waiting import await_until

LIMIT = 1_000_000
CLIENTS = 12
EVENTS, SIZE = 60, 20_000
CLOSED = re.compile(rf"closed (\d+) slow clients, because more than {LIMIT} bytes were unsent")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    settings = {"REALTIME": {"LIMITS": {"total_buffer_bytes": LIMIT}}}
    application = "tests.consumers.unbuffered:application"
    with Server(tmp_path, application=application, settings=settings) as running:
        yield running


def publish(server: Server, topic: str, count: int) -> None:
    server.run(
        "from realtime import publish\n"
        f"for n in range({count}): publish({topic!r}, 'tick', 'x' * {SIZE})"
    )


def open_unread(server: Server, transport: str, topic: str, since: str) -> socket.socket:
    """Begin to follow a topic over a socket that takes few bytes, and read nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.connect(("127.0.0.1", server.port))
    follow = f"topic={topic}&since={quote(since)}"
    path = {"websocket": "ws?v=1", "stream": f"sse?{follow}", "poll": f"poll?{follow}"}[transport]
    head = f"GET /realtime/{path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    if transport == "websocket":
        key = base64.b64encode(b"k" * 16).decode()
        head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        head += f"Sec-WebSocket-Key: {key}\r\n"
    client.sendall(f"{head}\r\n".encode())
    client.settimeout(DEADLINE)
    if transport == "websocket":
        assert client.recv(12) == b"HTTP/1.1 101"
        command = f'{{"type":"subscribe","id":1,"topic":"{topic}","since":"{since}"}}'
        client.sendall(frame(0x1, command.encode()))
    return client


def is_cut(client: socket.socket) -> bool:
    """Tell whether the server has cut the connection, without reading from it."""
    poll = select.poll()
    poll.register(client, 0)
    return bool(poll.poll(0))


@pytest.mark.parametrize("transport", ["websocket", "stream", "poll"])
async def test_clients_that_do_not_read_are_cut_and_the_others_miss_nothing(
    server: Server, transport: str
) -> None:
    topic = f"public.{transport}"
    log = len(server.log.read_text())
    async with http_client() as http:
        start = (await get_poll(http, server.site, topic))["cursor"]
    await asyncio.to_thread(publish, server, topic, EVENTS)
    with ExitStack() as stack:
        async with connect(server) as reader:
            await reader.subscribe(topic, since=start)
            unread = []
            for _ in range(CLIENTS):  # in a thread, so that the reader reads meanwhile
                opened = asyncio.to_thread(open_unread, server, transport, topic, start)
                unread.append(stack.enter_context(await opened))
            assert len(await reader.events(EVENTS)) == EVENTS
            closed = await await_until(
                lambda: CLOSED.search(server.log.read_text(), log), "clients are closed", DEADLINE
            )
            assert closed is not None
            assert 1 <= int(closed[1]) < CLIENTS
            await asyncio.to_thread(publish, server, topic, 3)
            assert [event["seq"] for event in await reader.events(3)] == [61, 62, 63]
            await await_until(lambda: any(map(is_cut, unread)), "memory is free again", DEADLINE)
