"""The bytes that all clients of a process have not read, together."""

import logging

import pytest

from realtime.hub.slow_clients import LOG_SECONDS
from realtime.protocol.frames import CloseCode
from tests.hub.support import Client, Scene

SIZE = 1_000
ROUND = 1_200  # more than an event of SIZE takes on the wire


def stall(scene: Scene, topic: str = "public.property") -> Client:
    """Return a client that has stopped reading."""
    client = scene.join(topic=topic)
    client.gate.clear()
    return client


def unsent(*clients: Client) -> int:
    return sum(client.connection.writer.unsent for client in clients)


def test_no_client_is_closed_while_the_unsent_bytes_are_within_the_limit(scene: Scene) -> None:
    clients = [stall(scene) for _ in range(10)]
    scene.publish(20, size=SIZE)
    scene.hub.slow_clients.limit = unsent(*clients)
    scene.advance(3.0)
    assert scene.hub.slow_clients.unsent == unsent(*clients) > 10 * 20 * SIZE
    assert [client.closed for client in clients] == [[]] * 10


def test_beyond_the_limit_the_slowest_clients_are_closed_until_the_rest_is_below_it(
    scene: Scene,
) -> None:
    reader = scene.join()
    stalled = []
    for _ in range(10):  # each has missed one event more than the next one
        stalled.append(stall(scene))
        scene.publish(size=SIZE)
        scene.advance(0.6)
    scene.hub.slow_clients.limit = unsent(*stalled[4:])
    scene.advance(0.6)
    assert [client.closed for client in stalled[:4]] == [[int(CloseCode.SLOW)]] * 4
    assert [client.closed for client in stalled[4:]] == [[]] * 6
    scene.publish(3)
    for client in (reader, *stalled[4:]):
        client.gate.set()
    scene.advance(0.6)
    assert reader.seqs() == list(range(1, 14))
    assert [client.seqs()[-1] for client in stalled[4:]] == [13] * 6
    assert not reader.closed


def test_a_client_that_reads_slowly_is_closed_after_one_that_reads_nothing(scene: Scene) -> None:
    stopped, slow = stall(scene, "public.a"), stall(scene, "public.b")
    scene.publish(20, topic="public.a", size=SIZE)
    scene.publish(25, topic="public.b", size=SIZE)
    for _ in range(8):
        scene.advance(0.25)
        slow.gate.set()
        scene.loop.call_soon(slow.gate.clear)
        scene.advance(0.0)
        scene.publish(1, topic="public.b", size=SIZE)
    assert unsent(stopped) > 0
    assert unsent(slow) > 0
    scene.hub.slow_clients.limit = max(unsent(stopped), unsent(slow))
    scene.advance(0.6)
    assert stopped.closed == [int(CloseCode.SLOW)]
    assert not slow.closed


def test_many_clients_with_few_bytes_stay_and_one_with_many_is_closed(scene: Scene) -> None:
    phones = [stall(scene, "public.a") for _ in range(20)]
    scene.publish(1, topic="public.a", size=SIZE)
    scene.advance(60.0)
    glutton = stall(scene, "public.b")
    scene.publish(500, topic="public.b", size=SIZE)
    scene.advance(5.0)
    scene.hub.slow_clients.limit = unsent(*phones) + ROUND
    scene.advance(0.6)
    assert glutton.closed == [int(CloseCode.SLOW)]
    assert not any(phone.closed for phone in phones)


def test_a_client_that_reads_a_burst_is_not_closed_for_those_that_read_nothing(
    scene: Scene,
) -> None:
    reader = stall(scene)
    scene.publish(10, size=SIZE)
    stalled = [stall(scene) for _ in range(6)]
    scene.publish(25, size=SIZE)  # beyond the limit at once, and the reader has most to read
    slow, now = scene.hub.slow_clients, scene.loop.time()
    slow.limit = 36 * ROUND
    scene.run(check(scene, now))
    reader.gate.set()  # reads one event
    reader.gate.clear()
    scene.advance(0.001)
    assert not any(client.closed for client in (reader, *stalled))
    assert unsent(reader) > 0
    scene.run(check(scene, now + 0.25))
    assert not reader.closed
    assert len([client for client in stalled if client.closed]) >= 5


async def check(scene: Scene, now: float) -> None:
    scene.hub.slow_clients.check(now)


def test_clients_that_take_their_bytes_at_once_are_not_visited(scene: Scene) -> None:
    clients = [scene.join() for _ in range(10)]
    scene.publish(20, size=SIZE)
    assert all(len(client.seqs()) == 20 for client in clients)
    assert not scene.hub.flusher.behind


def test_a_client_that_has_read_everything_is_visited_once_more_at_most(scene: Scene) -> None:
    client = stall(scene)
    scene.publish(5, size=SIZE)
    scene.advance(0.6)
    assert scene.hub.flusher.behind == {client.connection.writer}
    client.gate.set()
    scene.advance(0.6)
    assert not scene.hub.flusher.behind
    assert scene.hub.slow_clients.unsent == 0


def test_a_connection_that_ended_is_not_counted(scene: Scene) -> None:
    client = stall(scene)
    scene.publish(5, size=SIZE)
    scene.leave(client)
    assert not scene.hub.flusher.behind


def test_closed_clients_are_logged_once_a_minute_with_their_number(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "realtime")
    scene.hub.slow_clients.limit = 1
    for _ in range(3):
        clients = [stall(scene), stall(scene)]
        scene.publish(size=SIZE)
        scene.advance(0.6)
        assert all(client.closed for client in clients)
    assert [record.getMessage()[:21] for record in caplog.records] == ["closed 2 slow clients"]
    scene.advance(LOG_SECONDS)
    assert [record.getMessage()[:21] for record in caplog.records[1:]] == ["closed 4 slow clients"]
    assert "more than 1 bytes were unsent" in caplog.records[1].getMessage()
    assert 'REALTIME["LIMITS"]["total_buffer_bytes"]' in caplog.records[1].getMessage()
