"""Which members are here, and what the store has to be told of it.

The tracker knows who is on a topic through this process, and what of that the store has; it writes
the difference, in batches, until there is none.
So a store that was away, a write whose answer was lost and a new life of the node all end right.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from realtime import retention
from realtime.broadcast import Wakeup
from realtime.exceptions import StoreError
from realtime.nodes import Load, ThisNode
from realtime.protocol.names import is_internal
from realtime.stores.base import Appended

if TYPE_CHECKING:
    from realtime.hub.hub import Hub

__all__ = ["POLL_HOLD_SECONDS", "STREAM_HOLD_SECONDS", "MemberWriter"]

logger = logging.getLogger("realtime")

GATHER_SECONDS = 0.05  # between a change and its write, so that a herd costs few of them
STREAM_HOLD_SECONDS = 5.0  # that a member stays without a connection: a reload is no leave
POLL_HOLD_SECONDS = 30.0  # the same after a poll; the page's client polls every few seconds
LATE_SECONDS = 15.0  # beyond the longest timeout of a store
CONCURRENT_LOGS = 4  # written at a time, as many as the store has threads


class _LocalMember:
    """A member that is on a topic through this process."""

    __slots__ = ("connections", "text", "timer", "until")

    def __init__(self, text: str) -> None:
        self.text = text
        self.connections = 0
        self.until = 0.0
        self.timer: asyncio.TimerHandle | None = None


class MemberWriter:
    """The members of this process, and its row among the nodes; used on the hub's loop."""

    def __init__(self, hub: Hub) -> None:
        self.node = ThisNode(hub.store, self._load, self._forget_stored, self._announce)
        self._hub = hub
        self._here: dict[str, dict[str, _LocalMember]] = {}
        self._stored: dict[str, set[str]] = {}
        self._dirty: set[str] = set()
        self._doubted: set[str] = set()
        self._doubts_all = False
        self._doubting: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failing = False

    @property
    def is_dirty(self) -> bool:
        """Has the store to be told of something?"""
        return bool(self._dirty or self._doubts_all)

    def arrive(self, log: str, uid: str, text: str) -> None:
        """Count one more connection of a member on a topic, given by its presence log."""
        here = self._here.setdefault(log, {})
        one = here.get(uid)
        if one is None:
            one = here[uid] = _LocalMember(text)
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

    def _doubt_later(self) -> None:
        """Look at everything once more, when nothing that was given up can be under way any more.

        A store that hung may run what waited for it after what was written later.
        """
        if self._doubting is not None:
            self._doubting.cancel()
        self._doubting = self._hub.loop.call_later(LATE_SECONDS, self._doubt_all)

    def _doubt_all(self) -> None:
        self._doubting = None
        self._doubts_all = True
        self._hub.write_members()

    def close(self) -> None:
        """Tell nobody anything any more; the members leave when the others miss this node."""
        for timer in [
            self._timer,
            self._doubting,
            *(o.timer for h in self._here.values() for o in h.values()),
        ]:
            if timer is not None:
                timer.cancel()

    def _mark(self, log: str) -> None:
        self._dirty.add(log)
        self._begin_soon()

    def _begin_soon(self) -> None:
        if self._timer is None:
            self._timer = self._hub.loop.call_later(GATHER_SECONDS, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._hub.write_members()

    async def write(self) -> None:
        """Tell the store what it does not know; what fails is told later."""
        try:
            await self.node.register()
            await self._look()
            logs, self._dirty = list(self._dirty), set()
            random.shuffle(logs)  # so that none that always fails keeps others from their turn
            while logs:
                piece, logs = logs[:CONCURRENT_LOGS], logs[CONCURRENT_LOGS:]
                ends = await asyncio.gather(*map(self._write, piece), return_exceptions=True)
                failed = [end for end in ends if end is not None]
                if len(failed) == len(piece):
                    self._dirty.update(logs)  # the store is away, rather than one log unwell
                    raise failed[0]
            if self._dirty:
                self._begin_soon()
        except StoreError as error:
            if not self._failing:
                logger.warning("who is here could not be written, and will be: %s", error)
            self._failing = True
        else:
            self._failing = False

    async def _look(self) -> None:
        """Read what the store has of the logs that are in doubt; once, however many they are."""
        if not self._doubted and not self._doubts_all:
            return
        node, doubted, everything = self.node.id, self._doubted, self._doubts_all
        found = await self._hub.store.amembers_of(node)
        if node != self.node.id:
            return  # of a life that is over; the store has nothing of the new one
        self._doubted, self._doubts_all = self._doubted - doubted, False
        for log in {*found, *self._stored} if everything else doubted:
            known, has = self._stored.get(log, set()), set(found.get(log, ()))
            self._keep(log, has)
            if known != has or log in doubted:
                self._dirty.add(log)

    def _keep(self, log: str, stored: set[str]) -> None:
        """Note what the store has."""
        if stored:
            self._stored[log] = stored
        else:
            self._stored.pop(log, None)

    async def _write(self, log: str) -> None:
        node = self.node.id
        here = self._here.get(log, {})
        stored = self._stored.get(log, set())
        arrived = {uid: one.text for uid, one in here.items() if uid not in stored}
        left = stored - here.keys()
        if not arrived and not left:
            return
        try:
            appended = await self._hub.store.achange_members(log, node, arrived, left)
        except BaseException:
            # It may have been written all the same.
            self._doubted.add(log)
            self._dirty.add(log)
            self._doubt_later()
            raise
        if node != self.node.id:
            self._dirty.add(log)  # written under a name that counts no more
            return
        self._keep(log, (stored | arrived.keys()) - left)
        await self._announce(log, appended)

    async def _announce(self, log: str, appended: Appended) -> None:
        """Broadcast joins and leaves, and trim their log where it has become long."""
        if appended.events:
            await self._hub.announce(Wakeup.of(log, appended))
            retention.trim_log_after(log, retention.INTERNAL_RETENTION, appended)

    def _load(self) -> Load:
        lives = self._hub.topics.values()
        followers = {o.name: o.followers for o in lives if o.followers and not is_internal(o.name)}
        return Load(len(self._hub.connections), followers, self._hub.flusher.writes)
