"""A token that a function returns: when it is called, and what its failures do."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from realtime.client import Client, CommandRefused, ConnectionEnded, connector, token
from realtime.client.connector import Transport
from realtime.client.links import Link, LinkClosed, OnFrame
from realtime.client.token import TokenSource
from tests.client.support import TOPIC, FakeClient, FakeLink, FakeServer, passing, play, take
from tests.support.server import DEADLINE, Server
from tests.support.waiting import await_until

on_each = pytest.mark.parametrize("transport", ["websocket", "sse"])


class Tokens:
    """Returns tokens one after the other; an exception among them is raised."""

    def __init__(self, *tokens: object) -> None:
        self.left = list(tokens)

    async def next(self) -> str:
        text = self.left.pop(0)
        if isinstance(text, Exception):
            raise text
        return text  # type: ignore[return-value]


class TokenClient(FakeClient):
    """A client of the fake server that asks for its token as real links do."""

    def __init__(self, server: FakeServer, source: TokenSource) -> None:
        super().__init__(server)
        self._address = type(self._address).build(self._address.url, source, None, None, None)
        self.used: list[str] = []

    def _make_link(self, name: str) -> Link:
        return TokenLink(self, name)


class TokenLink(FakeLink):
    """A link that asks for the token first."""

    def __init__(self, client: TokenClient, name: str) -> None:
        super().__init__(client.server, name)
        self.client = client

    async def open(self, on_frame: OnFrame) -> None:
        self._ended = asyncio.get_running_loop().create_future()
        headers = await self.client._address.authorization()
        self.client.used.append(headers["Authorization"])
        await super().open(on_frame)


def test_a_token_that_expires_is_replaced_and_no_event_is_lost() -> None:
    server = FakeServer()

    async def story() -> None:
        tokens = Tokens("a", "b", "c")
        async with TokenClient(server, tokens.next) as client, client.subscribe(TOPIC) as events:
            for _ in range(2):
                server.link.cut(4401)
                server.publish()
                await passing(5)
            assert await take(events, 2) == [1, 2]
            assert client.used == ["Bearer a", "Bearer b", "Bearer c"]

    play(story())


def test_other_reconnects_use_the_same_token() -> None:
    server = FakeServer()

    async def story() -> None:
        async with TokenClient(server, Tokens("a").next) as client:
            await passing(5)
            server.link.cut(4512)
            await passing(5)
            assert client.used == ["Bearer a", "Bearer a"]

    play(story())


@pytest.mark.parametrize("options", [{}, {"status": 401}])
def test_a_client_whose_new_token_is_refused_too_ends(options: dict[str, int]) -> None:
    server = FakeServer()
    code = 1006 if options else 4401
    server.failures["websocket"].extend(LinkClosed(code, "expired", **options) for _ in range(2))

    async def story() -> None:
        async with TokenClient(server, Tokens("a", "b", "c").next) as client:
            with pytest.raises(ConnectionEnded, match="4401"):
                await anext(client.subscribe(TOPIC))
            assert client.used == ["Bearer a", "Bearer b"]

    play(story())


def test_a_function_that_fails_or_hangs_is_called_again(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer()
    calls = 0

    async def get() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("the token server answered nonsense")
        if calls == 2:
            await asyncio.get_running_loop().create_future()
        return "a"

    async def story() -> None:
        async with TokenClient(server, get) as client:
            await passing(token.FUNCTION_SECONDS + 5)
            await client.publish(TOPIC, "typing")
            assert client.used == ["Bearer a"]

    play(story())
    assert "answered nonsense" in caplog.text


@pytest.mark.parametrize("bad", [None, "", "two words"])
def test_a_function_that_returns_no_token_ends_the_client(bad: object) -> None:
    server = FakeServer()

    async def story() -> None:
        async with TokenClient(server, Tokens(bad).next) as client:
            with pytest.raises(ValueError, match="the token is"):
                await client.publish(TOPIC, "typing")

    play(story())


# Against a real server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"REALTIME": {"AUTHENTICATE": "tests.testapp.tokens.until"}}
    with Server(tmp_path_factory.mktemp("tokens"), settings=settings) as running:
        running.sign_in()
        yield running


@pytest.fixture(autouse=True)
def reconnects_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "FIRST_SECONDS", 0.05)


def connect(server: Server, transport: Transport, source: TokenSource) -> Client:
    return Client(f"{server.site}/realtime/", transport=transport, token=source)


@on_each
async def test_a_subscription_and_commands_survive_the_expiry_of_real_tokens(
    server: Server, transport: Transport
) -> None:
    calls = 0

    def short_lived() -> str:
        nonlocal calls
        calls += 1
        return f"ada:{time.time() + (0.5 if calls < 3 else 600)}"

    name = f"public.{transport}-expiry"
    async with (
        asyncio.timeout(DEADLINE),
        connect(server, transport, short_lived) as client,
        client.subscribe(name) as events,
    ):
        await await_until(lambda: calls == 3, "two tokens have expired", DEADLINE)
        await asyncio.to_thread(server.publish, name, 2)
        assert await take(events, 2) == [0, 1]
        assert await client.call("orders.7", "echo", 1) == 1


async def test_a_command_over_http_gets_a_new_token_if_the_stream_outlived_the_old_one(
    server: Server,
) -> None:
    tokens = Tokens(f"ada:{time.time() + 600}:once", f"ada:{time.time() + 600}")
    async with asyncio.timeout(DEADLINE):
        async with connect(server, "sse", tokens.next) as client:
            assert await client.call("orders.7", "echo", 1) == 1
        assert tokens.left == []


async def test_a_command_over_http_with_a_fixed_token_is_refused(server: Server) -> None:
    async with asyncio.timeout(DEADLINE):
        async with connect(server, "sse", f"ada:{time.time() + 600}:once") as client:
            with pytest.raises(CommandRefused, match="unauthorized"):
                await client.call("orders.7", "echo", 1)
