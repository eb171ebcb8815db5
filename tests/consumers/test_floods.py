"""Clients that flood a real Daphne, next to a client that only listens; also behind nginx."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import websockets

from tests.deploy.support.running import deployed_nginx
from tests.support.server import DEADLINE, Publisher, Server, connect
from tests.support.waiting import await_until

MASK = b"\0\0\0\0"
BURST = 50_000  # frames: far above the limit, and quickly written


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """Return a masked frame; the mask is zero, so the payload stays readable."""
    first = bytes([opcode | (0x80 if fin else 0)])
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = bytes([0xFE]) + size.to_bytes(2, "big")
    else:
        length = bytes([0xFF]) + size.to_bytes(8, "big")
    return first + length + MASK + payload


FLOODS: dict[str, Callable[[], bytes]] = {
    "pings": lambda: frame(0x9, b"x" * 125) * BURST,
    "pongs": lambda: frame(0xA) * BURST,
    "empty continuation frames": lambda: frame(0x1, fin=False) + frame(0x0, fin=False) * BURST,
    "commands": lambda: frame(0x1, b'{"type":"ping"}') * BURST,
    "fragments of two bytes": lambda: (
        frame(0x1, b"  ", fin=False) + frame(0x0, b"  ", fin=False) * BURST
    ),
    "a message of a megabyte": lambda: frame(0x1, b" " * 1_000_000),
    "a message of a megabyte in parts": lambda: (
        frame(0x1, b" " * 60_000, fin=False) + frame(0x0, b" " * 60_000, fin=False) * 16
    ),
    "a header of two gigabytes": lambda: b"\x81\xff" + (2**31).to_bytes(8, "big") + MASK,
}


SLOW = "Authorization: Bearer slow\r\n"  # the application waits for a second
HANDSHAKE = (
    "GET /realtime/ws?v=1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n" + SLOW + "\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    application = "tests.consumers.impatient:application"
    with Server(tmp_path_factory.mktemp("floods"), application=application) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(server: Server) -> Iterator[Publisher]:
    publisher = Publisher(server)
    yield publisher
    publisher.close()


@pytest.fixture(scope="module", params=["directly", "through nginx"])
def route(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Return what the attacker connects to: Daphne, or nginx with the shipped configuration."""
    if request.param == "directly":
        yield server
        return
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    with deployed_nginx(folder, [f"127.0.0.1:{server.port}"]) as port:
        yield Server(folder, port=port)  # never started: nginx listens on this port


def memory(server: Server) -> int:
    """Return the resident memory of the server in bytes."""
    assert server.process is not None
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def handshakes(server: Server) -> int:
    """Return the number of handshakes that the application has received."""
    return server.log.read_text().count("WSCONNECTING")


async def flood(server: Server, data: bytes) -> None:
    """Send bytes over a WebSocket without reading anything, until the server disconnects."""
    async with connect(server, close_timeout=1, ping_interval=None) as client:
        transport = client.socket.transport
        transport.pause_reading()
        for start in range(0, len(data), 65_536):
            if transport.is_closing():
                break
            transport.write(data[start : start + 65_536])
            await asyncio.sleep(0)
        transport.resume_reading()
        with pytest.raises(websockets.ConnectionClosed):
            async with asyncio.timeout(DEADLINE):
                while True:
                    await client.socket.recv()


@asynccontextmanager
async def victim(
    server: Server, route: Server, publisher: Publisher, topic: str
) -> AsyncIterator[None]:
    """Follow a topic meanwhile: nothing is missing, and the server has hardly grown."""
    async with connect(route) as quiet:
        await quiet.subscribe(topic)
        await publisher.publish(topic, 1)
        before = memory(server)
        yield
        await publisher.publish(topic, 20)
        assert [event["seq"] for event in await quiet.events(21)] == list(range(1, 22))
        grown = memory(server) - before
    assert grown < 5_000_000, f"the server has grown by {grown:,} bytes"


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_is_cut_and_the_others_miss_nothing(
    server: Server, route: Server, publisher: Publisher, name: str
) -> None:
    number = list(FLOODS).index(name)
    async with victim(server, route, publisher, f"public.flood{number}-{route.port}"):
        await flood(route, FLOODS[name]())


async def test_a_message_that_is_never_completed_is_cut(route: Server) -> None:
    await flood(route, frame(0x1, b"{", fin=False))  # the application waits for a second


async def test_data_sent_before_the_accept_stays_unread_until_the_guard_cuts_it(
    server: Server, route: Server, publisher: Publisher
) -> None:
    part = frame(0x9, b"x" * 125) * 500
    topic = f"public.early-{route.port}"
    async with victim(server, route, publisher, topic), asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", route.port)
        before, connecting = memory(server), handshakes(server)
        writer.write(HANDSHAKE.format(port=route.port).encode())
        await await_until(lambda: handshakes(server) > connecting, "it connects", DEADLINE)
        cut = asyncio.ensure_future(reader.read())  # until the end
        with suppress(ConnectionError):
            while not cut.done():
                writer.write(part)
                await writer.drain()
                grown = memory(server) - before
                assert grown < 5_000_000, f"the server has grown by {grown:,} bytes"
        await asyncio.wait([cut])
        writer.close()


async def test_messages_after_the_servers_close_are_dropped(
    server: Server, publisher: Publisher
) -> None:
    head = HANDSHAKE.format(port=server.port).replace(SLOW, "").encode()
    async with victim(server, server, publisher, "public.after"), asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(0x1, b'{"type":"ping"}') * 500)
        await reader.readuntil(b"\x88\x02" + (4429).to_bytes(2, "big"))
        before = memory(server)
        with suppress(ConnectionError):
            for _ in range(1_000):
                writer.write(frame(0x1, b" " * 30_000))
                await writer.drain()
                grown = memory(server) - before
                assert grown < 5_000_000, f"the server has grown by {grown:,} bytes"
        writer.close()


async def test_a_client_that_splits_its_messages_is_served(server: Server) -> None:
    async with connect(server) as client:
        for number in range(20):
            parts = ['{"type"', ':"ping"', f',"id":{number}', "}"]
            await client.socket.send(parts)
            await client.socket.ping()
            assert (await client.receive())["type"] == "pong"


async def test_commands_that_come_at_once_are_all_answered(server: Server) -> None:
    async with connect(server) as client:
        for number in range(1, 391):  # within the burst, and within that of the refusals
            await client.send(type="subscribe", id=number, topic=f"public.burst{number % 90}")
        answers = [await client.receive() for _ in range(390)]
        assert sorted(answer["id"] for answer in answers) == list(range(1, 391))
        assert {answer.get("code") for answer in answers} == {
            None, "already_subscribed", "rate_limited",
        }  # fmt: skip
    async with connect(server) as other:
        await other.subscribe("public.burst1")


async def test_a_frame_that_is_a_little_too_large_gets_an_answer(server: Server) -> None:
    async with connect(server) as client:
        await client.socket.send(" " * 100_000)
        assert (await client.receive())["code"] == "too_large"
        await client.subscribe("public.flood")


async def test_pings_are_answered_until_the_client_stops_reading(server: Server) -> None:
    async with connect(server) as client:
        for _ in range(10):
            await (await client.socket.ping())
        await await_until(lambda: client.socket.latency > 0, "the pongs arrived", DEADLINE)
