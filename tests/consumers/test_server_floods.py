"""What uvicorn does against floods, with the options that docs/servers.md names."""

import asyncio
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets

from tests.consumers.test_floods import FLOODS, flood, frame, memory
from tests.support.server import DEADLINE, Server, connect
from tests.support.services import require

OPTIONS = "--ws websockets --ws-max-size 131072"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    require(importlib.util.find_spec("uvicorn"), "uvicorn: pip install uvicorn")
    folder = tmp_path_factory.mktemp("uvicorn")
    with Server(folder, name="uvicorn", options=OPTIONS.split()) as running:
        yield running


def test_the_page_names_these_options() -> None:
    assert f"`{OPTIONS}`" in (ROOT / "docs/servers.md").read_text()


@pytest.mark.parametrize(
    "name",
    [
        "empty continuation frames",
        "fragments of two bytes",
        "a message of a megabyte",
        "a message of a megabyte in parts",
        "a header of two gigabytes",
    ],
)
async def test_uvicorn_cuts_what_its_options_limit(server: Server, name: str) -> None:
    async with connect(server) as quiet:
        before = memory(server)
        await flood(server, FLOODS[name]())
        await quiet.subscribe(f"public.uvicorn{list(FLOODS).index(name)}")
        assert memory(server) - before < 10_000_000


async def test_uvicorn_does_not_read_a_client_that_does_not_read_its_pongs(server: Server) -> None:
    """Without the options, uvicorn would keep 40 MB of pongs."""
    async with connect(server) as quiet, connect(server, ping_interval=None) as client:
        before = memory(server)
        transport = client.socket.transport
        transport.pause_reading()
        pings = frame(0x9, b"x" * 125) * 300_000
        transport.write(pings)
        sizes = [0, -1]  # of what is not written yet, now and before
        async with asyncio.timeout(DEADLINE):
            while sizes[0] != sizes[1]:
                for _ in range(20):  # in each turn the server would read more
                    assert (await quiet.ask(type="ping"))["type"] == "pong"
                sizes = [transport.get_write_buffer_size(), sizes[0]]
        assert sizes[0] > len(pings) // 4
        assert memory(server) - before < 15_000_000
        transport.abort()
        with pytest.raises(websockets.ConnectionClosed):
            await client.socket.recv()
