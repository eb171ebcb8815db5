"""Which members are here, and what the store has to be told of it.

The tracker knows who is on a topic through this process, and what of that the store has; it writes
the difference, in batches, until there is none.
So a store that was away, a write whose answer was lost and a new life of the node all end right.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from realtime import retention
from realtime.broadcast import Wakeup
from realtime.exceptions import StoreError
from realtime.names import is_internal
from realtime.nodes import Load, ThisNode
from realtime.stores.base import Appended

if TYPE_CHECKING:
    from realtime.hub.hub import Hub

__all__ = ["POLL_HOLD_SECONDS", "STREAM_HOLD_SECONDS", "Tracker"]

logger = logging.getLogger("realtime")

GATHER_SECONDS = 0.05  # between a change and its write, so that a herd costs few of them
STREAM_HOLD_SECONDS = 5.0  # that a member stays without a connection: a reload is no leave
POLL_HOLD_SECONDS = 30.0  # the same after a poll; the page's client polls every few seconds
CONCURRENT_LOGS = 4  # written at a time, as many as the store has threads


class _Here:
    """A member that is on a topic through this process."""

    __slots__ = ("connections", "text", "timer", "until")

    def __init__(self, text: str) -> None:
        self.text = text
        self.connections = 0
        self.until = 0.0
        self.timer: asyncio.TimerHandle | None = None


class Tracker:
    """The members of this process, and its row among the nodes; used on the hub's loop."""

    def __init__(self, hub: Hub) -> None:
        self.node = ThisNode(hub.store, self._load, self._forget_stored, self._announce)
        self._hub = hub
        self._here: dict[str, dict[str, _Here]] = {}
        self._stored: dict[str, set[str]] = {}
        self._dirty: set[str] = set()
        self._doubted: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._failing = False

    @property
    def is_dirty(self) -> bool:
        """Has the store to be told of something?"""
        return bool(self._dirty)

    def arrive(self, log: str, uid: str, text: str) -> None:
        """Count one more connection of a member on a topic, given by its presence log."""
        here = self._here.setdefault(log, {})
        one = here.get(uid)
        if one is None:
            one = here[uid] = _Here(text)
            self._mark(log)
        one.connections += 1
        if one.timer is not None:
            one.timer.cancel()
            one.timer = None

    def leave(self, log: str, uid: str, hold: float) -> None:
        """Count one connection less; without any the member leaves, ``hold`` seconds from now."""
        one = self._here[log][uid]
        now = self._hub.loop.time()
        one.connections -= 1
        one.until = max(one.until, now + hold)
        if not one.connections:
            one.timer = self._hub.loop.call_at(one.until, self._gone, log, uid)

    def _gone(self, log: str, uid: str) -> None:
        del self._here[log][uid]
        if not self._here[log]:
            del self._here[log]
        self._mark(log)

    def text_of(self, log: str, uid: str) -> str | None:
        """Return the JSON text of a member that is here; None if it is not."""
        one = self._here.get(log, {}).get(uid)
        return None if one is None else one.text

    def _forget_stored(self) -> None:
        """Begin anew: the store has nothing of this node."""
        self._stored.clear()
        for log in self._here:
            self._mark(log)

    def doubt(self, log: str) -> None:
        """Look what the store has of a log: it is not the log that it was."""
        self._doubted.add(log)
        self._mark(log)

    def close(self) -> None:
        """Tell nobody anything any more; the members leave when the others miss this node."""
        for timer in [self._timer, *(o.timer for h in self._here.values() for o in h.values())]:
            if timer is not None:
                timer.cancel()

    def _mark(self, log: str) -> None:
        self._dirty.add(log)
        if self._timer is None:
            self._timer = self._hub.loop.call_later(GATHER_SECONDS, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._hub.write_members()

    async def write(self) -> None:
        """Tell the store what it does not know; what fails is told later."""
        try:
            await self.node.register()
            while self._dirty:
                logs, self._dirty = list(self._dirty), set()
                for start in range(0, len(logs), CONCURRENT_LOGS):
                    piece = logs[start : start + CONCURRENT_LOGS]
                    try:
                        await self._write_all(piece)
                    except BaseException:
                        self._dirty.update(logs[start:])  # written once more; that does no harm
                        raise
        except StoreError as error:
            if not self._failing:
                logger.warning("who is here could not be written, and will be: %s", error)
            self._failing = True
        else:
            self._failing = False

    async def _write_all(self, logs: list[str]) -> None:
        ends = await asyncio.gather(*map(self._write, logs), return_exceptions=True)
        if failed := next(filter(None, ends), None):
            raise failed

    async def _write(self, log: str) -> None:
        node = self.node.id
        if log in self._doubted:
            self._stored[log] = set((await self._hub.store.amembers_of(node)).get(log, ()))
            self._doubted.discard(log)
        here = self._here.get(log, {})
        stored = self._stored.get(log, set())
        arrived = {uid: one.text for uid, one in here.items() if uid not in stored}
        left = stored - here.keys()
        if not arrived and not left:
            return
        appended = await self._hub.store.achange_members(log, node, arrived, left)
        if node != self.node.id:
            self._mark(log)  # written under a name that counts no more
            return
        self._stored[log] = (stored | arrived.keys()) - left
        if not self._stored[log]:
            del self._stored[log]
        await self._announce(log, appended)

    async def _announce(self, log: str, appended: Appended) -> None:
        """Broadcast joins and leaves, and trim their log where it has become long."""
        if appended.events:
            await self._hub.announce(Wakeup.of(log, appended))
            retention.trim_log_after(log, retention.INTERNAL_RETENTION, appended)

    def _load(self) -> Load:
        lives = self._hub.topics.values()
        followers = {o.name: o.followers for o in lives if o.followers and not is_internal(o.name)}
        return Load(len(self._hub.connections), followers)
