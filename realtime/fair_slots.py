"""Share a limited number of slots fairly among the callers that wait for one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from weakref import WeakKeyDictionary

from realtime.exceptions import ProtocolError
from realtime.protocol.frames import ErrorCode

__all__ = ["FairSlots", "busy"]

MAX_WAITING = 1_000  # of one caller; a page that reconnects subscribes to 100 topics at once


def busy() -> ProtocolError:
    """Return the error for a command that waited too long for its turn."""
    reason = "the server is busy with earlier commands; send this one again in a few seconds"
    return ProtocolError(ErrorCode.BUSY, reason)


class FairSlots:
    """Slots that are granted to waiting callers in turn, so that none has to wait for all of one.

    A caller's own requests are served in their order.
    Each event loop has slots of its own.

    Args:
        count: how many slots there are; ``math.inf`` for no limit.
        per_caller: how many slots one caller can hold.
        patience: seconds to wait for a slot.
    """

    def __init__(self, count: float, per_caller: int, patience: float) -> None:
        self.count = count
        self.per_caller = per_caller
        self.patience = patience
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()

    async def acquire(self, caller: Hashable) -> Callable[[], None]:
        """Wait for a slot, and return the function that gives it back; call that once.

        Raises:
            ProtocolError: there was no slot in time, or the caller waits too often already.
        """
        loop = asyncio.get_running_loop()
        turns = self._turns.get(loop)
        if turns is None:
            turns = self._turns[loop] = _Turns(self.count, self.per_caller)
        if not turns.take(caller):
            granted = turns.wait(caller, loop)
            try:
                async with asyncio.timeout(self.patience):
                    await granted
            except BaseException as error:
                turns.give_up(caller, granted)
                if isinstance(error, TimeoutError):
                    raise busy() from None
                raise
        return lambda: turns.release(caller)


class _Turns:
    """The slots of one event loop.

    A caller is in ``_ready`` while it waits and can take another slot; the first of them is next.
    """

    def __init__(self, free: float, per_caller: int) -> None:
        self._free = free
        self._per_caller = per_caller
        self._held: dict[Hashable, int] = {}
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}
        self._ready: OrderedDict[Hashable, None] = OrderedDict()

    def take(self, caller: Hashable) -> bool:
        """Take a slot if one is free for this caller and nobody waits for it."""
        if self._free < 1 or caller in self._waiting or not self._can_take(caller):
            return False
        self._hold(caller)
        return True

    def wait(self, caller: Hashable, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Return a future that is done when the caller has a slot.

        Raises:
            ProtocolError: the caller waits too often already.
        """
        queue = self._waiting.setdefault(caller, deque())
        if len(queue) >= MAX_WAITING:
            raise busy()
        granted = loop.create_future()
        queue.append(granted)
        if self._can_take(caller):
            self._ready.setdefault(caller)
        return granted

    def give_up(self, caller: Hashable, granted: asyncio.Future[None]) -> None:
        """Stop waiting; give the slot back if it was granted in the same turn of the loop."""
        if granted.done() and not granted.cancelled():
            self.release(caller)
        elif granted in (queue := self._waiting.get(caller, deque())):
            queue.remove(granted)
            if not queue:
                del self._waiting[caller]
                self._ready.pop(caller, None)

    def release(self, caller: Hashable) -> None:
        """Give a slot back, and grant it to the next caller."""
        self._free += 1
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        if caller in self._waiting:
            self._ready.setdefault(caller)
        while self._free >= 1 and self._ready:
            self._grant(self._ready.popitem(last=False)[0])

    def _grant(self, caller: Hashable) -> None:
        queue = self._waiting[caller]
        granted = queue.popleft()
        if not queue:
            del self._waiting[caller]
        if granted.cancelled():  # its task has not run yet, so it has not called give_up()
            if queue:
                self._ready.setdefault(caller)
            return
        granted.set_result(None)
        self._hold(caller)
        if queue and self._can_take(caller):
            self._ready.setdefault(caller)

    def _can_take(self, caller: Hashable) -> bool:
        return self._held.get(caller, 0) < self._per_caller

    def _hold(self, caller: Hashable) -> None:
        self._free -= 1
        self._held[caller] = self._held.get(caller, 0) + 1
