"""Nodes, the server processes: each writes a heartbeat and declares silent nodes dead.

A node writes one row every ten seconds, however many members it has.
Ages are measured by the store's clock, so the clocks of the machines do not matter.
A row older than ``EXPIRY_SECONDS`` is removed, and the node's members leave.
After an outage or a restored backup of the store, every row is old, and the first node to come back
must not declare the others dead.
So a node declares another one dead only after several uninterrupted heartbeats of its own, and only
if it found the other's row old in two checks in a row.
A node that finds its own row removed was declared dead, perhaps wrongly; it registers again under a
new id, with all its members.
A process that stops removes its own row. Its members stay a little longer, because their clients
reconnect to another process; those that do not come back are removed by the other nodes.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata

from realtime.exceptions import StoreError
from realtime.outage import Outage
from realtime.stores import get_store
from realtime.stores.base import Appended, Node, Store

__all__ = [
    "BEAT_SECONDS",
    "EXPIRY_SECONDS",
    "Followers",
    "Load",
    "Node",
    "ThisNode",
    "followers_of",
    "living",
]

logger = logging.getLogger("realtime")

BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 35.0  # so three heartbeats in a row can fail
# Successful heartbeats in a row before a node checks others; they take 20 seconds, in which every
# living node writes a heartbeat too.
STEADY_BEATS = 3
ORPHAN_BEATS = 6  # heartbeats between searches for members of removed nodes: one minute
SIGN_OFF_SECONDS = 2.0  # that a process which stops waits for a store that does not answer
FOLLOWERS_LISTED = 1_000  # topics that a heartbeat lists: those with the most followers


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a node.

    Attributes:
        connections: how many clients are connected to the node.
        followers: how many connections follow each topic.
        writes: how many writes to clients took each path; see ``Node``.
    """

    connections: int
    followers: Mapping[str, int]
    writes: Mapping[str, int] = field(default_factory=dict)


class ThisNode:
    """The row of this process, and its checks of the other nodes; used on the hub's loop.

    Args:
        store: where nodes and members are stored.
        load: returns the load of this process.
        reborn: called after the node got a new id, under which the store has no members yet.
        announce: broadcasts the events that were appended to a presence log.

    Attributes:
        id: the id of this node; it changes if the node was declared dead.
        is_registered: whether the store has a row under this id.
    """

    def __init__(
        self,
        store: Store,
        load: Callable[[], Load],
        reborn: Callable[[], None],
        announce: Callable[[str, Appended], Awaitable[None]],
    ) -> None:
        self._store = store
        self._load = load
        self._reborn = reborn
        self._announce = announce
        self.id = _new_id()
        self.is_registered = False
        self._lock = asyncio.Lock()
        self._steady = 0  # heartbeats since the last break
        self._beats = 0  # heartbeats in all
        self._last = 0.0  # the time of the last heartbeat, on the loop's clock
        self._suspects: set[str] = set()  # nodes whose row was old at the last check
        self._seen: set[str] = set()  # all nodes at the last check
        self._orphans_due = 0  # the value of _beats at which orphans are searched next
        self._signed_off = False
        self._pid = 0  # a forked child inherits the function that runs at exit, but not the node
        self._heartbeat_outage = Outage(
            "the heartbeat of this process could not be written: %s",
            "the heartbeat of this process is written again",
        )
        self._check_outage = Outage("the other processes could not be checked: %s")

    async def register(self) -> None:
        """Write the row unless it exists.

        Await this before adding members: members of a node without a row are removed as orphans.

        Raises:
            StoreError: the row could not be written.
        """
        async with self._lock:
            if not self.is_registered:
                await self._write()

    async def sign_off(self) -> None:
        """Remove the row for good, because the process stops; never raises.

        The other nodes then do not report this one as dead.
        """
        self._signed_off = True
        atexit.unregister(self._sign_off_at_exit)
        async with self._lock:
            if not self.is_registered:
                return
            self.is_registered = False
            try:
                async with asyncio.timeout(SIGN_OFF_SECONDS):
                    await self._store.aexpire_node(self.id, 0.0)
            except Exception as error:
                logger.debug("this process could not sign off: %s", error)

    def _sign_off_at_exit(self) -> None:
        # The loop has ended or is about to, and the thread pools are closed: use this thread.
        if os.getpid() != self._pid or self._signed_off or self._heartbeat_outage.is_on:
            return
        self._signed_off = True
        try:
            self._store.expire_node(self.id, 0.0)
        except Exception as error:
            logger.debug("this process could not sign off: %s", error)

    async def beat(self) -> bool:
        """Write the row; False if the store fails."""
        try:
            async with self._lock:
                await self._write()
        except StoreError as error:
            self._steady, self._suspects = 0, set()
            self._heartbeat_outage.failed(error)
            return False
        self._heartbeat_outage.over()
        return True

    async def _write(self) -> None:
        if self._signed_off:
            return
        if not self._beats and self._store.shared:
            # Servers such as Daphne have no hook for the end of a process that runs on the loop.
            self._pid = os.getpid()
            atexit.register(self._sign_off_at_exit)
        if not await self._store.abeat(self._describe(), is_known=self.is_registered):
            logger.warning("the other processes declared this one dead; it registers again")
            # In this order, so that even if a step fails, nothing is written under the new id
            # before its row.
            self.id, self.is_registered, self._steady = _new_id(), False, 0
            self._reborn()
            await self._store.abeat(self._describe(), is_known=False)
        self.is_registered = True
        now = asyncio.get_running_loop().time()
        # After a gap, start counting again: a process that was suspended does not know what the
        # other nodes did in the meantime.
        self._steady = self._steady + 1 if now - self._last < 2 * BEAT_SECONDS else 1
        self._last = now
        self._beats += 1

    @property
    def is_steady(self) -> bool:
        """Whether the last heartbeats were uninterrupted, so that this node can check others."""
        return self._steady >= STEADY_BEATS

    async def look_after_others(self) -> None:
        """Declare nodes without a heartbeat dead, and remove their members.

        A row must be old in two checks in a row, because after a backup of the store was restored,
        every row is old at first.
        """
        try:
            if not self.is_steady:
                return
            nodes = await self._store.anodes()
            seen = {node.id for node in nodes}
            if self._seen - seen:
                # Some have stopped. Their clients have a heartbeat's time to come back elsewhere.
                self._orphans_due = min(self._orphans_due, self._beats + 1)
            self._seen = seen
            silent = {n.id: n for n in nodes if n.age > EXPIRY_SECONDS}
            suspects, self._suspects = self._suspects & silent.keys(), set(silent)
            expired = [
                silent[id] for id in suspects if await self._store.aexpire_node(id, EXPIRY_SECONDS)
            ]
            for node in expired:
                logger.warning(
                    "process %s on %s has stopped sending heartbeats", node.pid, node.host
                )
            if expired or self._beats >= self._orphans_due:
                self._orphans_due = self._beats + ORPHAN_BEATS
                await self._remove_orphans()
        except StoreError as error:
            self._check_outage.failed(error)
        else:
            self._check_outage.over()

    async def _remove_orphans(self) -> None:
        """Remove the members of nodes that have no row."""
        # Read the members before the rows: a node writes its row first, so a node that registers
        # between the two reads is not taken for a removed one.
        named = await self._store.anodes_of_members()
        known = {node.id for node in await self._store.anodes()}
        for node in set(named) - known:
            for log, uids in (await self._store.amembers_of(node)).items():
                appended = await self._store.achange_members(log, node, {}, uids)
                await self._announce(log, appended)

    def _describe(self) -> Node:
        load = self._load()
        listed = sorted(load.followers.items(), key=lambda item: -item[1])[:FOLLOWERS_LISTED]
        return Node(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=_version(),
            connections=load.connections,
            topics=len(load.followers),
            followers=dict(listed),
            writes=load.writes,
        )


def _version() -> str:
    try:
        return metadata.version("django-channels-realtime")
    except metadata.PackageNotFoundError:
        return "unknown"  # a checkout on the path


def _new_id() -> str:
    return secrets.token_urlsafe(12)


def living() -> list[Node]:
    """Return the nodes whose last heartbeat is recent, oldest first.

    Raises:
        StoreUnavailable: the store cannot be read now.
    """
    return [node for node in get_store().nodes() if node.age <= EXPIRY_SECONDS]


@dataclass(frozen=True, slots=True)
class Followers:
    """How many connections follow a topic, according to the last heartbeat of each node.

    Attributes:
        count: the number of connections that the heartbeats report.
        is_exact: False if a node has more topics than its heartbeat lists, and this topic is not
            among the listed ones.
    """

    count: int
    is_exact: bool


def followers_of(topic: str) -> Followers:
    """Return how many connections follow a topic.

    Raises:
        StoreUnavailable: the store cannot be read now.
    """
    nodes = living()
    unlisted = [n for n in nodes if topic not in n.followers and n.topics > len(n.followers)]
    return Followers(sum(node.followers.get(topic, 0) for node in nodes), not unlisted)
