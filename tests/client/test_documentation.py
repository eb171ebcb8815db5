"""The examples in docs/python-client.md run and do what the page says."""

import ast
import asyncio
import functools
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from realtime.client import Client, EventsLost
from tests.support.server import DEADLINE, Server

TEXT = (Path(__file__).parents[2] / "docs" / "python-client.md").read_text()
SCRIPT, TOKEN, FOLLOW, RESET, STORE, PRESENCE, COMMANDS = re.findall(
    r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL
)


class Enough(Exception):
    """Raised to stop an example that would run forever."""


class Print:
    """A replacement for print() that raises ``Enough`` at the given number of calls."""

    def __init__(self, count: int) -> None:
        self.printed: list[tuple[Any, ...]] = []
        self.count = count

    def __call__(self, *words: Any) -> None:
        self.printed.append(words)
        if len(self.printed) == self.count:
            raise Enough


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("documentation")) as running:
        yield running


@pytest.fixture(scope="module")
def cookies(site: Server) -> dict[str, str]:
    return dict([site.sign_in()["Cookie"].split("=")])


def url(site: Server) -> str:
    return f"http://127.0.0.1:{site.port}/realtime/"


async def run(example: str, client: Any, **names: Any) -> dict[str, Any]:
    """Run an example until it raises ``Enough`` or ends."""
    code = compile(example, "python-client.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    namespace = {"client": client, **names}
    try:
        async with asyncio.timeout(DEADLINE):
            running = eval(code, namespace)
            if inspect.isawaitable(running):
                await running
    except Enough:
        pass
    return namespace


def test_the_first_example_is_a_program(site: Server) -> None:
    site.publish("orders.42", 3)
    token = site.run(
        "from django.contrib.auth import get_user_model\n"
        "from realtime.auth.tokens import make_token\n"
        "print(make_token(get_user_model().objects.create(username='tess')))"
    ).strip()
    script = SCRIPT.replace("https://shop.example/realtime/", url(site)).replace("…", token)
    command = [sys.executable, "-u", "-W", "error", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["tick 0\n", "tick 1\n", "tick 2\n"]
        process.kill()


class Publishing:
    """A client whose call() publishes events instead of calling an action."""

    def __init__(self, client: Client, site: Server) -> None:
        self.subscribe = client.subscribe
        self.site = site

    async def call(self, topic: str, action: str, data: Any) -> None:
        await asyncio.to_thread(self.site.publish, topic, 2)


async def test_the_topics_example_follows(site: Server, cookies: dict[str, str]) -> None:
    show = Print(2)
    async with Client(url(site), cookies=cookies) as client:
        await run(FOLLOW, Publishing(client, site), print=show)
    assert [words[1:] for words in show.printed] == [("tick", 0), ("tick", 1)]


async def test_the_reset_example_continues_after_the_missing_events(
    site: Server, cookies: dict[str, str]
) -> None:
    seen: list[Any] = []

    async def fetch() -> None:
        seen.append("fetched")
        await asyncio.to_thread(site.publish, "orders.42", 1)

    def apply(event: Any) -> None:
        seen.append(event.name)
        raise Enough

    async with Client(url(site), cookies=cookies) as client:
        names = {"since": "other.1.00000000", "EventsLost": EventsLost}
        await run(RESET, client, apply=apply, fetch_everything=fetch, **names)
    assert seen == ["fetched", "tick"]


async def test_the_store_example_resumes_where_it_stopped(
    site: Server, cookies: dict[str, str], tmp_path: Path
) -> None:
    seen: list[int] = []

    async def handle(event: Any) -> None:
        if len(seen) in (2, 6):
            seen.append(0)
            raise Enough  # it stops before it has stored this event
        seen.append(event.seq)

    def path(name: str) -> Path:
        return tmp_path / name

    await asyncio.to_thread(site.publish, "orders.42", 6)
    for _ in range(2):
        async with Client(url(site), cookies=cookies) as client:
            if not path("orders.cursor").exists():
                async with client.subscribe("orders.42", last=6) as before:
                    path("orders.cursor").write_text(str(before.cursor))
            await run(STORE, client, Path=path, handle=handle)
    first = seen[0]
    assert seen == [first, first + 1, 0, *range(first + 2, first + 5), 0]


async def test_the_presence_example_prints_the_members(
    site: Server, cookies: dict[str, str]
) -> None:
    show = Print(3)
    async with Client(url(site), cookies=cookies) as client:
        await run(PRESENCE, client, print=show)
    assert show.printed == [("before I came:", ""), (0, ""), (1, "ada")]


async def test_the_commands_example_runs(site: Server, cookies: dict[str, str]) -> None:
    async with Client(url(site), cookies=cookies) as client:
        names = await run(COMMANDS, client)
    assert names["result"]["name"] == {"to": "B"}


async def test_the_token_example_fetches_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"].startswith("Basic ")
        return httpx.Response(200, json={"token": "fetched"})

    transport = httpx.MockTransport(answer)
    mocked = functools.partial(httpx.AsyncClient, transport=transport)
    monkeypatch.setattr(httpx, "AsyncClient", mocked)
    made = await run(TOKEN, None, httpx=httpx, Client=Client, PASSWORD="x")
    headers = await made["client"]._address.authorization()
    assert headers == {"Authorization": "Bearer fetched"}
