"""deploy/nginx.conf, in a real nginx in front of two real Daphne processes on socket files."""

import asyncio
import json
import re
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from realtime.client import Client, connector
from tests.consumers.contract import (
    Follower,
    LongPollFollower,
    PollFollower,
    SseFollower,
    TransportContract,
    WebSocketFollower,
)
from tests.deploy.support.files import write_nginx
from tests.deploy.support.running import USER, SocketFileServer, deployed_nginx
from tests.support.http import http_client, open_stream
from tests.support.nginx import GET_NGINX, nginx_path
from tests.support.server import DEADLINE, Publisher, Server, free_port
from tests.support.services import require


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    require(nginx_path(), GET_NGINX)
    # Not pytest's folder: the path of a socket file can have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="realtime-nginx-", dir="/tmp") as name:
        (Path(name) / "static").mkdir()
        (Path(name) / "static" / "site.css").write_text("p { color: teal }")
        yield Path(name)


@pytest.fixture(scope="module")
def servers(folder: Path) -> Iterator[list[SocketFileServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(SocketFileServer(folder)) for _ in range(2)]


@pytest.fixture(scope="module")
def tls(folder: Path) -> int:
    """Create a certificate, and return the port for HTTPS."""
    require(shutil.which("openssl"), "openssl: put it on PATH (Debian: apt install openssl)")
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-out", str(folder / "site.pem"), "-keyout", str(folder / "site.key")]
    subprocess.run(command, check=True, capture_output=True)
    return free_port()


@pytest.fixture(scope="module")
def server(folder: Path, servers: list[SocketFileServer], tls: int) -> Iterator[Server]:
    """Run nginx in front of both processes, as one site."""
    with deployed_nginx(folder, [each.address for each in servers], tls) as port:
        yield Server(folder, port=port)  # never started: nginx listens on this port


@pytest.fixture(scope="module")
def publisher(server: Server) -> Iterator[Publisher]:
    publisher = Publisher(server)
    yield publisher
    publisher.close()


@pytest.fixture(scope="module")
def ada(server: Server) -> dict[str, str]:
    return server.sign_in("ada")


@pytest.fixture(
    params=[WebSocketFollower, SseFollower, LongPollFollower, PollFollower],
    ids=lambda transport: transport.name,
)
def transport(request: pytest.FixtureRequest) -> type[Follower]:
    chosen: type[Follower] = request.param
    return chosen


def directly(server: SocketFileServer) -> httpx.AsyncClient:
    """Return a client that reaches a process without nginx."""
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(server.path)))


class TestEveryTransport(TransportContract):
    pass


def test_the_configuration_has_no_errors_and_no_warnings(folder: Path, tmp_path: Path) -> None:
    addresses = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"]
    config = write_nginx(tmp_path, free_port(), addresses, USER)
    path = require(nginx_path(), GET_NGINX)
    command = [path, "-t", "-p", str(tmp_path), "-c", str(config), "-e", str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # If a machine allows fewer descriptors than configured, nginx only warns.
    lines = [line for line in done.stderr.splitlines() if "open file resource limit" not in line]
    assert [line for line in lines if "[" in line] == []


async def test_daphne_receives_the_clients_address_and_the_host(server: Server) -> None:
    forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    async with http_client() as client:
        received = (await client.get(f"{server.site}/whoami", headers=forged)).json()
    assert received["x-forwarded-for"] == "127.0.0.1"
    assert received["x-forwarded-proto"] == "http"
    assert received["host"] == f"127.0.0.1:{server.port}"
    assert received["http"] == "1.1"
    assert "connection" not in received, "connections to Daphne are not reused"
    assert received["client"] is None, "a socket file has no address without --proxy-headers"


async def test_daphnes_proxy_headers_cannot_be_forged_through_nginx(folder: Path) -> None:
    own = Path(tempfile.mkdtemp(dir=folder))
    with (
        SocketFileServer(own, "--proxy-headers") as behind,
        deployed_nginx(own, [behind.address]) as port,
    ):
        async with http_client() as client:
            forged = {"X-Forwarded-For": "203.0.113.9, 203.0.113.10"}
            received = (await client.get(f"http://127.0.0.1:{port}/whoami", headers=forged)).json()
    assert received["client"] == ["127.0.0.1", 0]


async def test_a_root_path_that_a_client_sends_never_reaches_daphne(folder: Path) -> None:
    """nginx is a trusted proxy, so Daphne's application would believe the header."""
    own = Path(tempfile.mkdtemp(dir=folder))
    behind = SocketFileServer(own)
    behind.env["REALTIME_TEST_SETTINGS"] = '{"REALTIME": {"TRUSTED_PROXIES": ["unix"]}}'
    forged = {"Daphne-Root-Path": "//evil.example"}
    with behind, deployed_nginx(own, [behind.address]) as port:
        site = f"http://127.0.0.1:{port}"
        async with http_client() as client:
            page = (await client.get(f"{site}/elements/", headers=forged)).text
        url = f"ws://127.0.0.1:{port}/realtime/ws?v=1"
        async with websockets.connect(url, additional_headers=forged) as socket:
            assert json.loads(await socket.recv())["type"] == "welcome"
        async with directly(behind) as client:
            believed = (await client.get("http://site/elements/", headers=forged)).text
    assert 'data-realtime-url="/realtime/"' in page
    assert "evil.example" not in page
    assert "evil.example" in believed


async def test_both_processes_serve_requests(server: Server) -> None:
    async with http_client() as client, asyncio.timeout(DEADLINE):
        pids = set()
        while len(pids) < 2:
            pids.add((await client.get(f"{server.site}/whoami")).json()["pid"])


async def test_static_files_come_from_nginx(server: Server) -> None:
    async with http_client() as client:
        answer = await client.get(f"{server.site}/static/site.css")
    assert (answer.text, answer.headers["content-type"]) == ("p { color: teal }", "text/css")


async def test_a_stream_is_neither_buffered_nor_compressed(
    server: Server, publisher: Publisher
) -> None:
    wants = {"Accept-Encoding": "gzip"}
    async with open_stream(server.site, "public.prompt", wants) as stream:
        await stream.receive()
        await publisher.publish("public.prompt", 1)
        assert (await stream.receive())["data"] == 0
    async with http_client() as client:
        url = f"{server.site}/realtime/sse?topic=public.prompt"
        async with client.stream("GET", url, headers=wants) as answer:
            assert "content-encoding" not in answer.headers


async def test_a_hundred_topics_and_a_large_cookie_pass(server: Server) -> None:
    """The URL alone has more than the 8 KB that nginx accepts by default."""
    topics = [f"public.{'a-page-with-many-topics-' * 3}{number:03}" for number in range(100)]
    async with open_stream(server.site, topics, {"Cookie": f"big={'x' * 2_000}"}) as stream:
        first = [await stream.receive() for _ in topics]
        cursor = stream.last_id
    assert {frame["type"] for frame in first} == {"subscribed"}
    async with open_stream(server.site, topics, {"Last-Event-ID": cursor}) as stream:
        again = [await stream.receive() for _ in topics]
    assert {frame["recovered"] for frame in again} == {True}


async def test_headers_above_the_limit_are_refused(server: Server) -> None:
    async with http_client() as client:
        answer = await client.get(f"{server.site}/whoami", headers={"Cookie": "x" * 20_000})
        assert answer.status_code == 400
        answer = await client.get(f"{server.site}/whoami?{'x' * 20_000}")
        assert answer.status_code == 414


@pytest.mark.parametrize(("size", "by"), [(70_000, "realtime"), (200_000, "nginx")])
async def test_a_command_that_is_too_large_is_413(server: Server, size: int, by: str) -> None:
    async with http_client() as client:
        command = {"type": "publish", "topic": "public.x", "event": "e", "data": "x" * size}
        own = {"Origin": server.site}
        answer = await client.post(f"{server.site}/realtime/send", json=command, headers=own)
    assert answer.status_code == 413
    if by == "realtime":
        assert answer.json()["code"] == "too_large"
    else:
        assert "nginx" in answer.text


MEGABYTE = 1_048_576


@pytest.mark.parametrize(("path", "size"), [("/realtime/send", MEGABYTE), ("/x/", 11 * MEGABYTE)])
async def test_nginx_refuses_a_body_above_the_limit_by_its_length(
    server: Server, path: str, size: int
) -> None:
    """The answer comes before any byte of the body is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
    async with asyncio.timeout(DEADLINE):
        assert await reader.readline() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
        await reader.readuntil(b"nginx")
    writer.close()


async def test_without_nginx_daphne_takes_a_whole_body_into_memory(
    server: Server, servers: list[SocketFileServer]
) -> None:
    """Through nginx, the same body does not reach it; chunked, its length is not declared."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * MEGABYTE

    async with http_client() as client:
        before = max(map(peak_megabytes, servers))
        answer = await client.post(f"{server.site}/realtime/send", content=body())
        assert answer.status_code == 413
        assert "nginx" in answer.text
        assert max(map(peak_megabytes, servers)) - before < 5
    async with directly(servers[0]) as client:
        before = peak_megabytes(servers[0])
        headers = {"Content-Type": "application/json", "Origin": "http://site"}
        answer = await client.post("http://site/realtime/send", content=body(), headers=headers)
        assert answer.status_code == 413
        assert answer.json()["code"] == "too_large"
        assert peak_megabytes(servers[0]) - before > 15


def peak_megabytes(server: Server) -> int:
    """Return the largest memory that a server's process has had."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found
    return int(found[1]) // 1_024


async def test_a_page_over_tls_has_the_same_origin(folder: Path, server: Server, tls: int) -> None:
    trust = ssl.create_default_context(cafile=folder / "site.pem")
    url = f"wss://localhost:{tls}/realtime/ws?v=1"
    own, foreign = f"https://localhost:{tls}", f"http://localhost:{tls}"
    async with websockets.connect(url, ssl=trust, origin=own) as socket:  # type: ignore[arg-type]
        assert json.loads(await socket.recv())["type"] == "welcome"
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with websockets.connect(url, ssl=trust, origin=foreign):  # type: ignore[arg-type]
            pass
    assert refused.value.response.status_code == 403


@pytest.fixture
async def clients(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Client]]:
    monkeypatch.setattr(connector, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(connector, "LAST_SECONDS", 0.3)
    async with AsyncExitStack() as stack:
        transports: list[Any] = ["websocket", "sse"] * 4
        yield [
            await stack.enter_async_context(Client(f"{server.site}/realtime/", transport=transport))
            for transport in transports
        ]


async def test_a_rolling_restart_loses_no_event_and_fails_no_request(
    server: Server,
    servers: list[SocketFileServer],
    publisher: Publisher,
    clients: list[Client],
) -> None:
    """The processes restart one after the other, while the other one serves."""
    topic = "public.rolling"
    received: list[list[int]] = [[] for _ in clients]
    statuses: list[int] = []
    rolling = True

    async def follow(number: int, following: asyncio.Event) -> None:
        async with clients[number].subscribe(topic) as events:
            following.set()
            async for event in events:
                received[number].append(event.data)
                if event.name == "last":
                    return

    async def browse() -> None:
        async with http_client() as client:
            while rolling:
                statuses.append((await client.get(f"{server.site}/whoami")).status_code)

    async with asyncio.timeout(DEADLINE * 4), asyncio.TaskGroup() as group:
        following = [asyncio.Event() for _ in clients]
        for number, event in enumerate(following):
            group.create_task(follow(number, event))
        for event in following:
            await event.wait()
        browsing = group.create_task(browse())
        for turn, restarted in enumerate(servers):
            await publisher.publish(topic, 5, "tick", turn * 20)
            await asyncio.to_thread(restarted.stop)
            await publisher.publish(topic, 10, "tick", turn * 20 + 5)
            await asyncio.to_thread(restarted.start)
            await publisher.publish(topic, 5, "tick", turn * 20 + 15)
        rolling = False
        await browsing
        await publisher.publish(topic, 1, "last", 40)
    assert received == [list(range(41))] * len(clients)
    assert statuses
    assert set(statuses) == {200}
