"""The connector: when the client reconnects, and over which transport."""

import itertools
import random

import pytest

from realtime.client import ConnectionEnded
from realtime.client.connector import Transport
from realtime.client.links import LinkClosed
from tests.client.support import TOPIC, FakeClient, FakeServer, passing, play, take

UNREACHABLE = LinkClosed(1006, "connection refused")
BLOCKED = LinkClosed(1006, "HTTP 400", blocked=True, status=400)
NOT_FOUND = LinkClosed(1006, "HTTP 404", blocked=True, status=404)


@pytest.fixture
def without_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each delay equal to its bound."""
    monkeypatch.setattr(random, "random", lambda: 1.0)


def delays(server: FakeServer) -> list[float]:
    """Return the seconds between the attempts to connect."""
    times = [time for time, _ in server.attempts]
    return [round(b - a, 1) for a, b in itertools.pairwise(times)]


def names(server: FakeServer) -> list[str]:
    return [name for _, name in server.attempts]


async def stay(server: FakeServer, seconds: float, transport: Transport = "auto") -> None:
    async with FakeClient(server, transport):
        await passing(seconds)


# Reconnecting


@pytest.mark.usefixtures("without_jitter")
def test_the_bound_of_the_delay_doubles_from_half_a_second_to_20_seconds() -> None:
    server = FakeServer()
    server.failures["websocket"].extend([UNREACHABLE] * 8)
    play(stay(server, 300))
    assert delays(server) == [0.5, 1, 2, 4, 8, 16, 20, 20]


def test_the_delay_is_random_below_its_bound() -> None:
    server = FakeServer()
    server.failures["websocket"].extend([UNREACHABLE] * 30)
    play(stay(server, 600))
    at_maximum = delays(server)[6:]
    assert all(0 <= delay <= 20.1 for delay in at_maximum)
    assert max(at_maximum) - min(at_maximum) > 5, "many clients would reconnect together"


@pytest.mark.usefixtures("without_jitter")
def test_a_connection_that_lasted_resets_the_backoff() -> None:
    server = FakeServer()
    server.failures["websocket"].extend([UNREACHABLE] * 4)

    async def story() -> None:
        async with FakeClient(server):
            await passing(7.6)
            server.link.cut()
            await passing(8.1)
            assert delays(server)[-1] > 8, "it broke at once, so the backoff continued"
            await passing(11)
            server.link.cut()
            await passing(1)
            assert len(server.links) == 3

    play(story())


@pytest.mark.parametrize(("asked", "waited"), [(2.4, 2.4), (0, 0), (9_999, 300)])
def test_retry_after_of_the_server_is_used_as_the_delay(asked: float, waited: float) -> None:
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


@pytest.mark.parametrize(
    "code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 3000, 4500, 4512, 4513, 4514]
)
def test_the_client_reconnects_after_every_other_close_code(code: int) -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server):
            await passing(1)
            server.link.cut(code)
            await passing(30)
            assert len(server.links) == 2

    play(story())


@pytest.mark.parametrize("code", [4400, 4401, 4403, 4406, 4429, 4499])
def test_the_client_does_not_reconnect_after_4400_to_4499_and_every_call_raises_the_reason(
    code: int,
) -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server) as client:
            async with client.subscribe(TOPIC) as events:
                server.publish()
                server.link.say({"type": "closing", "reason": "because"})
                await passing(0.1)
                server.link.cut(code)
                await passing(1_000)
                assert await take(events, 1) == [1], (
                    "events that arrived before the close are returned first"
                )
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


def test_the_reason_of_a_closing_frame_decides_whether_a_stream_reconnects() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server, "sse") as client, client.subscribe(TOPIC) as events:
            server.link.say({"type": "closing", "reason": "signed_out"})
            await passing(0.1)
            server.link.cut()
            with pytest.raises(ConnectionEnded, match="4401: signed_out"):
                await anext(events)

    play(story())


# Choosing the transport


def test_a_blocked_websocket_is_replaced_by_a_stream_and_tried_again() -> None:
    server = FakeServer()
    server.failures["websocket"].extend([BLOCKED, BLOCKED])

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


def test_a_change_of_transport_loses_and_repeats_no_event() -> None:
    server = FakeServer()
    server.failures["websocket"].append(BLOCKED)

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


def test_a_broken_stream_is_reopened_without_trying_a_websocket_each_time() -> None:
    server = FakeServer()
    server.failures["websocket"].append(BLOCKED)

    async def story() -> None:
        async with FakeClient(server):
            for _ in range(3):
                await passing(30)
                server.link.cut()
            server.failures["sse"].append(UNREACHABLE)
            await passing(30)
        # When the stream fails as well, the network can be a different one.
        assert names(server) == ["websocket", "sse", "sse", "sse", "sse", "websocket"]

    play(story())


def test_a_server_that_is_down_is_not_tried_over_a_second_transport() -> None:
    server = FakeServer()
    server.failures["websocket"].extend([UNREACHABLE, UNREACHABLE])
    play(stay(server, 30))
    assert names(server) == ["websocket"] * 3


def test_a_refused_client_does_not_try_another_transport() -> None:
    server = FakeServer()
    server.failures["websocket"].append(LinkClosed(4401, "signed out"))

    async def story() -> None:
        async with FakeClient(server) as client:
            with pytest.raises(ConnectionEnded, match="4401: signed out"):
                await anext(client.subscribe(TOPIC))

    play(story())
    assert names(server) == ["websocket"]


@pytest.mark.parametrize(("status", "code"), [(401, 4401), (403, 4403)])
def test_a_refusal_that_may_come_from_a_proxy_ends_only_a_client_that_never_connected(
    status: int, code: int
) -> None:
    server = FakeServer()
    failure = LinkClosed(1006, f"HTTP {status}", blocked=True, status=status)

    async def story() -> None:
        server.failures["websocket"].append(failure)
        async with FakeClient(server) as client, client.subscribe(TOPIC) as events:
            assert client.transport == "sse"
            server.failures["sse"].append(failure)
            server.failures["websocket"].append(failure)
            server.link.cut()
            server.publish()
            assert await take(events, 1) == [1], "it reconnected"
        server.failures["websocket"].append(failure)
        server.failures["sse"].append(failure)
        async with FakeClient(server) as client:
            with pytest.raises(ConnectionEnded, match=f"{code}: HTTP {status}"):
                await anext(client.subscribe(TOPIC))

    play(story())


def test_http_404_ends_only_a_client_that_never_connected() -> None:
    server = FakeServer()

    async def story() -> None:
        async with FakeClient(server, "websocket"):
            await passing(1)
            server.failures["websocket"].append(NOT_FOUND)
            server.link.cut()
            await passing(60)
            assert len(server.links) == 2, "it reconnected; the site may be under deployment"
        server.failures["websocket"].append(NOT_FOUND)
        server.failures["sse"].append(NOT_FOUND)
        async with FakeClient(server) as client:
            with pytest.raises(ConnectionEnded, match="4404: HTTP 404; check the URL"):
                await anext(client.subscribe(TOPIC))

    play(story())


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_only_the_requested_transport_is_used(transport: Transport) -> None:
    server = FakeServer()
    server.failures[transport].extend([BLOCKED, BLOCKED])
    play(stay(server, 600, transport))
    assert names(server) == [transport] * 3
