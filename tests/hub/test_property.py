"""The promise under a hostile channel layer: every view is contiguous, or reset exactly once.

Runs on virtual time, so seconds of head checks and delays cost nothing.
The store is slow, and fails at times, so that everything can happen during a read.
"""

import copy
import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from realtime.exceptions import StoreError
from realtime.protocol.events import Cursor
from realtime.stores.base import Retention
from tests.hub.support import TOPIC, Client, Scene

EXAMPLES = int(os.environ.get("REALTIME_TEST_EXAMPLES", "150"))
QUIET_SECONDS = 20.0  # several head checks, after which every repair is done
BUFFER_BYTES = 2_000  # some ten events, so that slow clients really fall behind
DELAYS = [0.0, 0.004, 0.03, 0.4, 6.0]


class HubMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene()
        self.store = self.scene.store
        self.clients: list[Client] = []
        self.allowed: dict[Client, int] = {}  # resets that the events of the test explain
        self.cursors: list[Cursor] = []  # of clients that disconnected
        self.echoes = 0  # restored backups; wake-ups from before may still arrive
        self.snapshot: Any = None

    @initialize(
        join_delay=st.sampled_from([0.0, 0.1]),
        channel_delay=st.sampled_from([0.0, 0.05]),
        before=st.sampled_from([0.0, 0.002, 0.02]),
        after=st.sampled_from([0.0, 0.002, 0.02]),
    )
    def start(self, join_delay: float, channel_delay: float, before: float, after: float) -> None:
        self.scene.close()
        self.scene = Scene(channel_delay=channel_delay)
        self.store = self.scene.store
        self.scene.layer.join_delay = join_delay
        self.store.before, self.store.after = before, after

    # What publishers do

    @rule(
        count=st.integers(1, 12),
        fates=st.lists(st.lists(st.sampled_from(DELAYS), max_size=2), max_size=4),
        together=st.booleans(),
    )
    def publish(self, count: int, fates: list[list[float]], together: bool) -> None:
        async def announce() -> None:
            self.scene.layer.fates.extend(fates)
            for size in [count] if together else [1] * count:
                await self.scene.announce(self.scene.append(size))
            self.scene.layer.fates.clear()

        self.scene.run(announce())

    @rule()
    def publish_ephemeral(self) -> None:
        self.scene.ephemeral()

    # What happens to the log

    @rule(keep=st.integers(0, 8))
    def trim(self, keep: int) -> None:
        # A client that is behind may find a gap, and need one reset.
        if self.store.trim(TOPIC, Retention(keep, 1e9)):
            self.disrupt()

    @rule()
    def take_backup(self) -> None:
        self.snapshot = copy.deepcopy(self.store._logs)

    @precondition(lambda self: self.snapshot is not None)
    @rule()
    def restore_backup(self) -> None:
        self.store._logs = copy.deepcopy(self.snapshot)
        # Twice, since a wake-up of an event that the backup lacks may still arrive and seem to
        # continue the log. That can also happen to clients that connect later.
        self.disrupt(2)
        self.echoes += 1

    @rule()
    def delete(self) -> None:
        self.store.delete(TOPIC)
        self.disrupt()

    @rule()
    def new_epoch(self) -> None:
        self.store.renew(TOPIC, self.scene.head.epoch)
        self.disrupt()

    def disrupt(self, resets: int = 1) -> None:
        for client in self.allowed:
            self.allowed[client] += resets

    # What clients do

    @rule(last=st.none() | st.integers(0, 20))
    def connect(self, last: int | None) -> None:
        self.join(None, last)

    @precondition(lambda self: self.cursors)
    @rule(data=st.data())
    def resume(self, data: Any) -> None:
        self.join(data.draw(st.sampled_from(self.cursors)), None)

    @precondition(lambda self: self.cursors)
    @rule(data=st.data(), count=st.integers(2, 6))
    def resume_together(self, data: Any, count: int) -> None:
        cursor = data.draw(st.sampled_from(self.cursors))
        clients = [self.make_client() for _ in range(count)]
        for client in clients:
            self.scene.loop.create_task(self.subscribe(client, cursor, None))

    @rule(seq=st.integers(0, 30), tag=st.integers(0, 2**32 - 1))
    def resume_with_a_forged_cursor(self, seq: int, tag: int) -> None:
        head = self.scene.head
        forged = Cursor(head.epoch, seq, tag)
        client = self.join(forged, None)
        if forged != head and self.scene.truth(forged) is None and not self.store.failing:
            assert client.view.resets >= 1
        if not self.echoes:
            assert self.scene.head.epoch == head.epoch, "a client's cursor started a new epoch"

    @rule()
    def resume_since_a_moment(self) -> None:
        self.join(0.0, None)

    def make_client(self) -> Client:
        client = self.scene.connect(BUFFER_BYTES)
        self.clients.append(client)
        self.allowed[client] = 1 + self.echoes
        return client

    async def subscribe(self, client: Client, since: Any, last: int | None) -> None:
        try:
            await client.subscribe(since, last)
        except StoreError:
            self.forget(client)  # it gets an error, and would try again

    def join(self, since: Any, last: int | None) -> Client:
        client = self.make_client()
        self.scene.run(self.subscribe(client, since, last))
        return client

    def forget(self, client: Client) -> None:
        if client in self.clients:
            self.clients.remove(client)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def disconnect(self, data: Any) -> None:
        client = data.draw(st.sampled_from(self.clients))
        self.forget(client)
        if TOPIC in client.views and client.view.position is not None:
            self.cursors.append(client.view.position)
        self.scene.leave(client)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def stop_reading(self, data: Any) -> None:
        data.draw(st.sampled_from(self.clients)).gate.clear()

    @rule()
    def read_on(self) -> None:
        for client in self.clients:
            client.gate.set()

    # What happens to the store and the layer

    @rule(seconds=st.sampled_from([0.01, 1.0, 8.0]))
    def lose_the_store_for_a_while(self, seconds: float) -> None:
        self.store.failing = True
        self.scene.loop.call_later(seconds, setattr, self.store, "failing", False)

    @rule()
    def lose_the_connection_to_the_layer(self) -> None:
        self.scene.layer.break_receive()

    # Time

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.3, 3.0, 70.0]))
    def advance(self, seconds: float) -> None:
        self.scene.advance(seconds)
        self.drop_closed()

    def drop_closed(self) -> None:
        for client in [c for c in self.clients if c.closed]:
            self.forget(client)  # too slow: it would reconnect with its cursor

    @rule()
    def settle_and_compare(self) -> None:
        self.settle()

    def settle(self) -> None:
        for client in self.clients:
            client.gate.set()
        self.scene.advance(QUIET_SECONDS)
        self.promise_is_kept()
        self.drop_closed()
        self.echoes = 0
        head = self.scene.head
        kept = self.store.read(TOPIC, self.store.locate(TOPIC, last=10**6), limit=10**6).events
        for client in self.clients:
            for event in kept:
                assert event.cursor is not None
                seen = client.view.seen.get(event.cursor.seq, event.cursor)
                assert seen == event.cursor, "the view continues an old epoch of the log"
            assert client.view.position == head, "the client is behind the log"
            assert client.view.resets <= self.allowed[client], "reset more often than needed"
        for live in self.scene.hub.topics.values():
            assert (live._early, live._reads, live._repair_task) == ({}, {}, None), (
                "a topic still has work to do"
            )

    @invariant()
    def promise_is_kept(self) -> None:
        if self.scene.broken:
            raise self.scene.broken[0]

    @invariant()
    def buffers_are_bounded(self) -> None:
        for client in self.clients:
            assert client.most_unsent <= BUFFER_BYTES

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.scene.close()


TestHubMachine = HubMachine.TestCase
TestHubMachine.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    # Without the explain phase, which runs a failing example hundreds of times more.
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
