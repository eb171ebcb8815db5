"""A channel layer and a store with configurable faults, and a client that checks its frames."""

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from channels.layers import BaseChannelLayer

from realtime.exceptions import StoreUnavailable
from realtime.protocol.events import Cursor
from realtime.stores.base import READ_BYTES, READ_LIMIT, Page
from realtime.stores.memory import MemoryStore

T = TypeVar("T")


class FaultyLayer(BaseChannelLayer):
    """A channel layer that drops, repeats, delays or reorders messages as configured.

    Attributes:
        fates: for each of the next group messages: the seconds after which a copy is delivered, for
            each copy. An empty sequence drops the message, and two delays deliver it twice. Without
            fates every message is delivered once, at once.
        join_delay: seconds from the return of ``group_add()`` until it takes effect.
        add_delay, discard_delay, channel_delay: seconds that the method takes.
        failing: names of the methods that raise.
        hanging: names of the methods that never return.
        calls: the methods that were called, with their group or channel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fates: deque[Sequence[float]] = deque()
        self.groups: dict[str, set[str]] = defaultdict(set)
        self.queues: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self.join_delay = 0.0
        self.add_delay = 0.0
        self.discard_delay = 0.0
        self.channel_delay = 0.0
        self.failing: set[str] = set()
        self.hanging: set[str] = set()
        self.calls: list[tuple[str, str]] = []

    async def _call(self, method: str, subject: str) -> None:
        self.calls.append((method, subject))
        if method in self.hanging:
            await asyncio.Event().wait()
        if method in self.failing:
            raise ConnectionError(f"{method} fails as configured")

    def called(self, method: str) -> int:
        return sum(1 for name, _ in self.calls if name == method)

    async def new_channel(self, prefix: str = "specific") -> str:
        await self._call("new_channel", prefix)
        if self.channel_delay:
            await asyncio.sleep(self.channel_delay)
        name = f"{prefix}.faulty!{len(self.queues)}"
        self.queues[name] = asyncio.Queue()
        return name

    async def receive(self, channel: str) -> dict[str, Any]:
        await self._call("receive", channel)
        if channel not in self.queues:
            raise ValueError(f"{channel} is not a channel of this process")
        message = await self.queues[channel].get()
        if isinstance(message, dict) and "failure" in message:
            raise ConnectionError(message["failure"])
        return message

    def break_receive(self) -> None:
        """Make every waiting ``receive()`` raise, as when the connection is lost."""
        self.groups.clear()
        for queue in self.queues.values():
            queue.put_nowait({"failure": "the connection was lost"})

    async def group_add(self, group: str, channel: str) -> None:
        await self._call("group_add", group)
        if self.add_delay:
            await asyncio.sleep(self.add_delay)
        # Like a real layer, it can return before the join takes effect.
        if self.join_delay:
            loop = asyncio.get_running_loop()
            loop.call_later(self.join_delay, self.groups[group].add, channel)
        else:
            self.groups[group].add(channel)

    async def group_discard(self, group: str, channel: str) -> None:
        await self._call("group_discard", group)
        if self.discard_delay:
            await asyncio.sleep(self.discard_delay)
        self.groups[group].discard(channel)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await self._call("group_send", group)
        for delay in self.fates.popleft() if self.fates else (0.0,):
            loop = asyncio.get_running_loop()
            if delay:
                loop.call_later(delay, self._deliver, group, message)
            else:
                loop.call_soon(
                    self._deliver, group, message
                )  # timers for the same time have no order

    def _deliver(self, group: str, message: dict[str, Any]) -> None:
        for channel in self.groups[group]:
            self.queues[channel].put_nowait(message)


class SlowStore(MemoryStore):
    """A memory store whose coroutines can be slow or fail; by default they do neither.

    Attributes:
        before, after: seconds for which a coroutine waits before and after it reads the logs.
        failing: whether every coroutine raises.
        calls: the names of the coroutines that were called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before = self.after = 0.0
        self.failing = False
        self.calls: list[str] = []

    async def _slowly(self, method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        self.calls.append(method.__name__)
        after = self.after
        if self.before:
            await asyncio.sleep(self.before)
        if self.failing:
            raise StoreUnavailable("SlowStore", "it fails as configured")
        try:
            return method(*args, **kwargs)
        finally:
            if after:
                await asyncio.sleep(after)

    async def aheads(self, topics: Collection[str]) -> dict[str, Cursor]:
        return await self._slowly(self.heads, topics)

    async def aread(
        self, topic: str, after: Cursor, limit: int = READ_LIMIT, max_bytes: int = READ_BYTES
    ) -> Page:
        return await self._slowly(self.read, topic, after, limit, max_bytes)

    async def alocate(
        self, topic: str, *, last: int | None = None, since: float | None = None
    ) -> Cursor:
        return await self._slowly(self.locate, topic, last=last, since=since)

    async def arenew(self, topic: str, epoch: str) -> Cursor:
        return await self._slowly(self.renew, topic, epoch)

    async def aclock(self) -> float:
        return await self._slowly(self.clock)


class View:
    """A client's view of one topic, which checks each frame against the promise.

    After `subscribed` or `reset` the first event follows their cursor, each further event follows
    the previous one, and there are no other frames.

    Args:
        truth: returns the data of the event at a cursor, as it was appended.
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
        assert self.position is not None, f"a frame before subscribed: {frame}"
        if frame["type"] == "reset":
            self.position = Cursor.parse(frame["cursor"])
            self.seen = {self.position.seq: self.position}
            self.resets += 1
            return
        assert frame["type"] == "event"
        if "cursor" not in frame:
            return
        cursor = Cursor.parse(frame["cursor"])
        assert cursor.epoch == self.position.epoch, "a new epoch without a reset"
        assert cursor.seq == self.position.seq + 1, f"{self.position} was followed by {cursor}"
        assert frame["seq"] == cursor.seq
        assert frame["data"] == self.truth(cursor), "the event is not the one that was appended"
        self.seen[cursor.seq] = cursor
        self.position = cursor
