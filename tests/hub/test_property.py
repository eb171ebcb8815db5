"""The promise under a hostile channel layer: every view is contiguous, or reset exactly once.

Runs on virtual time, so that seconds of head checks and delays cost nothing.
"""

import asyncio
import copy
import json
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from realtime.broadcast import Wakeup, group_name
from realtime.events import Cursor, Draft
from realtime.hub.connection import Connection, Subscription
from realtime.hub.hub import Hub
from realtime.stores.base import Retention
from realtime.stores.memory import MemoryStore
from realtime.topics import resolve
from realtime.writers.asgi import AsgiWriter
from tests.support.faults import FaultyLayer, View
from tests.support.virtual_time import VirtualTimeLoop

TOPIC = "public.property"
QUIET_SECONDS = 20.0  # several head checks: everything that repairs itself has done so
BUFFER_BYTES = 2_000  # some ten events, so that slow clients really fall behind


class QuietHub(Hub):
    """A hub without the jobs that need a database."""

    async def _relay(self) -> None:
        pass

    async def _trim(self) -> None:
        pass


class Client:
    """A connection on a socket that can be stopped, and the views that it had."""

    def __init__(self, machine: "HubMachine") -> None:
        self.machine = machine
        self.view = View(machine.truth)
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.closed: list[int] = []
        self.disruptions = machine.disruptions
        self.connection = Connection(
            machine.hub, None, AsgiWriter(self.send), BUFFER_BYTES, self.close
        )

    async def send(self, message: Any) -> None:
        await self.open_gate.wait()
        if message["type"] == "websocket.send":
            try:
                self.view.take(message["text"])
            except AssertionError as broken:  # a writer takes an exception for a client that left
                self.machine.broken.append(broken)

    def close(self, code: Any) -> None:
        self.closed.append(code)
        self.connection.end()

    async def subscribe(self, since: Any, last: int | None) -> None:
        live = await self.machine.hub.follow(resolve(TOPIC))
        subscription = Subscription(self.connection, live)
        await subscription.start(since, last, True, self.view.subscribed)


class HubMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.appended: dict[tuple[int, int], str] = {}
        self.broken: list[AssertionError] = []
        self.clients: list[Client] = []
        self.cursors: list[Cursor] = []  # that clients had when they went away
        self.disruptions = 0
        self.snapshot: Any = None
        self.count = 0

    @initialize(join_delay=st.sampled_from([0.0, 0.1]))
    def start(self, join_delay: float) -> None:
        async def make() -> None:
            self.store = MemoryStore()
            self.layer = FaultyLayer()
            self.layer.join_delay = join_delay
            self.hub = QuietHub(self.store, self.layer)
            self.hub.start()

        self.run(make())

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def truth(self, cursor: Cursor) -> str | None:
        return self.appended.get((cursor.seq, cursor.tag))  # a new epoch keeps both

    # What publishers do

    @rule(
        count=st.integers(1, 12),
        fates=st.lists(
            st.lists(st.sampled_from([0.0, 0.004, 0.03, 0.4, 6.0]), max_size=2), max_size=4
        ),
        together=st.booleans(),
    )
    def publish(self, count: int, fates: list[list[float]], together: bool) -> None:
        async def announce() -> None:
            self.layer.fates.extend(fates)
            sizes = [count] if together else [1] * count
            for size in sizes:
                drafts = []
                for _ in range(size):
                    self.count += 1
                    drafts.append(Draft("tick", json.dumps(f"event {self.count}")))
                appended = self.store.append(TOPIC, drafts)
                self.note()
                wakeup = Wakeup.of(TOPIC, appended)
                await self.layer.group_send(group_name(TOPIC), wakeup.to_message())
            self.layer.fates.clear()

        self.run(announce())

    @rule()
    def publish_ephemeral(self) -> None:
        from realtime.events import Event

        wakeup = Wakeup(TOPIC, None, (Event(TOPIC, "typing", "1"),))
        self.run(self.layer.group_send(group_name(TOPIC), wakeup.to_message()))

    def note(self) -> None:
        """Remember what the log says."""
        page = self.store.read(TOPIC, self.store.locate(TOPIC, last=10**6), limit=10**6)
        for event in page.events:
            assert event.cursor is not None
            self.appended[event.cursor.seq, event.cursor.tag] = event.data

    # What happens to the log

    @rule(keep=st.integers(0, 8))
    def trim(self, keep: int) -> None:
        # It can leave a hole for who is behind, so it may cost one reset.
        if self.store.trim(TOPIC, Retention(keep, 1e9)):
            self.disrupt()

    @rule()
    def take_backup(self) -> None:
        self.snapshot = copy.deepcopy(self.store._logs)

    @precondition(lambda self: self.snapshot is not None)
    @rule()
    def restore_backup(self) -> None:
        self.store._logs = copy.deepcopy(self.snapshot)
        self.disrupt()

    @rule()
    def delete(self) -> None:
        self.store.delete(TOPIC)
        self.disrupt()

    @rule()
    def new_epoch(self) -> None:
        self.store.renew(TOPIC, self.store.heads([TOPIC])[TOPIC].epoch)
        self.note()
        self.disrupt()

    def disrupt(self) -> None:
        self.disruptions += 1

    # What clients do

    @rule(last=st.none() | st.integers(0, 20))
    def connect(self, last: int | None) -> None:
        self.join(None, last)

    @precondition(lambda self: self.cursors)
    @rule(data=st.data())
    def resume(self, data: Any) -> None:
        self.join(data.draw(st.sampled_from(self.cursors)), None)

    @rule(seq=st.integers(0, 30), tag=st.integers(0, 2**32 - 1))
    def resume_with_a_forged_cursor(self, seq: int, tag: int) -> None:
        head = self.store.heads([TOPIC])[TOPIC]
        epochs_before = head.epoch
        client = self.join(Cursor(head.epoch, seq, tag), None)
        forged = Cursor(head.epoch, seq, tag)
        if forged != head and self.truth(forged) is None:
            assert client.view.resets >= 1
        if self.disruptions == 0:
            assert self.store.heads([TOPIC])[TOPIC].epoch == epochs_before

    @rule()
    def resume_since_a_moment(self) -> None:
        self.join(0.0, None)

    def join(self, since: Any, last: int | None) -> Client:
        client = self.run(self.make_client())
        self.clients.append(client)
        self.run(client.subscribe(since, last))
        return client

    async def make_client(self) -> Client:
        return Client(self)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def disconnect(self, data: Any) -> None:
        client = data.draw(st.sampled_from(self.clients))
        self.clients.remove(client)
        self.leave(client)

    def leave(self, client: Client) -> None:
        if client.view.position is not None:
            self.cursors.append(client.view.position)

        async def end() -> None:
            client.open_gate.set()
            client.connection.end()

        self.run(end())

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def stop_reading(self, data: Any) -> None:
        data.draw(st.sampled_from(self.clients)).open_gate.clear()

    @rule()
    def read_on(self) -> None:
        for client in self.clients:
            client.open_gate.set()

    # Time

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.3, 3.0, 70.0]))
    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)
        for client in [c for c in self.clients if c.closed]:
            self.clients.remove(client)  # too slow: it would come back with its cursor

    @rule()
    def settle_and_compare(self) -> None:
        self.settle()

    def settle(self) -> None:
        for client in self.clients:
            client.open_gate.set()
        self.loop.advance(QUIET_SECONDS)
        self.promise_is_kept()
        self.clients = [c for c in self.clients if not c.closed]
        self.note()
        head = self.store.heads([TOPIC])[TOPIC]
        kept = self.store.read(TOPIC, self.store.locate(TOPIC, last=10**6), limit=10**6).events
        for client in self.clients:
            for event in kept:
                assert event.cursor is not None
                seen = client.view.seen.get(event.cursor.seq, event.cursor)
                assert seen == event.cursor, "the view continues a life of the log that is gone"
            assert client.view.position == head, "wrong silence: the client is behind the log"
            allowed = 1 + self.disruptions - client.disruptions
            assert client.view.resets <= allowed, "reset more often than something happened"

    @invariant()
    def promise_is_kept(self) -> None:
        if self.broken:
            raise self.broken[0]

    @invariant()
    def buffers_are_bounded(self) -> None:
        for client in self.clients:
            assert client.connection.writer.unsent <= 2 * BUFFER_BYTES

    def teardown(self) -> None:
        try:
            if hasattr(self, "hub"):
                self.settle()
                for client in list(self.clients):
                    self.leave(client)
                self.run(self.hub.close())
        finally:
            self.run(self.cancel_rest())
            self.loop.close()

    async def cancel_rest(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


TestHubMachine = HubMachine.TestCase
TestHubMachine.settings = settings(
    max_examples=int(os.environ.get("REALTIME_TEST_EXAMPLES", "200")),
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
