"""Random events, clients and slices: every client gets each event once and in order.

Two topics, their clients and a flusher, against a model of what each client has to receive.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.hub.recent import EventFrame
from realtime.hub.subscribers import Subscribers
from realtime.protocol.encoders import Frame
from realtime.protocol.events import Cursor, Event
from realtime.writers import flusher as module
from tests.writers.support import FakeWriter, ManualLoop, connect, texts

TOPICS, CLIENTS = 2, 6
LIMIT = 600  # some six events, so that buffers are full at times
WRITES = 3  # in a slice, so that a write pass over all clients needs several


class Topic(Subscribers):
    """A topic whose log is a list; its position is the length of the list."""

    def __init__(self, scene: "Scene", name: str) -> None:
        super().__init__(scene.flusher)
        self.name = name
        self.log: list[Frame] = []
        self.typed = 0

    @property
    def position(self) -> Cursor:
        return Cursor("e", len(self.log), 0)

    @property
    def pushed_until(self) -> int:
        """The number of the last event that was pushed; the rest is in the batch."""
        return len(self.log) - sum(isinstance(frame, EventFrame) for frame in self._batch)

    def publish(self, size: int) -> None:
        before, cursor = self.position, Cursor("e", len(self.log) + 1, 0)
        self.log.append(EventFrame(Event(self.name, "tick", f'"{"x" * size}"', cursor), cursor))
        self.push(self.log[-1], before)

    def type(self) -> None:
        self.typed += 1
        frame = Frame(f'{{"type":"typing","topic":"{self.name}","number":{self.typed:09}}}')
        self.push(frame, self.position)

    def reset(self) -> None:
        self.push_batch()
        before = self.position
        self.log.append(Frame(f'{{"type":"reset","topic":"{self.name}","seq":{before.seq}}}'))
        self.push_reset(self.log[-1], before)


class Follower:
    """A client's subscription to one topic.

    Attributes:
        position: from where it catches up when it is behind; None while it is live or away.
        got: what it has to have received in earlier subscriptions.
    """

    def __init__(self, topic: Topic, client: "Client") -> None:
        self.topic = topic
        self.client = client
        self.writer = client.writer
        self.position: int | None = None
        self.got: list[str] = []
        self.begin = 0
        self.follows = False

    def push(self, frame: Frame) -> bool:
        return self.client.connection.push(frame)

    def fall_behind(self, position: Cursor) -> None:
        assert self.position is None, "once"
        assert self.follows
        self.position = position.seq

    def follow(self) -> None:
        if not self.follows:
            self.follows, self.begin = True, len(self.topic.log)
            self.topic.add_live(self)

    def catch_up(self) -> None:
        """Receive the rest of the log as in a replay, and go live again."""
        if self.position is not None and not self.writer.unsent:
            for frame in self.topic.log[self.position :]:
                self.writer.write(frame)
            self.position = None
            self.topic.add_live(self)

    def expected(self) -> list[str]:
        """Return what it has to have received of the log, while no write pass is in progress."""
        if not self.follows:
            return self.got
        end = self.topic.pushed_until if self.position is None else self.position
        return self.got + [frame.text for frame in self.topic.log[self.begin : end]]

    def leave(self) -> None:
        if self.follows:
            self.topic.remove_live(self)
            self.got = self.expected()
            self.follows, self.position = False, None

    def check(self, seen: list[str]) -> None:
        mine = [text for text in seen if f'"topic":"{self.topic.name}"' in text]
        typed = [text for text in mine if '"typing"' in text]
        assert typed == sorted(set(typed))
        assert [text for text in mine if '"typing"' not in text] == self.expected()


class Client:
    def __init__(self, scene: "Scene") -> None:
        self.writer = FakeWriter(scene.loop, cost=module.SLICE_SECONDS / WRITES)
        self.connection = connect(scene.flusher, self.writer, LIMIT)
        self.answers: list[str] = []
        self.followers = [Follower(topic, self) for topic in scene.topics]

    def answer(self) -> None:
        self.answers.append(f'{{"type":"pong","id":{len(self.answers)}}}')
        self.writer.write(Frame(self.answers[-1]))

    def seen(self) -> list[str]:
        """Return all that was written to it or is queued."""
        queued = [frame.text for piece in self.writer.queue for frame in piece.frames]
        return texts(self.writer.data) + queued

    def check(self) -> None:
        """Check that the client has received all it has to, and nothing else."""
        if not self.writer.broken:
            seen = self.seen()
            for follower in self.followers:
                follower.check(seen)
            assert [text for text in seen if '"pong"' in text] == self.answers


class Scene:
    def __init__(self) -> None:
        self.loop = ManualLoop()
        self.flusher = self.loop.flusher()
        self.topics = [Topic(self, f"t.{number}") for number in range(TOPICS)]
        self.clients = [Client(self) for _ in range(CLIENTS)]
        self.passes = 0

    def play(self, act: str, topic: int, client: int, number: int) -> None:
        one, of = self.clients[client], self.topics[topic]
        match act:
            case "publish":
                of.publish(number)
            case "type":
                of.type()
            case "reset":
                of.reset()
            case "answer":
                one.answer()
            case "turn":
                self.turn()
            case "follow":
                one.followers[topic].follow()
            case "leave":
                one.followers[topic].leave()
            case "stop":
                one.writer.kernel = number
            case "read":
                one.writer.read(number * 10)
            case "catch up":
                one.followers[topic].catch_up()
            case "break":
                one.writer.broken = True
            case "compare":
                of.queue_pending()
                for each in self.clients:
                    if not each.writer.broken:
                        each.followers[topic].check(each.seen())
        for each in self.clients:
            left = LIMIT - each.writer.unsent
            assert each.writer.closed or each.writer.available <= left
            assert not each.writer.queue or each.writer.send_direct is None

    def turn(self) -> None:
        self.loop.turn()
        self.passes += self.flusher._pass is not None

    def end(self) -> None:
        """Send everything to everyone, and check that nothing is left."""
        for _ in range(100):
            self.loop.turns()
            for client in self.clients:
                client.writer.read(10_000)
                for follower in client.followers:
                    follower.catch_up()
            if not self.loop.callbacks:
                break
        for client in self.clients:
            client.check()
            assert client.writer.unsent == 0
            assert client.writer.broken or all(f.position is None for f in client.followers)


@contextmanager
def small() -> Iterator[None]:
    """Read the clock at each second write, and treat a piece for four clients as bulk."""
    with mock.patch.multiple(module, CLOCK_EVERY=2, BULK_CLIENTS=4):
        yield


ACTS = ["turn", "turn", "publish", "publish", "type", "answer", "read", "stop", "catch up"]
ACTS += ["follow", "leave", "compare", "reset", "break"]
STEPS = st.tuples(
    st.sampled_from(ACTS),
    st.integers(0, TOPICS - 1),
    st.integers(0, CLIENTS - 1),
    st.integers(0, 150),
)


@settings(max_examples=400, deadline=None)
@given(following=st.integers(0, 2 ** (TOPICS * CLIENTS) - 1), steps=st.lists(STEPS, max_size=60))
def test_each_client_receives_all_events_of_its_topics_once_and_in_order(
    following: int, steps: list[Any]
) -> None:
    with small():
        scene = Scene()
        followers = [follower for client in scene.clients for follower in client.followers]
        for number, follower in enumerate(followers):
            client = follower.client.writer.become_ready()
            assert client.send_direct
            if following & (1 << number):
                follower.follow()
        for step in steps:
            scene.play(*step)
        scene.end()


def test_the_model_interrupts_write_passes() -> None:
    with small():
        scene = Scene()
        for client in scene.clients:
            client.writer.become_ready()
            client.followers[0].follow()
        scene.play("publish", 0, 0, 10)
        scene.turn()
        assert scene.passes == 1
        scene.play("leave", 0, 5, 0)
        assert [len(client.writer.queue) for client in scene.clients] == [0, 0, 0, 0, 1, 1]
        scene.end()
