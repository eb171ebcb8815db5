"""The `auth` frame: the permission checks before its answer, and commands at the same time.

The consumer and the hub are real, the socket is not; tests control how long permission checks take.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User

from realtime import Topic, publish, register
from realtime.auth import Identity, users
from realtime.exceptions import StoreUnavailable
from realtime.hub import Hub
from realtime.testing import RealtimeClient
from realtime.topics import isolated
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db

ADA, BO = User(pk=1, username="ada"), User(pk=2, username="bo")
TOPICS = 40  # all checks wait for each other, so checking one by one would never end

Connect = Callable[..., RealtimeClient]


async def authenticate(scope: Any, token: str | None) -> Any:
    """Read a token: a user's name, and optionally its topics."""
    name, _, topics = (token or "").partition(" ")
    user = {"ada": ADA, "bo": BO}.get(name)
    return Identity(user, topics.split(",") if topics else None)


class Gate:
    """Permission checks wait here, on the hub's loop, until the test opens it."""

    def __init__(self) -> None:
        self.waiting = 0
        self._open = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def wait(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.waiting += 1
        await self._open.wait()

    def open(self) -> None:
        wait_until(lambda: self.waiting, "a check waits at the gate")
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._open.set)


class Gates:
    """The gates of a test, by the user's name and a topic's key or `info`."""

    def __init__(self) -> None:
        self.by_name: dict[tuple[str, Any], Gate] = {}

    def add(self, name: str, what: Any) -> Gate:
        return self.by_name.setdefault((name, what), Gate())

    async def wait(self, user: Any, what: Any) -> None:
        if gate := self.by_name.get((user.username, what)):
            await gate.wait()


@pytest.fixture
def gates(settings: Any) -> Iterator[Gates]:
    """Topics that Ada may follow; Bo may follow those with even keys."""
    settings.REALTIME = {"AUTHENTICATE": f"{__name__}.authenticate"}
    gates = Gates()
    with isolated():

        @register("gated.<int:pk>")
        class GatedTopic(Topic):
            pk: int

            async def can_subscribe(self, user: Any) -> bool:
                await gates.wait(user, self.pk)
                return user.username == "ada" or self.pk % 2 == 0

        @register("hall.<int:pk>")
        class HallTopic(GatedTopic):
            presence = True

            async def member_info(self, user: Any) -> str:
                await gates.wait(user, "info")
                return str(user.username)

        yield gates


def frames_until(client: RealtimeClient, type: str, id: int | None = None) -> list[dict[str, Any]]:
    """Return the next frames, up to one with this type and id."""
    frames = [client.receive_frame()]
    while frames[-1]["type"] != type or frames[-1].get("id") != id:
        frames.append(client.receive_frame())
    return frames


def ping(client: RealtimeClient) -> list[dict[str, Any]]:
    """Return the frames that have arrived so far."""
    client.send_frame({"type": "ping", "id": 99})
    return frames_until(client, "pong", 99)[:-1]


def kinds(frames: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(frame["type"], frame.get("topic")) for frame in frames]


def test_topics_are_checked_concurrently(gates: Gates, realtime_connect: Connect) -> None:
    client = realtime_connect(ADA)
    gate = gates.by_name[("bo", 1)] = Gate()
    for pk in range(1, TOPICS + 1):
        gates.by_name[("bo", pk)] = gate
        client.subscribe(f"gated.{pk}")
    client.send_frame({"type": "auth", "id": 1, "token": "bo"})
    wait_until(lambda: gate.waiting == TOPICS, "all checks run while none has finished")
    assert ping(client) == []
    gate.open()
    answers = kinds([client.receive_frame() for _ in range(2 + TOPICS // 2)])
    assert answers[:2] == [("ok", None), ("welcome", None)]
    assert set(answers[2:]) == {("unsubscribed", f"gated.{pk}") for pk in range(1, TOPICS, 2)}


def test_no_forbidden_event_follows_the_answer(gates: Gates, realtime_connect: Connect) -> None:
    client = realtime_connect(ADA)
    gate = gates.add("bo", 2)
    for pk in (1, 2):
        client.subscribe(f"gated.{pk}")
    client.send_frame({"type": "auth", "id": 1, "token": "bo"})
    wait_until(lambda: gate.waiting, "the last check runs")
    publish("gated.1", "changed")
    assert kinds(ping(client)) == [("event", "gated.1")], "it still has its old identity"
    gate.open()
    assert kinds(frames_until(client, "ok", 1)) == [("ok", None)]
    publish("gated.1", "changed")
    publish("gated.2", "changed")
    expected = [("welcome", None), ("unsubscribed", "gated.1"), ("event", "gated.2")]
    assert kinds(ping(client)) == expected


def test_a_subscribe_that_ends_during_the_checks_is_checked_too(
    gates: Gates, realtime_connect: Connect
) -> None:
    client = realtime_connect(ADA)
    client.subscribe("gated.2")
    subscribing, checking = gates.add("ada", 3), gates.add("bo", 2)
    client.send_frame({"type": "subscribe", "id": 1, "topic": "gated.3"})
    client.send_frame({"type": "auth", "id": 2, "token": "bo"})
    wait_until(lambda: checking.waiting, "the other topic is checked")
    subscribing.open()
    assert kinds(frames_until(client, "subscribed", 1)) == [("subscribed", "gated.3")]
    checking.open()
    expected = [("ok", None), ("welcome", None), ("unsubscribed", "gated.3")]
    assert kinds([client.receive_frame() for _ in expected]) == expected
    publish("gated.3", "changed")
    assert ping(client) == []


def test_a_topic_that_is_unsubscribed_during_the_checks_is_not_withdrawn_later(
    gates: Gates, realtime_connect: Connect
) -> None:
    client = realtime_connect(ADA)
    client.subscribe("gated.1")
    gate = gates.add("bo", 1)
    client.send_frame({"type": "unsubscribe", "id": 1, "topic": "gated.1"})
    client.receive_frame("unsubscribed")
    client.subscribe("gated.1")
    client.send_frame({"type": "auth", "id": 2, "token": "bo"})
    client.send_frame({"type": "unsubscribe", "id": 3, "topic": "gated.1"})
    client.send_frame({"type": "subscribe", "id": 4, "topic": "gated.1"})
    gate.open()
    frames = frames_until(client, "error", 4)
    assert [(frame["type"], frame.get("id")) for frame in frames] == [
        ("ok", 2),
        ("welcome", None),
        ("unsubscribed", None),
        ("unsubscribed", 3),
        ("error", 4),
    ]


def test_a_failing_presence_does_not_undo_a_withdrawal(
    gates: Gates, realtime_connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Hub, topic: Topic) -> None:
        raise StoreUnavailable("the test", "it is down")

    client = realtime_connect(ADA)
    for topic in ("hall.2", "gated.1"):
        client.subscribe(topic)
    ping(client)
    monkeypatch.setattr(Hub, "follow_presence", fail)
    client.send_frame({"type": "auth", "id": 1, "token": "bo hall.2"})
    frames = frames_until(client, "closing")
    assert kinds(frames) == [
        ("ok", None),
        ("welcome", None),
        ("unsubscribed", "gated.1"),
        ("closing", None),
    ], "one answer, and a close after which the client reconnects"
    assert frames[-1]["reason"] == "failed"


def test_the_member_changes_to_the_user_of_the_token(
    gates: Gates, realtime_connect: Connect
) -> None:
    client, other = realtime_connect(ADA), realtime_connect(BO)
    client.subscribe("hall.2")
    client.receive_frame("members")
    client.send_frame({"type": "auth", "id": 1, "token": "bo"})
    client.receive_frame("members")
    assert [member.user for member in other.members("hall.2")] == ["2"]
    client.unsubscribe("hall.2")
    assert other.members("hall.2") == []


def test_the_member_of_a_pending_subscribe_is_the_user_of_the_token(
    gates: Gates, realtime_connect: Connect
) -> None:
    client, other = realtime_connect(ADA), realtime_connect(BO)
    gate = gates.add("ada", "info")
    client.send_frame({"type": "subscribe", "id": 1, "topic": "hall.2"})
    wait_until(lambda: gate.waiting, "it is about to become a member")
    client.send_frame({"type": "auth", "id": 2, "token": "bo"})
    assert kinds(frames_until(client, "welcome")) == [("ok", None), ("welcome", None)]
    gate.open()
    frames = frames_until(client, "members")
    assert kinds(frames) == [("subscribed", "hall.2"), ("members", "hall.2")]
    assert [member.user for member in other.members("hall.2")] == ["2"]
    client.unsubscribe("hall.2")
    assert other.members("hall.2") == []


def test_the_expiry_of_the_old_token_is_cancelled_when_the_new_one_is_valid(
    gates: Gates, realtime_connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[Any] = []
    lock = threading.Lock()

    class Expiry:
        def __init__(self, identity: Identity, expired: Callable[[], None]) -> None:
            self.user = identity.user
            with lock:
                running.append(self)

        def cancel(self) -> None:
            with lock:
                if self in running:
                    running.remove(self)

    monkeypatch.setattr(users, "Expiry", Expiry)
    client = realtime_connect(ADA)
    client.subscribe("gated.2")
    assert [one.user for one in running if one.user] == [ADA]
    gate = gates.add("bo", 2)
    client.send_frame({"type": "auth", "id": 1, "token": "bo"})
    wait_until(lambda: gate.waiting, "the topic is checked")
    assert [one.user for one in running] == [BO]
    gate.open()
    frames_until(client, "welcome")
    assert [one.user for one in running] == [BO]
