"""How events are written on real servers, with the same result for a client."""

import asyncio
import datetime
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from realtime.protocol.frames import CloseCode
from tests.support.http import Stream, http_client, open_stream
from tests.support.server import DEADLINE, Client, Publisher, Server, connect, free_port
from tests.support.waiting import await_until

APPLICATION = "tests.consumers.application:application"
BUFFER_BYTES = 1024 * 1024  # the default of LIMITS
EVENTS = 5
LOCALHOST = ipaddress.IPv4Address("127.0.0.1")


@pytest.fixture(scope="module")
def daphne(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("daphne"), application=APPLICATION) as running:
        yield running


@pytest.fixture(scope="module")
def uvicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("uvicorn")
    with Server(folder, application=APPLICATION, name="uvicorn") as running:
        yield running


@asynccontextmanager
async def publishing(server: Server) -> AsyncIterator[Publisher]:
    publisher = await asyncio.to_thread(Publisher, server)
    try:
        yield publisher
    finally:
        await asyncio.to_thread(publisher.close)


async def state(server: Server) -> dict[str, Any]:
    async with http_client() as client:
        answer: dict[str, Any] = (await client.get(f"{server.site}/state")).json()
        return answer


async def writes_of(
    server: Server, topic: str, *clients: Client | Stream, count: int = EVENTS
) -> dict[str, int]:
    """Publish events one by one; return how many writes of each kind they caused."""
    async with publishing(server) as publisher:
        before = (await state(server))["writes"]
        for number in range(count):
            await publisher.publish(topic, 1, "tick", number)
            for client in clients:
                (event,) = await client.events(1)
                assert event["data"] == number
        after = (await state(server))["writes"]
    return {kind: after[kind] - before[kind] for kind in after}


# The kinds of writes


async def test_websockets_on_daphne_are_written_directly(daphne: Server) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(daphne)) for _ in range(4)]
        for client in clients:
            await client.subscribe("public.ws")
        writes = await writes_of(daphne, "public.ws", *clients)
    assert writes == {"direct": 4 * EVENTS, "buffered": 0, "portable": 0}


@pytest.mark.parametrize("topics", ["public.one", ["public.one", "public.two"]])
@pytest.mark.parametrize("ids", [None, "0"])
async def test_event_streams_on_daphne_are_written_directly(
    daphne: Server, topics: str | list[str], ids: str | None
) -> None:
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(3):
            stream = open_stream(daphne.site, topics, ids=ids)
            clients.append(await stack.enter_async_context(stream))
        for client in clients:
            for _ in [topics] if isinstance(topics, str) else topics:
                assert (await client.receive())["type"] == "subscribed"
        writes = await writes_of(daphne, "public.one", *clients)
    assert writes == {"direct": 3 * EVENTS, "buffered": 0, "portable": 0}


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(65_536):
        yield data


async def test_an_event_stream_over_http_1_0_uses_portable_writes(daphne: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", daphne.port)
    try:
        writer.write(b"GET /realtime/sse?topic=public.old HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        async with asyncio.timeout(DEADLINE):
            await reader.readuntil(b"\r\n\r\n")
        stream = Stream(chunks(reader))
        assert [(await stream.receive())["type"] for _ in range(2)] == ["welcome", "subscribed"]
        writes = await writes_of(daphne, "public.old", stream)
    finally:
        writer.transport.abort()
    assert writes == {"direct": 0, "buffered": 0, "portable": EVENTS}


async def test_uvicorn_uses_portable_writes(uvicorn: Server) -> None:
    async with connect(uvicorn) as client, open_stream(uvicorn.site, "public.a") as stream:
        await client.subscribe("public.a")
        await stream.receive()
        writes = await writes_of(uvicorn, "public.a", client, stream)
        total = (await state(uvicorn))["writes"]
    assert writes == {"direct": 0, "buffered": 0, "portable": 2 * EVENTS}
    assert (total["direct"], total["buffered"]) == (0, 0)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for 127.0.0.1; return its path and that of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(LOCALHOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "tls.crt", folder / "tls.key"
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(signed.public_bytes(pem))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(pem, *plain))
    return paths


async def test_daphne_with_tls_uses_portable_writes(tmp_path: Path) -> None:
    crt, key = certificate(tmp_path)
    port = free_port()
    endpoint = f"ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={crt}"
    with Server(tmp_path, application=APPLICATION, options=["-e", endpoint]) as server:
        context = ssl.create_default_context(cafile=str(crt))
        url = f"wss://127.0.0.1:{port}/realtime/ws?v=1"
        async with websockets.connect(url, ssl=context, open_timeout=DEADLINE) as raw:
            client = Client(raw)
            assert (await client.receive())["type"] == "welcome"
            await client.subscribe("public.tls")
            writes = await writes_of(server, "public.tls", client)
    assert writes == {"direct": 0, "buffered": 0, "portable": EVENTS}


@pytest.mark.parametrize("name", ["daphne", "uvicorn"])
async def test_empty_messages_are_echoed(name: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(name)
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/echo/") as echo:
        for message in ("", b"", "a", "", b"\0", b""):
            await echo.send(message)
            async with asyncio.timeout(DEADLINE):
                assert await echo.recv() == message


# Clients that read slowly, or never


def small_socket(server: Server, size: int) -> socket.socket:
    """Return a connected socket with a receive buffer of about this many bytes."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    raw.connect(("127.0.0.1", server.port))
    return raw


class SlowClient:
    """A WebSocket client that reads only on request, and checks every byte.

    Attributes:
        texts: the text frames that it received.
        pings: how many pings it has answered.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.texts: list[str] = []
        self.pings = 0
        self._reader, self._writer = reader, writer
        self._protocol = ClientProtocol(parse_uri("ws://127.0.0.1/realtime/ws?v=1"))
        self._protocol.send_request(self._protocol.connect())
        self.flush()

    def flush(self) -> None:
        for data in self._protocol.data_to_send():
            self._writer.write(data)

    def send(self, **frame: Any) -> None:
        self._protocol.send_text(json.dumps(frame).encode())
        self.flush()

    async def read(self, size: int) -> None:
        """Read up to this many bytes, and answer the pings among them."""
        async with asyncio.timeout(DEADLINE):
            data = await self._reader.read(size)
        assert data, "the server has closed"
        self._protocol.receive_data(data)
        assert self._protocol.parser_exc is None
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                assert event.status_code == 101
                continue
            assert isinstance(event, Frame)
            assert event.opcode in (Opcode.TEXT, Opcode.PING), event
            if event.opcode is Opcode.TEXT:
                self.texts.append(bytes(event.data).decode())
            else:
                self.pings += 1
        self.flush()


async def test_pings_do_not_split_large_events(tmp_path: Path) -> None:
    size, count = 60_000, 120
    options = ["--ping-interval", "1"]
    application = "tests.writers.pinging:application"
    with Server(tmp_path, application=application, options=options) as server:
        raw = small_socket(server, 4_096)
        reader, writer = await asyncio.open_connection(sock=raw, limit=4_096)
        client = SlowClient(reader, writer)
        try:
            while not client.texts:
                await client.read(1_000)
            client.send(type="subscribe", id=1, topic="public.large")
            while len(client.texts) < 2:
                await client.read(1_000)
            before = (await state(server))["writes"]
            script = (
                "from realtime import publish\n"
                f"for n in range({count}): publish('public.large', 'tick', str(n) + 'x' * {size})"
            )
            task = asyncio.create_task(asyncio.to_thread(server.run, script))

            async def is_full() -> bool:
                return task.done() and (await state(server))["unsent"] > BUFFER_BYTES // 10

            def is_pinged() -> bool:
                lines = server.log.read_text().splitlines()
                pings = [line for line in lines if line.startswith("a ping, behind")]
                return any(not line.endswith("behind 0 bytes") for line in pings)

            await await_until(is_full, "its buffer is full", DEADLINE)
            await await_until(is_pinged, "it is pinged behind the buffer", DEADLINE)
            sizes = iter(range(1, 1_000_000, 7))
            while len(client.texts) < 2 + count:
                await client.read(1_000 + next(sizes) % 3_000)
            await task
            after = (await state(server))["writes"]
        finally:
            writer.transport.abort()
    events = [json.loads(text) for text in client.texts[2:]]
    assert [event["seq"] for event in events] == list(range(1, count + 1))
    assert [event["data"][:-size] for event in events] == [str(n) for n in range(count)]
    assert client.pings >= 1
    assert after["direct"] > before["direct"]
    assert after["portable"] == before["portable"]


async def test_a_client_that_never_reads_is_closed_and_does_not_disturb_others(
    daphne: Server,
) -> None:
    size, count = 20_000, 600
    silent = await websockets.connect(
        daphne.url, sock=small_socket(daphne, 4_096), max_queue=1, ping_interval=None
    )
    lazy = Client(silent)
    await lazy.send(type="subscribe", id=1, topic="public.full")
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(connect(daphne)) for _ in range(3)]
        for other in others:
            await other.subscribe("public.full")
        script = (
            "from realtime import publish_many\n"
            f"publish_many([('public.full', 'tick', 'x' * {size}) for n in range({count})])"
        )
        tasks = [asyncio.create_task(other.events(count)) for other in others]
        tasks.append(asyncio.create_task(asyncio.to_thread(daphne.run, script)))
        most = 0

        async def is_over() -> bool:
            nonlocal most
            now = await state(daphne)
            most = max(most, now["unsent"])
            return all(task.done() for task in tasks) and now["connections"] == len(others)

        await await_until(is_over, "the silent client is closed", DEADLINE)
        for task in tasks[: len(others)]:
            assert [event["seq"] for event in task.result()] == list(range(1, count + 1))
        await tasks[-1]
    assert 0 < most <= BUFFER_BYTES + 2 * size
    seen, code = [], None
    try:
        while True:
            frame = await lazy.receive()
            if frame["type"] == "event":
                seen.append(frame["seq"])
    except websockets.ConnectionClosed as error:
        code = error.rcvd.code if error.rcvd else None
    assert seen == list(range(1, len(seen) + 1)), "it received events without a gap"
    assert len(seen) < count
    assert code in (CloseCode.SLOW, None)
