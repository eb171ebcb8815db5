"""When connections are checked for silence, and what ends a silence."""

import pytest

from realtime.hub.heartbeats import CHECK_SECONDS, SILENT_SECONDS
from realtime.hub.jobs import TICK_SECONDS
from realtime.protocol.encoders import Wire
from realtime.protocol.frames import HEARTBEAT_SECONDS
from tests.hub.support import TOPIC, Scene


def test_the_longest_silence_is_shorter_than_the_protocol_says() -> None:
    assert SILENT_SECONDS[1] + CHECK_SECONDS + TICK_SECONDS < HEARTBEAT_SECONDS


def test_a_connection_is_checked_once_for_each_heartbeat(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = scene.join()
    checks = 0
    kind = type(client.connection)
    last_write = kind.last_write

    def counted(self: object) -> float:
        nonlocal checks
        checks += 1
        return last_write(client.connection)

    monkeypatch.setattr(kind, "last_write", counted)
    scene.advance(100.0)
    assert 4 <= checks <= 5
    assert [frame["type"] for frame in client.frames] == ["heartbeat"] * checks


def test_clients_that_receive_the_same_events_are_not_all_due_together(scene: Scene) -> None:
    herd = [scene.join() for _ in range(200)]
    for _ in range(3):
        scene.publish(1)  # which all receive at the same time
        scene.advance(15.0)
    most = max(map(len, scene.hub.heartbeats._due.values()))
    assert sum(map(len, scene.hub.heartbeats._due.values())) == len(herd)
    assert most <= len(herd) / 4


def test_an_event_of_a_write_pass_ends_the_silence(scene: Scene) -> None:
    client = scene.join()
    writer = client.connection.writer
    sent: list[bytes] = []

    def send(data: bytes) -> int:
        sent.append(data)
        return len(data)

    for _ in range(6):
        writer.send_direct, writer.wire_format = send, Wire.WEBSOCKET
        scene.publish(1)
        scene.advance(15.0)
    assert len(sent) == 6
    assert client.frames == [], "neither events nor heartbeats went through the queue"


def test_events_pushed_to_other_clients_do_not_end_the_silence(scene: Scene) -> None:
    """A client that has fallen behind does not receive what is pushed to the live ones."""
    client, other = scene.join(limit=500), scene.join()
    client.gate.clear()
    scene.publish(5, size=300)
    assert client.connection.subscriptions[TOPIC] not in scene.live.live
    client.connection.writer.last_flush = 0.0
    scene.advance(5.0)
    scene.publish(1)
    assert client.connection.last_write() == 0.0
    assert other.connection.last_write() > 4.0
    client.gate.set()
    scene.advance(1.0)


def test_nothing_is_kept_of_an_ended_connection(scene: Scene) -> None:
    client, other = scene.join(), scene.join()
    scene.advance(30.0)
    for one in (client, other):
        one.connection.end()
        one.connection.end()
    assert not any(scene.hub.heartbeats._due.values())
