"""What the channel layer keeps in this process: waiting messages, readers and group members.

Nothing here knows the database.
One lock guards everything and is never held while anything is waited for, so that every method can
be called from any thread and any event loop.

A message is kept as its packed bytes: each reader unpacks a copy of its own, and a message that
could not travel to another process is refused here too.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

__all__ = ["LocalChannels", "Waiter"]

SWEEP_SECONDS = 10  # between two looks for channels that nobody reads any more


@dataclass(slots=True, eq=False)
class Waiter:
    """A ``receive()`` that waits.

    Attributes:
        loop: the event loop that it runs in.
        future: done when it shall look into its queue again.
        settled: the database held nothing for its channel after it had begun to wait, so that a
            message handed to it directly overtakes none.
    """

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]
    settled: bool = False

    def wake(self) -> bool:
        """Wake the reader from whichever thread this is; False if its loop is gone."""
        if asyncio._get_running_loop() is self.loop:
            self._done()
            return True
        try:
            self.loop.call_soon_threadsafe(self._done)
        except RuntimeError:  # the loop was closed under its reader
            return False
        return True

    def _done(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


@dataclass(slots=True)
class _Channel:
    """A queue of (deadline, message), those who wait for it, and those who were woken to look."""

    queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    waiters: deque[Waiter] = field(default_factory=deque)
    woken: set[Waiter] = field(default_factory=set)

    def drop_expired(self, now: float) -> bool:
        dropped = False
        while self.queue and self.queue[0][0] <= now:
            self.queue.popleft()
            dropped = True
        return dropped

    def wake_next(self) -> None:
        while self.waiters:
            if self.wake(self.waiters.popleft()):
                return

    def wake(self, waiter: Waiter) -> bool:
        self.woken.add(waiter)
        if waiter.wake():
            return True
        self.woken.discard(waiter)
        return False

    def surplus(self) -> list[bytes]:
        """Remove and return the messages that nobody here is about to read."""
        count = max(0, len(self.queue) - len(self.woken) - len(self.waiters))
        return [self.queue.pop()[1] for _ in range(count)][::-1]


class LocalChannels:
    """The channels and groups of one process.

    Args:
        expiry: seconds that an unread message is kept.
        group_expiry: seconds that a membership lasts after the last ``join()``.
        capacity: tells how many unread messages a channel may hold.
    """

    def __init__(self, expiry: float, group_expiry: float, capacity: Callable[[str], int]) -> None:
        self.expiry = expiry
        self.group_expiry = group_expiry
        self.capacity = capacity
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._shared: set[str] = set()  # channels that other processes may read too
        self._groups: dict[str, dict[str, float]] = {}
        self._swept = time.monotonic()
        self._dropped: list[tuple[str, str]] = []

    # Messages

    def put(self, channel: str, body: bytes) -> bool:
        """Queue a message and wake one reader; False if the channel is full."""
        now = time.monotonic()
        with self._lock:
            self._sweep_if_due(now)
            return self._put(channel, body, now)

    def publish(self, group: str, body: bytes) -> None:
        """Queue a message on every channel of a group; full channels miss it."""
        now = time.monotonic()
        with self._lock:
            self._sweep_if_due(now)
            members = self._groups.get(group)
            for channel, deadline in list(members.items()) if members else ():
                if deadline > now:
                    self._put(channel, body, now)

    def offer(self, channel: str, body: bytes) -> bool:
        """Hand a message of a shared channel to a reader that waits here; False if none does."""
        with self._lock:
            slot = self._channels.get(channel)
            if slot is None or slot.queue:
                return False
            for waiter in slot.waiters:
                if waiter.settled:
                    slot.waiters.remove(waiter)
                    slot.queue.append((time.monotonic() + self.expiry, body))
                    if slot.wake(waiter):
                        return True
                    slot.queue.clear()
                    return False
            return False

    def _put(self, channel: str, body: bytes, now: float) -> bool:
        slot = self._channels.setdefault(channel, _Channel())
        slot.drop_expired(now)
        if len(slot.queue) >= self.capacity(channel):
            return False
        slot.queue.append((now + self.expiry, body))
        slot.wake_next()
        return True

    async def get(
        self,
        channel: str,
        waiting: Callable[[], None],
        give_back: Callable[[bytes], None] | None = None,
    ) -> bytes:
        """Return the channel's next message; wait for one if there is none.

        A message stays queued until its reader really runs, so that a reader that is cancelled
        takes none with it.

        Args:
            channel: its name.
            waiting: called each time that this reader begins to wait.
            give_back: called with a message that this reader was woken for, was cancelled before
                it read it, and nobody else here waits for; given if other processes may read this
                channel too.
        """
        loop, shared = asyncio.get_running_loop(), give_back is not None
        waiter: Waiter | None = None
        while True:
            with self._lock:
                slot = self._channels.setdefault(channel, _Channel())
                if waiter is not None:
                    slot.woken.discard(waiter)
                slot.drop_expired(time.monotonic())
                if slot.queue:
                    _, body = slot.queue.popleft()
                    self._forget_if_empty(channel, slot)
                    return body
                if shared:
                    self._shared.add(channel)
                waiter = Waiter(loop, loop.create_future())
                slot.waiters.append(waiter)
            try:
                waiting()
                await waiter.future
            except BaseException:
                with self._lock:
                    self._give_up(channel, slot, waiter)
                    unread = self._surplus(channel) if shared else []
                if give_back is not None:
                    for body in unread:
                        give_back(body)
                raise

    def _give_up(self, channel: str, slot: _Channel, waiter: Waiter) -> None:
        slot.woken.discard(waiter)
        if waiter in slot.waiters:
            slot.waiters.remove(waiter)
        elif slot.queue:  # it had been woken: what it was woken for is another reader's now
            slot.wake_next()
        self._forget_if_empty(channel, slot)

    def surplus(self, channel: str) -> list[bytes]:
        """Remove and return the messages of a shared channel that nobody here is about to read.

        The readers that they came for were cancelled meanwhile; in another process one may wait.
        """
        with self._lock:
            return self._surplus(channel)

    def _surplus(self, channel: str) -> list[bytes]:
        slot = self._channels.get(channel)
        if slot is None:
            return []
        surplus = slot.surplus()
        self._forget_if_empty(channel, slot)
        return surplus

    def _forget_if_empty(self, channel: str, slot: _Channel) -> None:
        if slot.queue or slot.waiters or slot.woken:
            return
        if self._channels.get(channel) is slot:
            del self._channels[channel]
            self._shared.discard(channel)

    # Groups

    def join(self, group: str, channel: str) -> bool:
        """Make the channel a member until ``group_expiry`` from now; True if it was none."""
        with self._lock:
            members = self._groups.setdefault(group, {})
            new = channel not in members
            members[channel] = time.monotonic() + self.group_expiry
            return new

    def leave(self, group: str, channel: str) -> None:
        """Remove the channel from the group if it is a member."""
        with self._lock:
            members = self._groups.get(group)
            if members is not None and members.pop(channel, None) is not None and not members:
                del self._groups[group]

    def members(self) -> list[tuple[str, str, float]]:
        """Return every (group, channel, seconds left)."""
        now = time.monotonic()
        with self._lock:
            return [
                (group, channel, deadline - now)
                for group, members in self._groups.items()
                for channel, deadline in members.items()
                if deadline > now
            ]

    # For the thread at the database

    def busy(self) -> bool:
        """Tell whether anything here may want a message of another process."""
        with self._lock:
            return bool(self._groups) or any(
                not waiter.loop.is_closed()
                for slot in self._channels.values()
                for waiter in slot.waiters
            )

    def wanted(self) -> dict[str, list[Waiter]]:
        """Return the readers of shared channels for whom no message is queued yet."""
        with self._lock:
            return self._wanted()

    def reserve(self) -> dict[str, list[Waiter]]:
        """Do the same, and hand these readers nothing until they are settled again.

        Otherwise a message that is taken from the database for one of them could find it served,
        and lie here while a reader in another process waits.
        """
        with self._lock:
            wanted = self._wanted()
            for waiters in wanted.values():
                for waiter in waiters:
                    waiter.settled = False
            return wanted

    def _wanted(self) -> dict[str, list[Waiter]]:
        return {
            channel: list(waiters)
            for channel in self._shared
            if (waiters := self._channels[channel].waiters)
        }

    def settle(self, waiters: Iterable[Waiter]) -> None:
        """Note that the database held nothing for these readers after they began to wait."""
        with self._lock:
            for waiter in waiters:
                waiter.settled = True

    def dropped(self) -> list[tuple[str, str]]:
        """Return, once, the (group, channel) pairs that ended because nobody read the channel."""
        now = time.monotonic()
        with self._lock:
            self._sweep_if_due(now)
            dropped, self._dropped = self._dropped, []
            return dropped

    def clear(self) -> None:
        """Forget every message and member; readers go on waiting."""
        with self._lock:
            self._groups.clear()
            self._dropped.clear()
            for channel, slot in list(self._channels.items()):
                slot.queue.clear()
                self._forget_if_empty(channel, slot)

    def _sweep_if_due(self, now: float) -> None:
        """End memberships that ran out, and those of channels on which a message expired unread."""
        if now - self._swept < SWEEP_SECONDS:
            return
        self._swept = now
        dead = set()
        for channel, slot in list(self._channels.items()):
            if slot.drop_expired(now):
                dead.add(channel)
            self._forget_if_empty(channel, slot)
        for group, members in list(self._groups.items()):
            for channel in [c for c, until in members.items() if until <= now or c in dead]:
                del members[channel]
                self._dropped.append((group, channel))
            if not members:
                del self._groups[group]
