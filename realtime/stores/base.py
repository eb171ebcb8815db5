"""The contract of a store, which keeps the log of every topic.

``tests/stores/contract.py`` tests each sentence of this docstring with every store.

A store is created by ``Store(location, options)`` from ``settings.REALTIME["STORE"]``. Any thread
and any event loop of the process can use it.

**Log.** A topic's log is a sequence of events, numbered 1, 2, 3 … with no hole and no reuse. The
numbers are assigned under a lock of that topic alone.

**Cursors.** ``head`` is the cursor of the last event that was appended, ``floor`` the cursor of the
last event that was trimmed. Both outlive their events.
The head of a topic without events is ``beginning(store id, topic)``; nothing is written for it. The
store id is generated once, is the epoch of every new log, and is lost only with the store's data.
A log can be read from the cursor of an event that is kept, from ``head`` and from ``floor``; any
other cursor raises ``CursorExpired``.

**Trimming.** ``due()`` finds the logs that have something to trim or to forget, by an index.
A log that is empty and idle for long is forgotten: its topic is one without events again. Every
cursor of it then raises ``CursorExpired``, and so does a time before its last event. The cursor
``beginning()`` would not by itself, so it is valid for four weeks at most, and a log is forgotten
later than that.

**Epochs.** Only ``renew()`` and ``delete()`` begin a new epoch. A read never writes.

**Nodes** are the server processes. Each updates its row regularly, with the store's time.

**Members** are the users on a topic, as reported by the nodes. A user is a member while at least
one node reports it: the first report appends a ``join`` to the topic's presence log, and the
removal of the last report appends a ``leave``. A report and its event are one transaction, so that
the log's ``seq`` is the version of the member list.
"""

from __future__ import annotations

import hmac
import math
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import islice
from typing import ParamSpec, TypeVar

from django.core.checks import CheckMessage

from realtime import conf
from realtime.exceptions import CursorExpired
from realtime.protocol.events import Cursor, Draft, Event
from realtime.protocol.names import is_internal
from realtime.stores.sqlite_checks import check_database, is_in_memory
from realtime.threads import STORE_THREADS

__all__ = [
    "JOIN",
    "LEAVE",
    "SEEN_SECONDS",
    "Appended",
    "MemberList",
    "Node",
    "Page",
    "Retention",
    "Store",
    "beginning",
    "is_beginning",
    "new_epoch",
    "new_tag",
]

P = ParamSpec("P")
T = TypeVar("T")

READ_LIMIT = 500  # events per read: about 100 KB of ordinary events, a few ms on any database
READ_BYTES = 256 * 1024  # of JSON per read, as much as a replay can have unsent
SEARCHED_TOPICS = 1_000  # two reads each; on a Redis of the same machine less than a second
SEARCHED_BYTES = 8 * 1024 * 1024  # of JSON per topic: more than 100 events of the default size
JOIN, LEAVE = "join", "leave"  # names of a presence log's events; their data is the member
# A cursor before the first event is valid in the period in which it was made and in the next one,
# and a log is forgotten after 30 days at least. The two days between the two are for clocks that
# differ. The local clock decides, so a cursor of the following period is valid too.
BEGINNING_SECONDS = 14 * 86_400
LOOK_AGAIN_SECONDS = 86_400.0  # until a log that cannot be forgotten yet is looked at again
SEEN_SECONDS = 3_600  # that an id is remembered; a relay retries within seconds of a crash


def beginning(epoch: str, topic: str) -> Cursor:
    """Return the cursor before the first event of a topic.

    Its tag is an HMAC with ``SECRET_KEY``: a client that can resume but not read the history cannot
    forge "from the beginning". The tag changes with every period of ``BEGINNING_SECONDS``; compare
    with ``is_beginning()``.
    """
    return _beginning(epoch, topic, _period())


def is_beginning(cursor: Cursor, topic: str) -> bool:
    """Tell whether a cursor is ``beginning()`` of its epoch, made at most four weeks ago."""
    if cursor.seq:
        return False
    now = _period()
    return any(
        _beginning(cursor.epoch, topic, period) == cursor for period in (now, now - 1, now + 1)
    )


def _period() -> int:
    return int(time.time() // BEGINNING_SECONDS)


def _beginning(epoch: str, topic: str, period: int) -> Cursor:
    text = f"{epoch}.{topic}.{period}".encode()
    digest = hmac.digest(conf.secret(b"realtime.beginning"), text, "sha256")
    return Cursor(epoch, 0, int.from_bytes(digest[:4], "big"))


def new_epoch() -> str:
    """Return a random epoch of 47 bits, so that no two epochs of a log are equal by accident.

    It has no hyphen: a command line would take a cursor that begins with one for an option.
    """
    return secrets.token_urlsafe(6).replace("-", "_")


def new_tag() -> int:
    """Return a random tag of 32 bits for an event."""
    return secrets.randbits(32)


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a topic's log is kept; the stricter of the two limits applies.

    Attributes:
        max_events: how many of the newest events are kept; 0 keeps only the head's cursor.
        max_age: seconds that an event is kept, by the store's clock.
        forget_after: seconds without an event after which an empty log is forgotten; None keeps it.
        look_again: seconds after which ``due()`` finds the log again at the latest.
    """

    max_events: int
    max_age: float
    forget_after: float | None = None
    look_again: float = math.inf

    def next_look(self, now: float, oldest: float | None, last: float) -> float | None:
        """Return the time at which the log must be looked at again; None if there is nothing to do.

        Args:
            now: the time of the store's clock.
            oldest: the time of the oldest event that is kept; None if the log is empty.
            last: when the log was last changed.
        """
        if oldest is not None:
            next_look = oldest + self.max_age
        elif self.forget_after is not None:
            next_look = last + self.forget_after
        else:
            return None
        return min(next_look, now + self.look_again)


@dataclass(frozen=True, slots=True)
class Appended:
    """The result of an append.

    Attributes:
        previous: the head before the first of the events; wake-ups carry its tag.
        events: the new events in log order; a draft whose id was already appended has none.
        kept: how many events the log holds now, so that the caller knows when to trim.
    """

    previous: Cursor
    events: tuple[Event, ...]
    kept: int


@dataclass(frozen=True, slots=True)
class Page:
    """A contiguous part of a log.

    Attributes:
        events: in log order; empty only if the page was read from the head.
        head: the log's head when the page was read. If it is the cursor of the page's last event,
            the page is the last one.
    """

    events: tuple[Event, ...]
    head: Cursor


@dataclass(frozen=True, slots=True)
class Node:
    """A server process, as its last heartbeat described it.

    Attributes:
        id: random; a process gets a new one when it starts, and after it was declared dead.
        host: the machine's name.
        pid: the process id on that machine.
        version: the version of this package.
        connections: clients connected now; a poll counts while it waits.
        topics: how many topics they follow.
        followers: how many connections follow a topic, for the most followed topics.
        writes: how many writes to clients it made since it started, by path: ``direct`` to the
            socket, ``buffered`` in the server behind unsent bytes, or ``portable`` through the
            server's ``send()``.
        started: when it registered, in seconds since 1970 by the store's clock.
        age: seconds since its last heartbeat, by the store's clock.
    """

    id: str
    host: str
    pid: int
    version: str
    connections: int = 0
    topics: int = 0
    followers: Mapping[str, int] = field(default_factory=dict, hash=False)
    writes: Mapping[str, int] = field(default_factory=dict, hash=False)
    started: float = 0.0
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class MemberList:
    """The members of a topic, at one cursor of its presence log.

    Attributes:
        cursor: the head of the presence log when the list was read.
        members: the members' JSON text by their ids, in the order in which they joined; empty if
            they are too many to be listed.
        count: how many members there are if they are too many to be listed, else None.
    """

    cursor: Cursor
    members: Mapping[str, str]
    count: int | None = None


def _matches(event: Event, name: str, since: float | None, until: float | None) -> bool:
    time = event.time or 0.0
    in_time = (since is None or time >= since) and (until is None or time <= until)
    return in_time and name.lower() in event.name.lower()


class Store(ABC):
    """The contract of a store; the module's docstring states the guarantees.

    Every method raises ``StoreUnavailable`` if the store cannot be reached, or stays locked longer
    than its own bounded retries, and ``StoreError`` if the store refuses the operation for good. A
    call that raises has changed nothing, with one exception: if the connection was lost during the
    commit, the events may have been appended. Retry such an append with the same ``Draft.id``,
    which is never appended twice.
    The methods whose names begin with ``a`` are the async versions.
    """

    #: Do other processes see what this process appends?
    shared: bool = False
    #: Do the logs outlive the process?
    durable: bool = False
    #: Which database alias holds the logs? None if they are not in a database of the project.
    alias: str | None = None
    #: Does ``append_claimed()`` work, for an outbox on ``alias``?
    supports_claims: bool = False

    def __init__(self, location: str = "", options: dict[str, object] | None = None) -> None:
        self.location = location
        self.options = dict(options or {})

    @abstractmethod
    def append(self, topic: str, drafts: Sequence[Draft]) -> Appended:
        """Append events to a topic's log, all or none, in the store's own transaction.

        A draft is skipped if its ``id`` was appended to this topic within the last hour, or earlier
        in the same call.
        The events' times are by the store's clock and never decrease within the topic.
        """

    def append_claimed(self, topic: str, claim: Callable[[], Sequence[Draft]]) -> Appended | None:
        """Append the drafts of outbox rows, in the transaction that deletes the rows.

        Call it only if ``supports_claims`` is true and the outbox is on ``alias``.

        Args:
            topic: the topic, whose log is locked when ``claim`` is called.
            claim: deletes rows on ``alias`` and returns their drafts. It runs in the thread of the
                transaction, and runs again if the transaction has to be retried. If it returns
                nothing, the transaction is rolled back. A draft with an ``id`` is skipped if that
                was appended, as in ``append()``; a row that nobody leased needs none, since it does
                not come back once it is deleted.

        Returns:
            What was appended, or None if ``claim`` returned nothing.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot append in the transaction of an outbox; "
            "check supports_claims, and use append() if it is false"
        )

    @abstractmethod
    def heads(self, topics: Collection[str]) -> dict[str, Cursor]:
        """Return the head of each topic, in one query for all of them."""

    @abstractmethod
    def read(
        self, topic: str, after: Cursor, limit: int = READ_LIMIT, max_bytes: int = READ_BYTES
    ) -> Page:
        """Return the events after a cursor, oldest first.

        Returns at most ``limit`` events and ``max_bytes`` of JSON, but at least one event if there
        is one: repeated calls with the cursor of the last event always reach the head. A concurrent
        append or trim never makes a hole in the page.

        Raises:
            CursorExpired: the log cannot be read from this cursor.
        """

    @abstractmethod
    def locate(self, topic: str, *, last: int | None = None, since: float | None = None) -> Cursor:
        """Return the cursor from which ``read()`` returns the wanted events.

        Args:
            topic: the topic's name.
            last: how many of the newest events are wanted; those that were trimmed are left out.
            since: the time from which on events are wanted, in seconds since 1970 by the store's
                clock.

        If both are given, the one that wants fewer events applies; if neither, the result is the
        head.

        Raises:
            CursorExpired: events at or after ``since`` were trimmed, and ``last`` was not given.
        """

    @abstractmethod
    def trim(self, topic: str, retention: Retention) -> int:
        """Remove the events that the retention does not keep; return how many.

        Removes them in several short transactions, so that no publisher waits for a long one.
        Then it sets when ``due()`` finds the log next, or forgets the log: if it is empty, had no
        event, no ``renew()`` and no ``delete()`` for ``forget_after``, and has no members.
        """

    @abstractmethod
    def due(self) -> Iterator[str]:
        """Iterate over the names of the logs that have to be trimmed now, each once.

        A log is due when its first event was appended since the last ``trim()`` left it empty,
        and at the time that ``trim()`` has set. The caller trims each log before it asks for the
        next one. What this costs does not depend on the number of the other logs.
        """

    @abstractmethod
    def renew(self, topic: str, epoch: str) -> Cursor:
        """Begin a new epoch if the log's epoch is still ``epoch``; return the head.

        The events stay and get cursors of the new epoch. Of several processes that call it with the
        same epoch, one begins a new epoch.
        """

    @abstractmethod
    def delete(self, topic: str) -> Cursor:
        """Remove a topic's events and begin a new epoch at seq 0; return the head."""

    @abstractmethod
    def topics(self) -> Iterator[str]:
        """Iterate over the names of all topics that have a log."""

    def search(
        self,
        limit: int,
        *,
        topic: str = "",
        exact: bool = False,
        name: str = "",
        since: float | None = None,
        until: float | None = None,
    ) -> list[Event]:
        """Return the newest events of all topics but internal ones, newest first.

        This is for pages that people read: it looks at the newest ``limit`` events of up to
        ``SEARCHED_TOPICS`` topics. A store that can do better overrides it.

        Args:
            limit: the maximum number of events.
            topic: only topics whose name contains this text, in upper or lower case.
            exact: whether ``topic`` is the whole name of the only topic.
            name: only events whose name contains this text, in upper or lower case.
            since: only events from this time on, in seconds since 1970.
            until: only events until this time.
        """
        found: list[Event] = []
        names = iter([topic]) if exact else self.topics()
        matching = (each for each in names if topic.lower() in each.lower())
        public = (each for each in matching if not is_internal(each))
        for each in islice(public, SEARCHED_TOPICS):
            with suppress(CursorExpired):  # trimmed since locate()
                page = self.read(each, self.locate(each, last=limit), limit, SEARCHED_BYTES)
                found += [event for event in page.events if _matches(event, name, since, until)]
            found = nlargest(limit, found, key=lambda event: (event.time or 0.0, event.seq or 0))
        return found

    @abstractmethod
    def clock(self) -> float:
        """Return the store's time, seconds since 1970."""

    # Quotas

    @abstractmethod
    def take(self, quota: str, amount: int, limit: int, seconds: float) -> bool:
        """Add to a counter of the whole site, unless it would then exceed a limit.

        Args:
            quota: the counter's name, up to 100 characters. Each name is stored for good, so it
                must not depend on what a client sends.
            amount: how much to add.
            limit: the most that the counter may reach.
            seconds: the counter restarts at 0 this long after its first use, by the store's clock.

        Returns:
            False if the counter would exceed ``limit``; nothing is added. Concurrent calls never
            exceed it together.
        """

    # Nodes

    @abstractmethod
    def beat(self, node: Node, *, is_known: bool) -> bool:
        """Write a node's row, with the time of the store's clock.

        Args:
            node: the row; its ``started`` and ``age`` are ignored.
            is_known: whether the node was written before.

        Returns:
            False if the node is known but its row is gone. Nothing is written: the other nodes
            declared it dead, and it has to register under a new id.
        """

    @abstractmethod
    def nodes(self) -> Sequence[Node]:
        """Return all nodes that have a row, oldest first."""

    @abstractmethod
    def expire_node(self, node: str, age: float) -> bool:
        """Remove a node's row if its last heartbeat is at least ``age`` seconds old.

        The node's members stay.

        Returns:
            True if this call removed the row; of several concurrent calls, one does.
        """

    # Members

    @abstractmethod
    def change_members(
        self, log: str, node: str, arrived: Mapping[str, str], left: Collection[str]
    ) -> Appended:
        """Add and remove a node's members of a topic, and append the joins and leaves.

        Appends a ``join`` for each added member that no other node has, and a ``leave`` for each
        removed member that no other node has. All or nothing is written. The call is idempotent, so
        it can be retried after a lost answer.

        Args:
            log: the topic's presence log.
            node: the node's id.
            arrived: the added members' JSON text by their ids.
            left: the removed members' ids; none of ``arrived``.
        """

    @abstractmethod
    def members(self, log: str, limit: int | None = None) -> MemberList:
        """Return a topic's members and the head of its presence log, in one consistent read.

        Args:
            log: the topic's presence log.
            limit: if there are more members, they are only counted; None lists all.
        """

    @abstractmethod
    def members_of(self, node: str) -> Mapping[str, Sequence[str]]:
        """Return the ids of a node's members, by presence log."""

    @abstractmethod
    def nodes_of_members(self) -> Collection[str]:
        """Return the ids of all nodes that have members, including nodes without a row."""

    # Set-up

    def check(self) -> list[CheckMessage]:
        """Report problems of the store's set-up, for ``manage.py check``.

        By default it checks the database at ``alias``, if there is one.
        """
        return [] if self.alias is None else check_database(self.alias)

    def unshared(self) -> str:
        """Return the store's name and why processes cannot share it, for a message; "" if they can.

        ``shared`` says what the class can do. This method also looks at the settings: a database
        can be in the memory of one process.
        """
        name = type(self).__name__
        if not self.shared:
            return name
        if self.alias is not None and is_in_memory(self.alias):
            return f"{name} on {self.alias!r}, which is SQLite in memory,"
        return ""

    def close(self) -> None:  # noqa: B027 - optional: a store may have nothing to close
        """Close the store's connections; the next call opens new ones."""

    # Async versions of the methods above.

    async def _call(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one of the methods above for its async version, by default in ``STORE_THREADS``.

        Override it in a store that never blocks. A store with an asynchronous driver overrides the
        async versions.
        """
        return await STORE_THREADS.run(method, *args, **kwargs)

    async def aappend(self, topic: str, drafts: Sequence[Draft]) -> Appended:
        """Async version of ``append()``."""
        return await self._call(self.append, topic, drafts)

    async def aheads(self, topics: Collection[str]) -> dict[str, Cursor]:
        """Async version of ``heads()``."""
        return await self._call(self.heads, topics)

    async def aread(
        self, topic: str, after: Cursor, limit: int = READ_LIMIT, max_bytes: int = READ_BYTES
    ) -> Page:
        """Async version of ``read()``."""
        return await self._call(self.read, topic, after, limit, max_bytes)

    async def alocate(
        self, topic: str, *, last: int | None = None, since: float | None = None
    ) -> Cursor:
        """Async version of ``locate()``."""
        return await self._call(self.locate, topic, last=last, since=since)

    async def atrim(self, topic: str, retention: Retention) -> int:
        """Async version of ``trim()``."""
        return await self._call(self.trim, topic, retention)

    async def arenew(self, topic: str, epoch: str) -> Cursor:
        """Async version of ``renew()``."""
        return await self._call(self.renew, topic, epoch)

    async def adelete(self, topic: str) -> Cursor:
        """Async version of ``delete()``."""
        return await self._call(self.delete, topic)

    async def aclock(self) -> float:
        """Async version of ``clock()``."""
        return await self._call(self.clock)

    async def atake(self, quota: str, amount: int, limit: int, seconds: float) -> bool:
        """Async version of ``take()``."""
        return await self._call(self.take, quota, amount, limit, seconds)

    async def abeat(self, node: Node, *, is_known: bool) -> bool:
        """Async version of ``beat()``."""
        return await self._call(self.beat, node, is_known=is_known)

    async def anodes(self) -> Sequence[Node]:
        """Async version of ``nodes()``."""
        return await self._call(self.nodes)

    async def aexpire_node(self, node: str, age: float) -> bool:
        """Async version of ``expire_node()``."""
        return await self._call(self.expire_node, node, age)

    async def achange_members(
        self, log: str, node: str, arrived: Mapping[str, str], left: Collection[str]
    ) -> Appended:
        """Async version of ``change_members()``."""
        return await self._call(self.change_members, log, node, arrived, left)

    async def amembers(self, log: str, limit: int | None = None) -> MemberList:
        """Async version of ``members()``."""
        return await self._call(self.members, log, limit)

    async def amembers_of(self, node: str) -> Mapping[str, Sequence[str]]:
        """Async version of ``members_of()``."""
        return await self._call(self.members_of, node)

    async def anodes_of_members(self) -> Collection[str]:
        """Async version of ``nodes_of_members()``."""
        return await self._call(self.nodes_of_members)
