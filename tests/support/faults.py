"""A channel layer that drops, repeats, delays and reorders, and a client that checks what it gets."""

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any

from channels.layers import BaseChannelLayer

from realtime.events import Cursor


class FaultyLayer(BaseChannelLayer):
    """Delivers each group message as the next of its fates says: a delay for each copy.

    An empty fate drops the message; two delays deliver it twice; unequal delays of two messages
    reorder them. Without fates everything arrives at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fates: deque[Sequence[float]] = deque()
        self.groups: dict[str, set[str]] = defaultdict(set)
        self.queues: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self.join_delay = 0.0

    async def new_channel(self, prefix: str = "specific") -> str:
        name = f"{prefix}.faulty!{len(self.queues)}"
        self.queues[name] = asyncio.Queue()
        return name

    async def receive(self, channel: str) -> dict[str, Any]:
        return await self.queues[channel].get()

    async def group_add(self, group: str, channel: str) -> None:
        # Like a real one, it may return before the joining takes effect.
        asyncio.get_running_loop().call_later(self.join_delay, self.groups[group].add, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        self.groups[group].discard(channel)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        for delay in self.fates.popleft() if self.fates else (0.0,):
            asyncio.get_running_loop().call_later(delay, self._deliver, group, message)

    def _deliver(self, group: str, message: dict[str, Any]) -> None:
        for channel in self.groups[group]:
            self.queues[channel].put_nowait(message)


class View:
    """What one client sees of one topic, checked frame by frame against the promise.

    After `subscribed` or `reset` the next event continues the cursor that they gave, each event
    continues the one before, and nothing else comes.
    """

    def __init__(self, truth: Callable[[Cursor], str | None]) -> None:
        self.truth = truth
        self.position: Cursor | None = None
        self.resets = 0
        self.replayed = 0
        self.seen: dict[int, Cursor] = {}  # by seq, since the last reset

    def subscribed(self, cursor: Cursor, recovered: bool | None, replayed: int) -> None:
        assert self.position is None, "subscribed twice"
        self.position = cursor
        self.seen = {cursor.seq: cursor}
        self.replayed = replayed
        if recovered is False:
            self.resets += 1

    def take(self, text: str) -> None:
        frame = json.loads(text)
        if frame["type"] == "heartbeat":
            return
        assert self.position is not None, f"before subscribed: {frame}"
        if frame["type"] == "reset":
            self.position = Cursor.parse(frame["cursor"])
            self.seen = {self.position.seq: self.position}
            self.resets += 1
            return
        assert frame["type"] == "event"
        if "cursor" not in frame:
            return
        cursor = Cursor.parse(frame["cursor"])
        assert cursor.epoch == self.position.epoch, "a new life of the log without a reset"
        assert cursor.seq == self.position.seq + 1, f"{self.position} was followed by {cursor}"
        assert frame["seq"] == cursor.seq
        assert frame["data"] == self.truth(cursor), "the event is not the one that was appended"
        self.seen[cursor.seq] = cursor
        self.position = cursor
