"""A poll that is answered while an event is being written to many clients."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from realtime.consumers import poll
from realtime.hub.connection import Connection, Subscription
from realtime.topics import resolve
from realtime.writers import flusher
from tests.consumers.exchange import Web
from tests.hub.support import Scene
from tests.writers.support import FakeWriter, ManualLoop

TOPIC = "room.lobby"  # with presence, so that an answer has a presence cursor too


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    scene = Scene()
    monkeypatch.setattr("realtime.consumers.poll.get_hub", lambda: scene.hub)
    web = Web(scene)
    yield web
    web.close()


async def others(scene: Scene, count: int) -> list[Connection]:
    """Return this many connections that follow the topic."""
    loop, made = ManualLoop(), []
    for _ in range(count):
        writer = FakeWriter(loop)
        connection = Connection(scene.hub, None, writer, 1 << 20, lambda code: None)
        subscription = Subscription(connection, await scene.hub.follow(resolve(TOPIC)))
        await subscription.start(None, None, True, lambda *_: None)
        writer.become_ready()
        made.append(connection)
    return made


def test_an_event_that_is_added_to_the_answer_late_is_in_its_cursor(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flusher, "SLICE_SECONDS", -1.0)  # the smallest slice
    scene = web.scene
    cursor = web.get(f"poll?topic={TOPIC}").json()["cursor"]
    connections = scene.run(others(scene, 200))
    asked = web.open(f"poll?topic={TOPIC}&since={cursor}&wait=25")
    catch_up = poll._Poll._catch_up

    async def and_another_event_begins(self: Any, *args: Any) -> None:
        await catch_up(self, *args)
        if any(frame.is_event for frame in self.writer.frames):
            scene.hub.receive(scene.append(topic=TOPIC))
            for _ in range(2):
                await asyncio.sleep(0)
            assert scene.hub.flusher._pass is not None, "the event is being written"

    monkeypatch.setattr(poll._Poll, "_catch_up", and_another_event_begins)
    scene.publish(topic=TOPIC)
    scene.advance(0.05)
    first = asked.json()
    monkeypatch.setattr(poll._Poll, "_catch_up", catch_up)
    second = web.get(f"poll?topic={TOPIC}&since={first['cursor']}").json()
    seen = [event["seq"] for answer in (first, second) for event in answer["events"]]
    assert seen == [1, 2]
    for connection in connections:
        scene.loop.call_soon(connection.end)
    scene.advance(0.1)
