"""Wake-ups, and the loop that sends them, across forks and exits too."""

import asyncio
import concurrent.futures
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from channels.layers import BaseChannelLayer
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from realtime import broadcast
from realtime.broadcast import MESSAGE_BYTES, WAKEUP_TYPE, Wakeup, abroadcast, adopt_loop
from realtime.protocol.events import Cursor, Event
from realtime.stores.base import Appended
from tests.support.waiting import SCALE, await_until, wait_until

ROOT = Path(__file__).resolve().parent.parent
TOPIC = "orders.42"


def event(seq: int | None, json: str = "1", topic: str = TOPIC) -> Event:
    cursor = None if seq is None else Cursor("epoch", seq, 1000 + seq)
    return Event(topic, "shipped", json, cursor, None if seq is None else 1.5, "origin")


def wakeup(*seqs: int | None, topic: str = TOPIC, json: str = "1") -> Wakeup:
    stored = [seq for seq in seqs if seq is not None]
    previous = 1000 + stored[0] - 1 if stored else None
    return Wakeup(topic, previous, tuple(event(seq, json, topic) for seq in seqs))


class RecordingLayer(BaseChannelLayer):
    """Records what is sent to groups; a test can make it wait or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, Wakeup]] = []
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.begun = 0
        self.open = threading.Event()
        self.open.set()
        self.error: Exception | None = None

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        self.begun += 1
        self.loops.add(asyncio.get_running_loop())
        await await_until(self.open.is_set, "the layer is open", timeout=60)
        if self.error is not None:
            raise self.error
        self.sent.append((group, Wakeup.from_message(message)))

    def wakeups(self, topic: str = TOPIC) -> list[Wakeup]:
        return [sent for _, sent in self.sent if sent.topic == topic]

    def seqs(self, topic: str = TOPIC) -> list[int | None]:
        return [event.seq for sent in self.wakeups(topic) for event in sent.events]


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingLayer]:
    """A recording layer, and a sender for this test alone."""
    layer = RecordingLayer()
    monkeypatch.setattr(broadcast, "get_layer", lambda: layer)
    broadcast._publisher.reset()
    yield layer
    layer.open.set()
    layer.error = None
    wait_until(lambda: not broadcast._publisher.pending, "everything is sent")
    sender = broadcast._publisher.sender
    if sender is not None and sender.loop.is_running():
        sender.loop.call_soon_threadsafe(sender.loop.stop)
        wait_until(sender.loop.is_closed, "the loop of this test is closed")
    broadcast._publisher.reset()


# Names and messages


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_a_group_name_is_valid_and_belongs_to_one_topic(first: str, second: str) -> None:
    name = broadcast.group_name(first)
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,99}", name)
    assert BaseChannelLayer().require_valid_group_name(name)
    assert (name == broadcast.group_name(second)) == (first == second)


def test_two_sites_have_different_groups_for_a_topic() -> None:
    names = {broadcast.group_name(TOPIC)}
    for key in ("production", "staging"):
        with override_settings(SECRET_KEY=key):
            assert broadcast.group_name(TOPIC) == broadcast.group_name(TOPIC)
            names.add(broadcast.group_name(TOPIC))
    assert len(names) == 3


def test_every_group_of_the_package_has_a_keyed_name() -> None:
    """A second way to name a group would have to be keyed too."""
    package = ROOT / "realtime"
    code = [path for path in package.rglob("*.py") if path.parent.name != "layers"]
    used = [
        (path.name, argument)
        for path in code
        for argument in re.findall(r"\.group_(?:add|discard|send)\((\w*)", path.read_text())
    ]
    assert sorted(used) == [("broadcast.py", "group_name")] + [("hub.py", "group_name")] * 2


EVENTS = st.lists(st.tuples(st.booleans(), st.integers(1, 30)), min_size=1, max_size=30)


def built(events: list[tuple[bool, int]]) -> Wakeup:
    seq, made = 4, []
    for stored, size in events:
        seq += stored
        made.append(event(seq if stored else None, "x" * size))
    previous = 1004 if any(stored for stored, _ in events) else None
    return Wakeup(TOPIC, previous, tuple(made))


@given(EVENTS)
def test_a_wakeup_is_unchanged_after_serialisation(events: list[tuple[bool, int]]) -> None:
    original = built(events)
    message = original.to_message()
    assert message["type"] == WAKEUP_TYPE
    assert Wakeup.from_message(msgpack.unpackb(msgpack.packb(message))) == original


@given(EVENTS, st.integers(1, 100))
def test_the_parts_of_a_wakeup_are_bounded_and_contiguous(
    events: list[tuple[bool, int]], limit: int
) -> None:
    original = built(events)
    parts = original.split(limit)
    assert tuple(event for part in parts for event in part.events) == original.events
    assert all(part.size <= limit or len(part.events) == 1 for part in parts)
    last = original.previous
    for part in parts:
        if part.last is not None:
            assert part.previous == last
            last = part.last


def test_a_wakeup_has_the_events_of_an_append() -> None:
    events = (event(5), event(6))
    made = Wakeup.of(TOPIC, Appended(Cursor("epoch", 4, 1004), events, kept=6))
    assert made == Wakeup(TOPIC, 1004, events)


# Sending


def test_a_publisher_returns_when_its_wakeup_is_sent(layer: RecordingLayer) -> None:
    broadcast.broadcast([wakeup(1), wakeup(1, topic="orders.7")])
    assert layer.wakeups() == [wakeup(1)]
    assert layer.wakeups("orders.7") == [wakeup(1, topic="orders.7")]
    assert {group for group, _ in layer.sent} == {
        broadcast.group_name(TOPIC),
        broadcast.group_name("orders.7"),
    }


def test_a_wakeup_without_events_is_not_sent(layer: RecordingLayer) -> None:
    broadcast.broadcast([Wakeup(TOPIC, 1004, ())])
    broadcast.broadcast([])
    asyncio.run(abroadcast([]))
    assert layer.sent == []


def test_a_coroutine_can_announce_events(layer: RecordingLayer) -> None:
    asyncio.run(abroadcast([wakeup(1), wakeup(2)]))
    assert layer.seqs() == [1, 2]


def test_waiting_wakeups_become_one_message_in_order(layer: RecordingLayer) -> None:
    layer.open.clear()
    broadcast.broadcast([wakeup(1)])
    wait_until(lambda: layer.begun, "the first is being sent")
    broadcast.broadcast([wakeup(2), wakeup(3, 4), wakeup(None), wakeup(5)])
    layer.open.set()
    wait_until(lambda: len(layer.sent) == 2, "both messages are sent")
    assert layer.wakeups() == [wakeup(1), wakeup(2, 3, 4, None, 5)]


def test_wakeups_that_are_not_contiguous_are_sent_separately(layer: RecordingLayer) -> None:
    layer.open.clear()
    broadcast.broadcast([wakeup(1)])
    wait_until(lambda: layer.begun, "the first is being sent")
    broadcast.broadcast([wakeup(2), wakeup(None), wakeup(4), wakeup(3)])
    layer.open.set()
    wait_until(lambda: len(layer.sent) == 4, "all messages are sent")
    assert layer.wakeups() == [wakeup(1), wakeup(2, None), wakeup(4), wakeup(3)]


def test_a_merged_message_has_the_predecessor_of_its_first_stored_event(
    layer: RecordingLayer,
) -> None:
    layer.open.clear()
    broadcast.broadcast([wakeup(1)])
    wait_until(lambda: layer.begun, "the first is being sent")
    broadcast.broadcast([wakeup(None), wakeup(2), wakeup(3)])
    layer.open.set()
    wait_until(lambda: len(layer.sent) == 2, "both messages are sent")
    assert layer.wakeups()[1] == wakeup(None, 2, 3)
    assert layer.wakeups()[1].previous == 1001


def test_messages_are_bounded(layer: RecordingLayer) -> None:
    layer.open.clear()
    broadcast.broadcast([wakeup(1)])
    wait_until(lambda: layer.begun, "the first is being sent")
    big = "x" * (MESSAGE_BYTES // 3)
    broadcast.broadcast([wakeup(*range(2, 9), json=big), wakeup(9, json=big), wakeup(10)])
    layer.open.set()
    wait_until(lambda: len(layer.seqs()) == 10, "everything is sent")
    assert all(sent.size <= MESSAGE_BYTES for sent in layer.wakeups())
    assert layer.seqs() == list(range(1, 11))


def test_concurrent_publishers_keep_the_order_of_a_topic(layer: RecordingLayer) -> None:
    lock, numbers = threading.Lock(), iter(range(1, 401))

    def publish() -> None:
        for _ in range(50):
            with lock:  # the store numbers them under a lock too
                made = wakeup(next(numbers))
                futures = broadcast._start([made])
            concurrent.futures.wait(futures, 10)

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert layer.seqs() == list(range(1, 401))


def test_topics_beyond_the_limit_are_sent_later(layer: RecordingLayer) -> None:
    layer.open.clear()
    for number in range(broadcast.CONCURRENT_TOPICS + 3):
        broadcast._start([wakeup(1, topic=f"orders.{number}")])
    wait_until(lambda: layer.begun == broadcast.CONCURRENT_TOPICS, "the limit is reached")
    layer.open.set()
    wait_until(lambda: len(layer.sent) == broadcast.CONCURRENT_TOPICS + 3, "all are sent")


# A layer that fails


def test_a_publisher_does_not_wait_for_a_layer_that_hangs(layer: RecordingLayer) -> None:
    layer.open.clear()
    publishing = threading.Thread(target=broadcast.broadcast, args=[[wakeup(1)]], daemon=True)
    publishing.start()
    publishing.join(10 * SCALE)
    assert not publishing.is_alive(), "the publisher waits for the layer"
    assert layer.sent == []

    async def publish() -> None:
        async with asyncio.timeout(10 * SCALE):
            await abroadcast([wakeup(2)])

    asyncio.run(publish())
    assert layer.sent == []
    layer.open.set()
    wait_until(lambda: layer.seqs() == [1, 2], "they are sent when the layer is back")


def test_a_send_that_hangs_times_out(
    layer: RecordingLayer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(broadcast, "SEND_SECONDS", 0.05)
    layer.open.clear()
    broadcast.broadcast([wakeup(1)])
    wait_until(lambda: not broadcast._publisher.pending, "the send has timed out")
    layer.open.set()
    broadcast.broadcast([wakeup(2)])
    wait_until(lambda: layer.seqs() == [2], "the next is sent")


def test_a_layer_that_fails_is_logged_once_and_again_when_it_is_back(
    layer: RecordingLayer, caplog: pytest.LogCaptureFixture
) -> None:
    layer.error = ConnectionError("no layer")
    for seq in range(1, 5):
        broadcast.broadcast([wakeup(seq)])
    wait_until(lambda: not broadcast._publisher.pending, "the sends have failed")
    layer.error = None
    broadcast.broadcast([wakeup(5)])
    wait_until(lambda: layer.seqs() == [5], "the next is sent")
    broadcast.broadcast([wakeup(6)])
    assert sum("the channel layer fails" in message for message in caplog.messages) == 1
    assert sum("layer is back" in message for message in caplog.messages) == 1


def test_a_layer_that_cannot_be_created_does_not_break_the_publisher(
    layer: RecordingLayer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Any:
        raise ImportError("no such backend")

    monkeypatch.setattr(broadcast, "get_layer", fail)
    broadcast.broadcast([wakeup(1)])
    wait_until(lambda: "the channel layer fails" in caplog.text, "it is logged")


def test_wakeups_beyond_the_limit_are_dropped(
    layer: RecordingLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "WAITING_WAKEUPS", 3)
    layer.open.clear()
    broadcast._start([wakeup(1)])
    wait_until(lambda: layer.begun, "the first is being sent")
    futures = broadcast._start([wakeup(seq) for seq in range(2, 9)])
    concurrent.futures.wait(futures[2:], 10 * SCALE)
    assert [future.done() for future in futures] == [False, False, True, True, True, True, True]
    layer.open.set()
    wait_until(lambda: layer.seqs() == [1, 2, 3], "the queued ones are sent")
    broadcast.broadcast([wakeup(9)])
    assert layer.seqs()[-1] == 9


# Loops


def test_publishers_share_one_lasting_loop(layer: RecordingLayer) -> None:
    broadcast.broadcast([wakeup(1)])
    thread = threading.Thread(target=broadcast.broadcast, args=[[wakeup(2)]])
    thread.start()
    thread.join()
    asyncio.run(abroadcast([wakeup(3)]))
    assert layer.seqs() == [1, 2, 3]
    assert len(layer.loops) == 1


def test_an_adopted_loop_sends_while_it_runs(layer: RecordingLayer) -> None:
    async def serve() -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        adopt_loop(loop)
        sender = broadcast._publisher.sender
        adopt_loop(loop)
        assert broadcast._publisher.sender is sender, (
            "a new sender could overtake the queue of the old one"
        )
        await abroadcast([wakeup(1)])
        await asyncio.to_thread(broadcast.broadcast, [wakeup(2)])
        broadcast.broadcast([wakeup(3)])  # on the loop itself it does not wait
        await await_until(lambda: layer.seqs() == [1, 2, 3], "the third is sent")
        return loop

    loop = asyncio.run(serve())
    assert layer.loops == {loop}
    broadcast.broadcast([wakeup(4)])
    assert layer.seqs() == [1, 2, 3, 4]
    assert len(layer.loops) == 2


def test_the_layer_is_the_projects_or_a_private_one() -> None:
    memory = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with override_settings(CHANNEL_LAYERS=memory):
        assert type(broadcast.get_layer()).__name__ == "InMemoryChannelLayer"
    own = broadcast.get_layer()
    assert type(own).__name__ == "DatabaseChannelLayer"
    assert broadcast.get_layer() is own
    with override_settings(REALTIME={}):
        assert broadcast.get_layer() is not own


# Processes

LISTEN = """
    import asyncio, sys
    from realtime.broadcast import group_name
    from realtime.layers.database import DatabaseChannelLayer

    async def listen():
        layer = DatabaseChannelLayer()
        channel = await layer.new_channel()
        await layer.group_add(group_name("orders.42"), channel)
        print("ready", flush=True)
        while True:
            message = await layer.receive(channel)
            print(*(json for _, json, *_ in message["events"]), flush=True)

    asyncio.run(listen())
"""

PUBLISH = """
    import os, sys
    from realtime.broadcast import Wakeup, broadcast
    from realtime.protocol.events import Event

    def publish(text):
        broadcast([Wakeup("orders.42", None, (Event("orders.42", "typing", f'"{text}"'),))])
"""

SLOW = """
    from realtime.layers.database import DatabaseChannelLayer
    import asyncio

    at_once = DatabaseChannelLayer.group_send

    async def group_send(self, group, message):
        await asyncio.sleep(0.4)  # longer than a publisher waits
        await at_once(self, group, message)

    DatabaseChannelLayer.group_send = group_send
"""


def start(*parts: str) -> "subprocess.Popen[str]":
    setup = "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'\n"
    setup += "import django; django.setup()\n"
    code = setup + "\n".join(textwrap.dedent(part) for part in parts)
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def run(*parts: str) -> None:
    with start(*parts) as process:
        process.communicate(timeout=30 * SCALE)
    assert process.returncode == 0


@pytest.fixture
def listener(transactional_db: None) -> Iterator["subprocess.Popen[str]"]:
    """Another process, which prints the wake-ups that it receives."""
    process = start(LISTEN)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def next_line(listener: "subprocess.Popen[str]") -> str:
    """Return the next line; after a timeout, kill the listener and return an empty one."""
    assert listener.stdout is not None
    guard = threading.Timer(20 * SCALE, listener.kill)
    guard.start()
    try:
        return listener.stdout.readline().strip()
    finally:
        guard.cancel()


@pytest.mark.parametrize("slow", [False, True], ids=["layer", "slow layer"])
def test_the_wakeup_of_a_process_that_exits_at_once_arrives(
    listener: "subprocess.Popen[str]", slow: bool
) -> None:
    run(PUBLISH, SLOW if slow else "", "publish('goodbye')")
    assert next_line(listener) == '"goodbye"'


def test_a_forked_child_publishes_with_its_own_loop(
    listener: "subprocess.Popen[str]",
) -> None:
    forking = """
        from realtime import broadcast as module

        publish("parent")
        with module._publisher.lock, module._layer_lock:  # another thread may hold them
            pid = os.fork()
            if pid == 0:
                publish("child")
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert status == 0
        publish("parent again")
    """
    run(PUBLISH, forking)
    assert [next_line(listener) for _ in range(3)] == ['"parent"', '"child"', '"parent again"']
