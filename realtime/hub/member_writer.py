"""Keep the members that the store has for this node equal to those that are connected here.

The writer knows which members are on a topic through this process, and which of them the store has;
it writes the difference, in batches, until there is none.
That repairs the state after an outage of the store, after a write whose answer was lost, and after
the node has received a new id.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from realtime import retention
from realtime.broadcast import Wakeup
from realtime.exceptions import StoreError
from realtime.nodes import Load, ThisNode
from realtime.outage import Outage
from realtime.protocol.names import is_internal
from realtime.stores.base import Appended

if TYPE_CHECKING:
    from realtime.hub.hub import Hub

__all__ = ["POLL_HOLD_SECONDS", "STREAM_HOLD_SECONDS", "MemberWriter"]

BATCH_SECONDS = 0.05  # between a change and its write, so that many changes cost few writes
STREAM_HOLD_SECONDS = 5.0  # of membership after the last connection: a page reload is no leave
POLL_HOLD_SECONDS = 30.0  # the same after a poll; the page's client polls every few seconds
LATE_SECONDS = 15.0  # longer than the longest timeout of a store
CONCURRENT_LOGS = 4  # logs that are written at a time, as many as the store has threads


class _LocalMember:
    """A member that is on a topic through this process.

    Attributes:
        text: the member as JSON.
        connections: how many of the member's connections follow the topic here.
        until: when the member leaves at the earliest, on the loop's clock.
        timer: removes the member; set while there is no connection.
    """

    __slots__ = ("connections", "text", "timer", "until")

    def __init__(self, text: str) -> None:
        self.text = text
        self.connections = 0
        self.until = 0.0
        self.timer: asyncio.TimerHandle | None = None


class MemberWriter:
    """The members of this process, and its row among the nodes; used on the hub's loop.

    Attributes:
        node: this process's row among the nodes.
    """

    def __init__(self, hub: Hub) -> None:
        self.node = ThisNode(hub.store, self._load, self._forget_stored, self._announce)
        self._hub = hub
        self._local: dict[str, dict[str, _LocalMember]] = {}  # by presence log and member id
        self._stored: dict[str, set[str]] = {}  # the member ids that the store has, by log
        self._dirty: set[str] = set()  # logs whose local and stored members may differ
        self._unsure: set[str] = set()  # logs whose stored members have to be read again
        self._unsure_of_all = False
        self._recheck: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._outage = Outage("changes of members could not be written; retrying: %s")

    @property
    def is_dirty(self) -> bool:
        """Whether there is anything to write or to read again."""
        return bool(self._dirty or self._unsure_of_all)

    def arrive(self, log: str, uid: str, text: str) -> None:
        """Count one more connection of a member.

        Args:
            log: the presence log of the topic.
            uid: the member's id.
            text: the member as JSON, for the first connection.
        """
        local = self._local.setdefault(log, {})
        member = local.get(uid)
        if member is None:
            member = local[uid] = _LocalMember(text)
            self._mark(log)
        member.connections += 1
        if member.timer is not None:
            member.timer.cancel()
            member.timer = None

    def leave(self, log: str, uid: str, hold: float) -> None:
        """Count one connection fewer; a member leaves ``hold`` seconds after its last one ended."""
        member = self._local[log][uid]
        now = self._hub.loop.time()
        member.connections -= 1
        member.until = max(member.until, now + hold)
        if not member.connections:
            member.timer = self._hub.loop.call_at(member.until, self._remove, log, uid)

    def _remove(self, log: str, uid: str) -> None:
        del self._local[log][uid]
        if not self._local[log]:
            del self._local[log]
        if self._has_work(log):
            self._mark(log)
        else:
            self._dirty.discard(log)

    def _has_work(self, log: str) -> bool:
        """Tell whether a log can have anything to write.

        Clients choose the topics, so a log that was never written is not kept in ``_dirty`` while
        the store fails. If a write is in progress, it compares the members again when it ends.
        """
        return log in self._local or log in self._stored or log in self._unsure

    def text_of(self, log: str, uid: str) -> str | None:
        """Return the JSON text of a member that is connected here; None if it is not."""
        member = self._local.get(log, {}).get(uid)
        return None if member is None else member.text

    def _forget_stored(self) -> None:
        """Write all members again: the store has none under the new id of this node."""
        self._stored.clear()
        for log in self._local:
            self._mark(log)

    def check(self, log: str) -> None:
        """Read again what the store has of a log, because the log was reset."""
        self._unsure.add(log)
        self._mark(log)

    def _check_all_later(self) -> None:
        """Read everything again, when no write that timed out can still be in progress.

        A store that hung can carry out such a write after later ones.
        """
        if self._recheck is not None:
            self._recheck.cancel()
        self._recheck = self._hub.loop.call_later(LATE_SECONDS, self._check_all)

    def _check_all(self) -> None:
        self._recheck = None
        self._unsure_of_all = True
        self._hub.jobs.members.start()

    def close(self) -> None:
        """Stop all timers; the other nodes remove the members that do not come back."""
        for timer in [
            self._timer,
            self._recheck,
            *(member.timer for local in self._local.values() for member in local.values()),
        ]:
            if timer is not None:
                timer.cancel()

    def _mark(self, log: str) -> None:
        self._dirty.add(log)
        self._write_soon()

    def _write_soon(self) -> None:
        if self._timer is None:
            self._timer = self._hub.loop.call_later(BATCH_SECONDS, self._start_write)

    def _start_write(self) -> None:
        self._timer = None
        self._hub.jobs.members.start()

    async def write(self) -> None:
        """Write the differences to the store; the next call retries the logs that failed."""
        try:
            await self.node.register()
            await self._read_stored()
            logs, self._dirty = list(self._dirty), set()
            random.shuffle(logs)  # so that logs that always fail do not starve the others
            failures: list[BaseException] = []
            while logs:
                batch, logs = logs[:CONCURRENT_LOGS], logs[CONCURRENT_LOGS:]
                results = await asyncio.gather(*map(self._write, batch), return_exceptions=True)
                failed = [result for result in results if result is not None]
                failures.extend(failed)
                if len(failed) == len(batch):
                    # All of them fail: the store is unreachable.
                    self._dirty.update(filter(self._has_work, logs))
                    break
            if failures:
                raise failures[0]
            if self._dirty:
                self._write_soon()
        except StoreError as error:
            self._outage.failed(error)
        else:
            self._outage.over()

    async def _read_stored(self) -> None:
        """Read the stored members again where they are uncertain, in one call."""
        if not self._unsure and not self._unsure_of_all:
            return
        node, unsure, everything = self.node.id, self._unsure, self._unsure_of_all
        found = await self._hub.store.amembers_of(node)
        if node != self.node.id:
            return  # the store has no members under the new id
        self._unsure, self._unsure_of_all = self._unsure - unsure, False
        for log in {*found, *self._stored} if everything else unsure:
            before, stored = self._stored.get(log, set()), set(found.get(log, ()))
            self._note_stored(log, stored)
            if before != stored or log in unsure:
                self._dirty.add(log)

    def _note_stored(self, log: str, stored: set[str]) -> None:
        if stored:
            self._stored[log] = stored
        else:
            self._stored.pop(log, None)

    async def _write(self, log: str) -> None:
        node = self.node.id
        local = self._local.get(log, {})
        stored = self._stored.get(log, set())
        arrived = {uid: member.text for uid, member in local.items() if uid not in stored}
        left = stored - local.keys()
        if not arrived and not left:
            return
        try:
            appended = await self._hub.store.achange_members(log, node, arrived, left)
        except BaseException:
            # The store may have written the changes nevertheless.
            self._unsure.add(log)
            self._dirty.add(log)
            self._check_all_later()
            raise
        if node != self.node.id:
            self._dirty.add(log)  # written under the old id
            return
        stored = (stored | arrived.keys()) - left
        self._note_stored(log, stored)
        if stored != self._local.get(log, {}).keys():
            self._mark(log)
        await self._announce(log, appended)

    async def _announce(self, log: str, appended: Appended) -> None:
        """Broadcast joins and leaves, and trim their log if it became too long."""
        if appended.events:
            await self._hub.announce(Wakeup.of(log, appended))
            retention.trim_log_after(log, retention.INTERNAL_RETENTION, appended)

    def _load(self) -> Load:
        followers = {
            live.name: live.followers
            for live in self._hub.topics.values()
            if live.followers and not is_internal(live.name)
        }
        return Load(len(self._hub.connections), followers, self._hub.flusher.writes)
