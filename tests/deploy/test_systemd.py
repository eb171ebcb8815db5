"""deploy/systemd: systemd accepts the units, and the service works on a socket from systemd."""

import asyncio
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daphne.cli import CommandLineInterface

from realtime.consumers.poll import MAX_WAIT_SECONDS
from realtime.protocol.frames import HEARTBEAT_SECONDS
from tests.deploy.support.activation import ActivatedServer
from tests.deploy.support.files import DEPLOY, SERVER, UNITS, exec_start, setting
from tests.deploy.support.running import deployed_nginx
from tests.support.http import http_client, open_stream, post_command
from tests.support.nginx import GET_NGINX, nginx_path
from tests.support.server import DEADLINE, Publisher
from tests.support.services import require
from tests.support.waiting import await_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux")


@pytest.mark.parametrize("kind", ["service", "socket", "target"])
def test_systemd_finds_nothing_wrong_with_a_unit(kind: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        # Part of the operating system, so a test run cannot install it.
        pytest.skip("needs systemd-analyze (Debian: apt install systemd)")
    python = exec_start()[0]
    for path in UNITS.iterdir():
        text = path.read_text().replace(python, "/bin/true").replace("/usr/bin/curl", "/bin/true")
        (tmp_path / path.name).write_text(text)
        (tmp_path / path.name.replace("@.", "@1.")).write_text(text)
    name = "realtime.target" if kind == "target" else f"realtime@1.{kind}"
    done = subprocess.run(
        [analyze, "verify", f"./{name}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_runs_daphne_with_suitable_options() -> None:
    words = exec_start()
    options = CommandLineInterface().parser.parse_args(words[words.index("daphne") + 1 :])
    assert options.socket_strings == ["systemd:domain=INET:index=0"]
    assert options.ping_timeout < options.ping_interval
    assert options.websocket_timeout == -1, (
        "clients that connected together would be closed together"
    )
    assert options.http_timeout is None, "it would end event streams too"
    assert not options.proxy_headers
    assert options.verbosity == 0


def test_nginx_uses_the_ports_of_the_sockets() -> None:
    listen = setting("realtime@.socket", "ListenStream")
    found = SERVER.findall((DEPLOY / "upstream.conf").read_text())
    addresses = [address for comment, address, _ in found if not comment]
    assert addresses == [
        listen.replace("%i", str(number)) for number in range(1, len(addresses) + 1)
    ]
    target = (UNITS / "realtime.target").read_text()
    assert f"realtime@{{1..{len(addresses)}}}.service" in target


def test_nginx_waits_longer_than_two_heartbeats_and_a_long_poll() -> None:
    text = (DEPLOY / "nginx.conf").read_text()
    found = re.search(r"proxy_read_timeout (\d+)s;", text)
    assert found
    assert int(found[1]) > max(HEARTBEAT_SECONDS * 2, MAX_WAIT_SECONDS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ActivatedServer]:
    require(shutil.which("curl"), "curl: put it on PATH (Debian: apt install curl)")
    with ActivatedServer(tmp_path_factory.mktemp("systemd")) as running:
        yield running
    running.socket.close()


def test_clients_that_connect_during_a_restart_wait_in_the_backlog(
    server: ActivatedServer,
) -> None:
    """There are more of them than the 50 of Daphne's own backlog."""
    server.stop()
    request = b"GET /whoami HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    clients = []
    for _ in range(200):
        clients.append(socket.create_connection(("127.0.0.1", server.port), DEADLINE))
        clients[-1].sendall(request)
    server.start()
    for client in clients:
        with client, client.makefile("rb") as answer:
            assert answer.readline().startswith(b"HTTP/1.1 200")


async def test_no_client_sees_an_error_while_the_only_process_restarts(
    server: ActivatedServer, tmp_path: Path
) -> None:
    """Requests for pages, commands and event streams wait meanwhile, and are then answered."""
    require(nginx_path(), GET_NGINX)
    topic, ada = "public.restart", await asyncio.to_thread(server.sign_in)
    publisher = Publisher(server)
    with deployed_nginx(tmp_path, [f"127.0.0.1:{server.port}"]) as port:
        site = f"http://127.0.0.1:{port}"
        async with open_stream(site, topic) as stream:
            await stream.receive()
            await publisher.publish(topic, 1)
            assert (await stream.receive())["data"] == 0
            cursor = stream.last_id
        await asyncio.to_thread(server.stop)
        await publisher.publish(topic, 1, "away", 1)

        async def resume() -> list[object]:
            async with open_stream(site, topic, {"Last-Event-ID": cursor}) as stream:
                frames = [await stream.receive(), await stream.receive()]
                return [frames[0]["recovered"], frames[1]["data"]]

        async with http_client() as client, asyncio.timeout(DEADLINE * 3):
            streaming = asyncio.create_task(resume())
            browsing = asyncio.create_task(client.get(f"{site}/whoami"))
            command = {"type": "publish", "topic": "orders.1", "event": "comment"}
            sending = asyncio.create_task(post_command(client, site, ada, **command))
            await await_until(lambda: server.waiting >= 3, "all three wait", DEADLINE)
            await asyncio.to_thread(server.start)
            assert await streaming == [True, 1]
            assert (await browsing).status_code == 200
            assert await sending == {"type": "ok"}
    await asyncio.to_thread(publisher.close)
