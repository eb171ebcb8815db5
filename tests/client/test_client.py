"""The client as a whole: what it imports, and how it is opened and closed."""

import asyncio
import subprocess
import sys

import pytest

from realtime.client import Client, ConnectionEnded
from tests.client.support import TOPIC, FakeClient, FakeServer, passing, play

URL = "https://shop.example/realtime/"


def test_an_unknown_transport_is_rejected() -> None:
    with pytest.raises(ValueError, match="use auto, websocket or sse"):
        Client(URL, transport="carrier pigeon")  # type: ignore[arg-type]


def test_the_client_needs_no_django() -> None:
    script = (
        "import sys\n"
        "for name in ('django', 'channels', 'asgiref', 'daphne'): sys.modules[name] = None\n"
        "from realtime.client import Client\n"
        "Client('https://shop.example/realtime/', token='x')\n"
        "print(sorted(n for n in sys.modules if n.startswith('realtime.') and n.count('.') == 1))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = {name.removeprefix("realtime.") for name in eval(done.stdout)}
    assert imported <= {"client", "exceptions", "import_name", "protocol"}


@pytest.mark.parametrize("missing", ["websockets", "httpx"])
def test_the_error_for_a_missing_dependency_says_how_to_install_it(missing: str) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None\nimport realtime.client"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install 'django-channels-realtime[client]'" in done.stderr
    assert f"needs {missing}" in done.stderr


def test_a_client_can_be_used_only_once_and_only_inside_its_block() -> None:
    server = FakeServer()

    async def story() -> None:
        client = FakeClient(server)
        assert client.transport is None
        await client.aclose()
        with pytest.raises(RuntimeError, match="async with"):
            client.subscribe(TOPIC)
        async with client:
            calling = asyncio.create_task(client.call(TOPIC, "rename"))
            await asyncio.sleep(0)
        with pytest.raises(ConnectionEnded, match="this client was closed"):
            await calling
        with pytest.raises(ConnectionEnded):
            await client.publish(TOPIC, "typing")
        with pytest.raises(RuntimeError, match="create another one"):
            async with client:
                raise AssertionError("it was entered")

    play(story())


def test_cancelling_the_task_that_uses_a_client_stops_all_its_tasks() -> None:
    server = FakeServer()

    async def use() -> None:
        async with FakeClient(server) as client:
            async for _ in client.subscribe(TOPIC):
                raise AssertionError

    async def story() -> None:
        for seconds in (0, 0.005, 0.015, 5):
            using = asyncio.create_task(use())
            await passing(seconds)
            using.cancel()
            with pytest.raises(asyncio.CancelledError):
                await using

    play(story())


def test_an_internal_error_of_the_client_is_raised_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = FakeServer()

    async def story() -> None:
        client = FakeClient(server)
        client._make_link = lambda name: 1 / 0  # type: ignore[assignment, method-assign, return-value]
        async with client:
            with pytest.raises(ZeroDivisionError):
                await anext(client.subscribe(TOPIC))

    play(story())
    assert "the client failed" in caplog.text
