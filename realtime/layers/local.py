"""The part of the channel layer that is in memory: messages, readers and members of one process.

Nothing here uses the database.
One lock guards everything and is never held during a wait, so every method can be called from any
thread and any event loop.

A message is kept as packed bytes: each reader unpacks its own copy, and a message that could not
travel to another process is refused within a process too.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

__all__ = ["LocalChannels", "Waiter"]

EXPIRE_SECONDS = 10  # between two searches for expired messages and memberships


@dataclass(slots=True, eq=False)
class Waiter:
    """A ``receive()`` that waits for a message.

    Attributes:
        loop: the event loop that it runs in.
        future: done when the reader must look into the channel's queue again.
        caught_up: whether the database held no message for the channel after this reader began to
            wait, so that a message handed to it directly overtakes no other.
    """

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]
    caught_up: bool = False

    def wake(self) -> bool:
        """Wake the reader, from any thread; return False if its loop is closed."""
        if asyncio._get_running_loop() is self.loop:
            self._set_done()
            return True
        try:
            self.loop.call_soon_threadsafe(self._set_done)
        except RuntimeError:  # the loop was closed while the reader waited
            return False
        return True

    def _set_done(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


@dataclass(slots=True)
class _Channel:
    """The messages and readers of one channel.

    Attributes:
        queue: unread messages, each as (deadline, body).
        waiters: the readers that wait.
        woken: the readers that were woken and have not run yet.
    """

    queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    waiters: deque[Waiter] = field(default_factory=deque)
    woken: set[Waiter] = field(default_factory=set)

    def remove_expired(self, now: float) -> bool:
        removed = False
        while self.queue and self.queue[0][0] <= now:
            self.queue.popleft()
            removed = True
        return removed

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

    def take_surplus(self) -> list[bytes]:
        """Remove and return the messages that no reader here is about to read."""
        count = max(0, len(self.queue) - len(self.woken) - len(self.waiters))
        return [self.queue.pop()[1] for _ in range(count)][::-1]


class LocalChannels:
    """The channels and groups of one process.

    Args:
        expiry: seconds after which an unread message expires.
        group_expiry: seconds that a membership lasts after the last ``join()``.
        capacity: returns how many unread messages a channel may hold.
    """

    def __init__(self, expiry: float, group_expiry: float, capacity: Callable[[str], int]) -> None:
        self.expiry = expiry
        self.group_expiry = group_expiry
        self.capacity = capacity
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._shared: set[str] = set()  # the names in _channels that other processes can read too
        self._groups: dict[str, dict[str, float]] = {}  # group to channel to deadline
        self._expired_at = time.monotonic()  # the last search of _expire_if_due()
        self._expired_members: list[tuple[str, str]] = []  # since the last take_expired_members()

    # Messages

    def put(self, channel: str, body: bytes) -> bool:
        """Queue a message and wake one reader; return False if the channel is full."""
        now = time.monotonic()
        with self._lock:
            self._expire_if_due(now)
            return self._put(channel, body, now)

    def publish(self, group: str, body: bytes) -> None:
        """Queue a message on every channel of a group; full channels miss it."""
        now = time.monotonic()
        with self._lock:
            self._expire_if_due(now)
            members = self._groups.get(group)
            for channel, deadline in list(members.items()) if members else ():
                if deadline > now:
                    self._put(channel, body, now)

    def offer(self, channel: str, body: bytes) -> bool:
        """Hand a message of a shared channel to a reader here; return False if none can take it."""
        with self._lock:
            slot = self._channels.get(channel)
            if slot is None or slot.queue:
                return False
            for waiter in slot.waiters:
                if waiter.caught_up:
                    slot.waiters.remove(waiter)
                    slot.queue.append((time.monotonic() + self.expiry, body))
                    if slot.wake(waiter):
                        return True
                    slot.queue.clear()
                    return False
            return False

    def _put(self, channel: str, body: bytes, now: float) -> bool:
        slot = self._channels.setdefault(channel, _Channel())
        slot.remove_expired(now)
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

        A message stays queued until its reader runs, so a reader that is cancelled loses none.

        Args:
            channel: the channel's name.
            waiting: called each time that this reader begins to wait.
            give_back: if this reader is cancelled, called with each message that has no other
                reader in this process; pass it for a channel that other processes read too.
        """
        loop, is_shared = asyncio.get_running_loop(), give_back is not None
        waiter: Waiter | None = None
        while True:
            with self._lock:
                slot = self._channels.setdefault(channel, _Channel())
                if waiter is not None:
                    slot.woken.discard(waiter)
                slot.remove_expired(time.monotonic())
                if slot.queue:
                    _, body = slot.queue.popleft()
                    self._remove_if_empty(channel, slot)
                    return body
                if is_shared:
                    self._shared.add(channel)
                waiter = Waiter(loop, loop.create_future())
                slot.waiters.append(waiter)
            try:
                waiting()
                await waiter.future
            except BaseException:
                with self._lock:
                    self._remove_waiter(channel, slot, waiter)
                    unread = self._take_surplus(channel) if is_shared else []
                if give_back is not None:
                    for body in unread:
                        give_back(body)
                raise

    def _remove_waiter(self, channel: str, slot: _Channel, waiter: Waiter) -> None:
        slot.woken.discard(waiter)
        if waiter in slot.waiters:
            slot.waiters.remove(waiter)
        elif slot.queue:  # it had been woken for a message, which now goes to another reader
            slot.wake_next()
        self._remove_if_empty(channel, slot)

    def take_surplus(self, channel: str) -> list[bytes]:
        """Remove and return the messages of a shared channel that no reader here will read.

        The readers here were cancelled; another process may have a reader.
        """
        with self._lock:
            return self._take_surplus(channel)

    def _take_surplus(self, channel: str) -> list[bytes]:
        slot = self._channels.get(channel)
        if slot is None:
            return []
        surplus = slot.take_surplus()
        self._remove_if_empty(channel, slot)
        return surplus

    def _remove_if_empty(self, channel: str, slot: _Channel) -> None:
        if slot.queue or slot.waiters or slot.woken:
            return
        if self._channels.get(channel) is slot:
            del self._channels[channel]
            self._shared.discard(channel)

    # Groups

    def join(self, group: str, channel: str) -> bool:
        """Make the channel a member until ``group_expiry`` from now; return True if it was not."""
        with self._lock:
            members = self._groups.setdefault(group, {})
            is_new = channel not in members
            members[channel] = time.monotonic() + self.group_expiry
            return is_new

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

    # For the thread that uses the database

    def needs_polling(self) -> bool:
        """Tell whether a message of another process could find a reader or a member here."""
        with self._lock:
            return bool(self._groups) or any(
                not waiter.loop.is_closed()
                for slot in self._channels.values()
                for waiter in slot.waiters
            )

    def shared_readers(self) -> dict[str, list[Waiter]]:
        """Return the waiting readers of each shared channel."""
        with self._lock:
            return self._shared_readers()

    def reserve_shared_readers(self) -> dict[str, list[Waiter]]:
        """Return the waiting readers of each shared channel; ``offer()`` skips them from now on.

        It skips them until ``mark_caught_up()``. Otherwise it could hand a message to a reader for
        which another is being read from the database. The other message would then stay in this
        process, even if a reader waits in another process.
        """
        with self._lock:
            readers = self._shared_readers()
            for waiters in readers.values():
                for waiter in waiters:
                    waiter.caught_up = False
            return readers

    def _shared_readers(self) -> dict[str, list[Waiter]]:
        return {
            channel: list(waiters)
            for channel in self._shared
            if (waiters := self._channels[channel].waiters)
        }

    def mark_caught_up(self, waiters: Iterable[Waiter]) -> None:
        """Note that the database held nothing for these readers after they began to wait."""
        with self._lock:
            for waiter in waiters:
                waiter.caught_up = True

    def take_expired_members(self) -> list[tuple[str, str]]:
        """Return, once, each (group, channel) that expired or whose channel is no longer read."""
        now = time.monotonic()
        with self._lock:
            self._expire_if_due(now)
            expired, self._expired_members = self._expired_members, []
            return expired

    def clear(self) -> None:
        """Remove every message and member; readers keep waiting."""
        with self._lock:
            self._groups.clear()
            self._expired_members.clear()
            for channel, slot in list(self._channels.items()):
                slot.queue.clear()
                self._remove_if_empty(channel, slot)

    def _expire_if_due(self, now: float) -> None:
        """Remove expired messages, expired memberships, and memberships of unread channels.

        A channel on which a message expired is unread.
        """
        if now - self._expired_at < EXPIRE_SECONDS:
            return
        self._expired_at = now
        unread = set()
        for channel, slot in list(self._channels.items()):
            if slot.remove_expired(now):
                unread.add(channel)
            self._remove_if_empty(channel, slot)
        for group, members in list(self._groups.items()):
            for channel in [c for c, until in members.items() if until <= now or c in unread]:
                del members[channel]
                self._expired_members.append((group, channel))
            if not members:
                del self._groups[group]
