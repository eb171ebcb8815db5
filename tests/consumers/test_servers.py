"""The servers of docs/servers.md, each with the options that the page names."""

import asyncio
import importlib.util
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets

from tests.support.http import get_poll, http_client, open_stream
from tests.support.server import DEADLINE, Server, connect, free_port
from tests.support.services import require
from tests.support.waiting import await_until

COUNT_NODES = "from realtime.stores import get_store; print(len(get_store().nodes()))"
APPLICATION = "tests.consumers.application:application"
ROOT = Path(__file__).parents[2]

# By name: the packages, the server, and its options.
SERVERS = {
    "uvicorn": (
        ["uvicorn", "websockets"],
        "uvicorn",
        "--http h11 --timeout-graceful-shutdown 1 --root-path /app",
    ),
    "uvicorn-httptools": (
        ["httptools"],
        "uvicorn",
        "--http httptools --timeout-graceful-shutdown 1 --root-path /app",
    ),
    "gunicorn": (
        ["gunicorn", "uvicorn_worker"],
        "gunicorn",
        "--worker-class tests.consumers.gunicorn_worker.Worker",
    ),
    "hypercorn": (["hypercorn"], "hypercorn", "--graceful-timeout 1 --root-path /app"),
    "granian": (["granian"], "granian", "--workers-kill-timeout 1 --url-path-prefix /app"),
}


def require_packages(packages: list[str]) -> None:
    for name in packages:
        package = name.replace("_", "-")
        require(importlib.util.find_spec(name), f"{package}: pip install {package}")


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    packages, name, options = SERVERS[request.param]
    require_packages(packages)
    folder = tmp_path_factory.mktemp(request.param)
    with Server(folder, application=APPLICATION, name=name, options=options.split()) as running:
        yield running


async def test_an_event_arrives_on_every_transport(server: Server) -> None:
    topic = "public.servers"
    async with http_client() as http, connect(server) as client:
        cursor = (await get_poll(http, server.site, topic))["cursor"]
        await client.subscribe(topic)
        async with open_stream(server.site, topic) as stream:
            await stream.receive()
            polling = asyncio.create_task(get_poll(http, server.site, topic, since=cursor, wait=20))
            await asyncio.to_thread(server.publish, topic, 1)
            seen = [*await client.events(1), *await stream.events(1), *(await polling)["events"]]
        assert [event["seq"] for event in seen] == [1, 1, 1]
        command = {"type": "call", "topic": topic, "action": "none"}
        answer = await http.post(f"{server.site}/realtime/send", json=command)
        assert answer.json()["type"] == "error"


async def test_a_hundred_topics_fit_into_a_url(server: Server) -> None:
    topics = [f"public.{number:053}" for number in range(100)]
    async with http_client() as http:
        assert "cursor" in await get_poll(http, server.site, topics)


async def test_a_too_large_frame_gets_an_answer(server: Server) -> None:
    async with connect(server) as client:
        await client.socket.send(" " * 70_000)
        assert (await client.receive())["code"] == "too_large"


async def test_a_server_ends_at_sigterm_while_clients_stay(server: Server) -> None:
    assert server.process is not None
    if server.name == "hypercorn" and sys.version_info >= (3, 12):
        pytest.skip("on this Python, hypercorn waits for its clients, as the page says")
    async with connect(server) as client, open_stream(server.site, "public.stay"):
        await await_until(lambda: server.run(COUNT_NODES) == "1\n", "it has registered", DEADLINE)
        server.process.send_signal(signal.SIGTERM)
        await await_until(lambda: server.process and server.process.poll() is not None, "it ends")
        with pytest.raises(websockets.ConnectionClosed):
            await client.receive()
    is_killed = server.name == "granian"
    assert int(server.run(COUNT_NODES)) == is_killed  # the others sign off
    server.start()  # for the other tests


async def test_a_websocket_that_arrives_as_http_is_logged_once_with_the_remedy(
    tmp_path: Path,
) -> None:
    handshake = {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "13"}
    options = ["--http", "h11", "--ws", "none"]
    with Server(tmp_path, application=APPLICATION, name="uvicorn", options=options) as server:
        async with http_client() as http:
            assert (await http.get(f"{server.site}/realtime/ws")).status_code == 404
        assert "asked for a WebSocket" not in server.log.read_text()
        for _ in range(2):
            with pytest.raises(websockets.InvalidStatus):
                async with connect(server):
                    pass
            async with http_client() as http:  # as behind a proxy that drops Upgrade
                await http.get(f"{server.site}/realtime/ws", headers=handshake)
        log = server.log.read_text()
    assert log.count("no WebSocket support") == 1
    assert "pip install websockets" in log
    assert log.count("Let the proxy in front of this server pass on the headers Upgrade") == 1


def test_hypercorns_trio_worker_is_refused_at_its_start(tmp_path: Path) -> None:
    require_packages(["hypercorn", "trio"])
    bind = f"127.0.0.1:{free_port()}"
    command = ["hypercorn", "--bind", bind, "--worker-class", "trio", "tests.asgi:application"]
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        env=Server(tmp_path).env,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert "realtime needs asyncio" in ended.stderr
    assert "hypercorn --worker-class asyncio" in ended.stderr


def test_the_page_names_the_options_that_are_tested() -> None:
    page = (ROOT / "docs/servers.md").read_text()
    options = " ".join(options for _, _, options in SERVERS.values()).split()
    tested = {one for one in options if one.startswith("--")}
    assert {one for one in tested if one not in page} == set()


def test_the_defaults_that_the_page_names_are_those_of_the_servers() -> None:
    require_packages(["hypercorn"])
    from hypercorn.config import Config as Hypercorn
    from uvicorn import Config as Uvicorn

    hypercorn = Hypercorn()
    assert (hypercorn.websocket_ping_interval, hypercorn.graceful_timeout) == (None, 3)
    uvicorn = Uvicorn("")
    assert (uvicorn.ws_ping_interval, uvicorn.ws_ping_timeout) == (20, 20)
