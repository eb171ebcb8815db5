"""When the client comes back, over which transport, and what becomes of commands meanwhile."""

import asyncio
import itertools
import random
from typing import Any

import httpx
import pytest

from realtime.client import AnswerLost, CommandRefused, ConnectionEnded
from realtime.client.connector import Transport
from realtime.client.links import LinkClosed, Silence
from realtime.client.stream import StreamLink
from realtime.client.websocket import WebSocketLink
from realtime.exceptions import DataNotSerializable, InvalidEventName, InvalidTopicName
from tests.client.support import TOPIC, FakeClient, FakeServer, passing, play, take

AWAY = LinkClosed(1006, "nobody listens")
BLOCKED = LinkClosed(1006, "HTTP 400", blocked=True, status=400)
NOT_FOUND = LinkClosed(1006, "HTTP 404", blocked=True, status=404)


@pytest.fixture
def latest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each delay be its bound."""
    monkeypatch.setattr(random, "random", lambda: 1.0)


def gaps(server: FakeServer) -> list[float]:
    """Return the seconds between the attempts."""
    times = [time for time, _ in server.attempts]
    return [round(b - a, 1) for a, b in itertools.pairwise(times)]


def names(server: FakeServer) -> list[str]:
    return [name for _, name in server.attempts]


async def stay(server: FakeServer, seconds: float, transport: Transport = "auto") -> None:
    async with FakeClient(server, transport):
        await passing(seconds)


# Coming back


@pytest.mark.usefixtures("latest")
def test_the_bound_of_the_delay_doubles_from_half_a_second_to_twenty() -> None:
    server = FakeServer()
    server.fates["websocket"].extend([AWAY] * 8)
    play(stay(server, 300))
    assert gaps(server) == [0.5, 1, 2, 4, 8, 16, 20, 20]


def test_the_delay_is_anywhere_below_its_bound() -> None:
    server = FakeServer()
    server.fates["websocket"].extend([AWAY] * 30)
    play(stay(server, 600))
    late = gaps(server)[6:]
    assert all(0 <= gap <= 20.1 for gap in late)
    assert max(late) - min(late) > 5, "a herd would come back together"


@pytest.mark.usefixtures("latest")
def test_a_connection_that_held_makes_the_next_attempt_an_early_one() -> None:
    server = FakeServer()
    server.fates["websocket"].extend([AWAY] * 4)

    async def story() -> None:
        async with FakeClient(server):
            await passing(7.6)
            server.link.cut()
            await passing(8.1)
            assert gaps(server)[-1] > 8, "it broke at once, so the bound went on"
            await passing(11)
            server.link.cut()
            await passing(1)
            assert len(server.links) == 3

    play(story())


@pytest.mark.parametrize(("asked", "waited"), [(2.4, 2.4), (0, 0), (9_999, 300)])
def test_a_server_that_says_how_long_to_wait_is_obeyed(asked: float, waited: float) -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server):
            await passing(1)
            server.link.say({"type": "closing", "reason": "restart", "retry_after": asked})
            await passing(0.1)
            server.link.cut(4512)
            await passing(600)
            first, second = (time for time, _ in server.attempts)
            assert second - first == pytest.approx(1.1 + waited)

    play(story())


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 3000, 4500, 4512, 4513])
def test_it_comes_back_after_every_other_close(code: int) -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server):
            await passing(1)
            server.link.cut(code)
            await passing(30)
            assert len(server.links) == 2

    play(story())


@pytest.mark.parametrize("code", [4400, 4401, 4403, 4406, 4429, 4499])
def test_it_does_not_come_back_after_4400_to_4499_and_everybody_hears_why(code: int) -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client:
            async with client.subscribe(TOPIC) as events:
                server.publish()
                server.link.say({"type": "closing", "reason": "because"})
                await passing(0.1)
                server.link.cut(code)
                await passing(1_000)
                assert await take(events, 1) == [1], "what came before comes first"
                for attempt in (
                    anext(events),
                    client.publish(TOPIC, "typing"),
                    client.call(TOPIC, "rename"),
                ):
                    with pytest.raises(ConnectionEnded, match=f"{code}: because"):
                        await attempt
                with pytest.raises(ConnectionEnded):
                    client.subscribe("orders.43")
            assert len(server.attempts) == 1

    play(story())


def test_a_stream_ends_for_good_by_the_reason_that_it_was_told() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server, "sse") as client, client.subscribe(TOPIC) as events:
            server.link.say({"type": "closing", "reason": "signed_out"})
            await passing(0.1)
            server.link.cut()
            with pytest.raises(ConnectionEnded, match="4401: signed_out"):
                await anext(events)

    play(story())


# Which transport


def test_a_websocket_that_is_blocked_gives_way_to_a_stream_and_is_tried_again() -> None:
    server = FakeServer()
    server.fates["websocket"].extend([BLOCKED, BLOCKED])

    async def story() -> None:
        async with FakeClient(server) as client, client.subscribe(TOPIC) as events:
            assert client.transport == "sse"
            server.publish(count=3)
            await passing(310)
            assert client.transport == "sse"
            server.publish(count=3)
            await passing(310)
            assert client.transport == "websocket"
            server.publish(count=3)
            assert await take(events, 9) == list(range(1, 10))
        assert names(server) == ["websocket", "sse", "websocket", "websocket"]

    play(story())


def test_a_change_of_transport_loses_and_repeats_nothing() -> None:
    server = FakeServer()
    server.fates["websocket"].append(BLOCKED)

    async def story() -> None:
        async with FakeClient(server) as client, client.subscribe(TOPIC) as events:
            await passing(299.9)
            for _ in range(100):
                server.publish()
                await passing(0.003)
            assert client.transport == "websocket"
            assert [link.is_closed for link in server.links] == [True, False]
            assert await take(events, 100) == list(range(1, 101))

    play(story())


def test_a_stream_that_breaks_is_opened_again_without_asking_for_a_websocket_each_time() -> None:
    server = FakeServer()
    server.fates["websocket"].append(BLOCKED)

    async def story() -> None:
        async with FakeClient(server):
            for _ in range(3):
                await passing(30)
                server.link.cut()
            server.fates["sse"].append(AWAY)
            await passing(30)
        # Once the stream fails too, the network may be another one.
        assert names(server) == ["websocket", "sse", "sse", "sse", "sse", "websocket"]

    play(story())


def test_a_server_that_is_away_is_not_asked_twice() -> None:
    server = FakeServer()
    server.fates["websocket"].extend([AWAY, AWAY])
    play(stay(server, 30))
    assert names(server) == ["websocket"] * 3


def test_who_is_refused_is_not_refused_again_over_another_transport() -> None:
    server = FakeServer()
    server.fates["websocket"].append(LinkClosed(4401, "signed out"))

    async def story() -> None:
        async with FakeClient(server) as client:
            with pytest.raises(ConnectionEnded, match="4401: signed out"):
                await anext(client.subscribe(TOPIC))

    play(story())
    assert names(server) == ["websocket"]


@pytest.mark.parametrize(("status", "code"), [(401, 4401), (403, 4403)])
def test_a_refusal_that_may_be_a_proxys_ends_it_at_the_beginning_alone(
    status: int, code: int
) -> None:
    server = FakeServer()
    fate = LinkClosed(1006, f"HTTP {status}", blocked=True, status=status)

    async def story() -> None:
        server.fates["websocket"].append(fate)
        async with FakeClient(server) as client, client.subscribe(TOPIC) as events:
            assert client.transport == "sse"
            server.fates["sse"].append(fate)
            server.fates["websocket"].append(fate)
            server.link.cut()
            server.publish()
            assert await take(events, 1) == [1], "it came back"
        server.fates["websocket"].append(fate)
        server.fates["sse"].append(fate)
        async with FakeClient(server) as client:
            with pytest.raises(ConnectionEnded, match=f"{code}: HTTP {status}"):
                await anext(client.subscribe(TOPIC))

    play(story())


def test_a_url_where_nothing_is_ends_it_but_only_at_the_beginning() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server, "websocket"):
            await passing(1)
            server.fates["websocket"].append(NOT_FOUND)
            server.link.cut()
            await passing(60)
            assert len(server.links) == 2, "a site that is being changed"
        server.fates["websocket"].append(NOT_FOUND)
        server.fates["sse"].append(NOT_FOUND)
        async with FakeClient(server) as client:
            with pytest.raises(ConnectionEnded, match="4404: HTTP 404; check the URL"):
                await anext(client.subscribe(TOPIC))

    play(story())


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_the_one_transport_that_was_asked_for_is_the_only_one(transport: Transport) -> None:
    server = FakeServer()
    server.fates[transport].extend([BLOCKED, BLOCKED])
    play(stay(server, 600, transport))
    assert names(server) == [transport] * 3


# Silence


class Hanging:
    """A socket, and a response, from which nothing comes."""

    async def recv(self) -> str:
        await passing(10_000)
        raise AssertionError

    async def send(self, text: str) -> None:
        raise AssertionError

    async def aiter_bytes(self) -> Any:
        await passing(10_000)
        yield b""


def test_thirty_five_seconds_of_silence_end_a_link() -> None:
    async def silent(link: Any, waiting: Any) -> None:
        link._socket = Hanging()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(LinkClosed, match="nothing came for 35 s") as caught:
            await waiting
        assert loop.time() - begun == pytest.approx(35)
        assert (caught.value.code, caught.value.blocked) == (1006, False)

    address = FakeClient(FakeServer())._address
    websocket, stream = WebSocketLink(address), StreamLink(address)
    play(silent(websocket, websocket.run()))
    play(silent(stream, stream._follow(Hanging())))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["call", "publish"])
def test_a_command_over_http_has_as_long_as_over_a_websocket(kind: str) -> None:
    """No limit for the answer, but for whatever has to happen before."""
    asked: list[httpx.Request] = []
    heard: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"type": "ok", "id": 1})

    async def story() -> None:
        link = StreamLink(FakeClient(FakeServer())._address)
        link._http = httpx.AsyncClient(transport=httpx.MockTransport(answer), timeout=5)
        link._hear = heard.append
        link.send({"type": kind, "id": 1, "topic": TOPIC})
        await asyncio.gather(*link._posts)
        await link.close()

    play(story())
    assert heard == [{"type": "ok", "id": 1}]
    assert asked[0].url.path.endswith("/send")
    assert asked[0].extensions["timeout"] == {"connect": 10, "read": None, "write": 10, "pool": 10}


def test_the_welcome_says_how_long_silence_is_and_a_close_follows_soon() -> None:
    silence = Silence()
    silence.heed({"type": "welcome", "heartbeat": 50})
    assert silence.seconds == 60
    silence.heed({"type": "event"})
    assert silence.seconds == 60
    silence.heed({"type": "closing"})
    assert silence.seconds == 5


# Commands


def test_a_command_waits_for_the_connection_for_ten_seconds() -> None:
    server = FakeServer()
    server.fates["websocket"].append(LinkClosed(1006, "away", retry_after=9))

    async def story() -> None:
        async with FakeClient(server) as client:
            await client.publish(TOPIC, "typing", {"by": "Ada"})
            (frame,) = server.sent
            assert (frame["event"], frame["data"]) == ("typing", {"by": "Ada"})
            server.fates["websocket"].append(LinkClosed(1006, "away", retry_after=20))
            server.link.cut(retry_after=0)
            await passing(0.1)
            with pytest.raises(ConnectionEnded, match="the command was not sent"):
                await client.publish(TOPIC, "typing")
        assert len(server.sent) == 1

    play(story())


def test_a_command_without_an_answer_may_have_run_and_is_not_repeated() -> None:
    server = FakeServer()
    server.answer = lambda frame: None

    async def story() -> None:
        async with FakeClient(server) as client:
            calling = asyncio.create_task(client.call(TOPIC, "rename"))
            await passing(1)
            server.link.cut()
            with pytest.raises(AnswerLost) as caught:
                await calling
            assert (caught.value.command, caught.value.topic) == ("call", TOPIC)
            await passing(60)
        assert len(server.sent) == 1

    play(story())


def test_a_command_for_which_there_was_no_room_is_repeated_five_times_at_most() -> None:
    server = FakeServer()
    busy = {"type": "error", "code": "busy", "message": "wait", "retry": True}
    server.answer = lambda f: busy if len(server.sent) < 3 else {"type": "result", "data": 7}

    async def story() -> None:
        async with FakeClient(server) as client:
            assert await client.call(TOPIC, "rename") == 7
            assert len(server.sent) == 3
            server.answer = lambda frame: busy
            with pytest.raises(CommandRefused, match="busy: wait") as caught:
                await client.call(TOPIC, "rename")
            assert caught.value.retry
            assert len(server.sent) == 8

    play(story())


def test_a_command_that_comes_after_the_announcement_of_a_close_waits_for_the_next_one() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client:
            await passing(1)
            server.link.say({"type": "closing", "reason": "restart", "retry_after": 1})
            await passing(0.1)
            publishing = asyncio.create_task(client.publish(TOPIC, "typing"))
            await passing(0.1)
            assert server.sent == [], "it would not be read"
            server.link.cut(4512)
            await publishing
        assert len(server.sent) == 1

    play(story())


def test_a_refused_command_is_not_repeated() -> None:
    server = FakeServer()
    server.answer = lambda frame: {"type": "error", "code": "forbidden", "message": "no"}

    async def story() -> None:
        async with FakeClient(server) as client:
            with pytest.raises(CommandRefused, match="forbidden: no"):
                await client.publish(TOPIC, "typing")
        assert len(server.sent) == 1

    play(story())


def test_a_frame_that_was_too_large_to_be_read_is_the_largest_one() -> None:
    server = FakeServer()
    server.answer = lambda frame: None

    async def story() -> None:
        async with FakeClient(server) as client:
            small = asyncio.create_task(client.call(TOPIC, "rename", "x"))
            large = asyncio.create_task(client.call(TOPIC, "rename", "x" * 100_000))
            await passing(1)
            server.link.say({"type": "error", "code": "too_large", "message": "less"})
            with pytest.raises(CommandRefused, match="too_large: less"):
                await large
            server.link.say({"type": "result", "id": server.sent[0]["id"], "data": 1})
            assert await small == 1

    play(story())


def test_a_command_that_is_cancelled_leaves_nothing_behind() -> None:
    server = FakeServer()
    server.answer = lambda frame: None

    async def story() -> None:
        async with FakeClient(server) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await client.call(TOPIC, "rename")
            assert client._commands._open == {}
            server.link.say({"type": "result", "id": server.sent[0]["id"], "data": 1})
            await passing(1)

    play(story())


def test_a_command_that_makes_no_sense_is_not_sent() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client:
            with pytest.raises(InvalidTopicName):
                await client.publish("or ders", "typing")
            with pytest.raises(InvalidEventName):
                await client.publish(TOPIC, "ty ping")
            with pytest.raises(DataNotSerializable, match=r"data\['at'\]\[1\]"):
                await client.call(TOPIC, "rename", {"at": [1, object()]})
        assert server.sent == []

    play(story())


# Its life


def test_a_client_is_used_once_and_inside_its_block() -> None:
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
        with pytest.raises(RuntimeError, match="make another one"):
            async with client:
                raise AssertionError("it was entered")

    play(story())


def test_cancelling_who_uses_a_client_ends_everything() -> None:
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


def test_a_fault_of_the_client_is_raised_and_not_hidden(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer()

    async def story() -> None:
        client = FakeClient(server)
        client._make_link = lambda name: 1 / 0  # type: ignore[assignment, method-assign, return-value]
        async with client:
            with pytest.raises(ZeroDivisionError):
                await anext(client.subscribe(TOPIC))

    play(story())
    assert "the client failed" in caplog.text
