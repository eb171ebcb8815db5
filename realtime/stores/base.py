"""What a store is: the log of every topic, and the rules that all stores keep.

``tests/stores/contract.py`` holds each sentence of this page against every store.

A store is made by ``Store(location, options)`` from ``settings.REALTIME["STORE"]`` and is used from
any thread and any event loop of its process.

**Log.** A topic's log is a row of events numbered 1, 2, 3 … with no hole and no reuse; the numbers
are taken under a lock of that topic alone.

**Cursors.** ``head`` is the cursor of the last event that was appended, ``floor`` the cursor of the
last one that was trimmed.
Both outlive the events.
A topic without events is at ``beginning(store id, topic)`` without anything being written for it;
the store id is made once, is the epoch of every new log, and dies with the store's data.
One can read on from a cursor while its own event is kept, and from ``head`` and ``floor``;
any other raises ``CursorExpired``.

**Epochs.** ``renew()`` and ``delete()`` begin a new epoch; nothing else does, and no read writes.

**Nodes** are the server processes; each writes one row again and again, on the store's time.
**Members** are who is on a topic, as the nodes say: a member is there while one node says so.
Its first node's word appends a ``join`` to the topic's presence log, its last one's a ``leave``, in
the same transaction, so that the log's ``seq`` is the version of the list.
"""

from __future__ import annotations

import hmac
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from django.core.checks import CheckMessage

from realtime import conf
from realtime.protocol.events import Cursor, Draft, Event
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
    "new_epoch",
    "new_tag",
]

P = ParamSpec("P")
T = TypeVar("T")

READ_LIMIT = 500  # events a read: some 100 KB of ordinary events, a few ms of any database
READ_BYTES = 256 * 1024  # of JSON a read, the most that a replay may have unsent (design: paced)
JOIN, LEAVE = "join", "leave"  # names of the events of a presence log; their data is the member
SEEN_SECONDS = 3_600  # an id is remembered so long; a relay repeats within seconds of a crash


def beginning(epoch: str, topic: str) -> Cursor:
    """Return the cursor before the first event of a topic.

    Its tag is an HMAC under ``SECRET_KEY``, so that "from the beginning" cannot be invented by a
    client that may resume but not read history.
    """
    digest = hmac.new(conf.secret(b"realtime.beginning"), f"{epoch}.{topic}".encode(), "sha256")
    return Cursor(epoch, 0, int.from_bytes(digest.digest()[:4], "big"))


def new_epoch() -> str:
    """Return a random epoch: 47 bits, so that two lives of a log never share one by accident.

    No cursor begins with a hyphen, which a command line would take for an option.
    """
    return secrets.token_urlsafe(6).replace("-", "_")


def new_tag() -> int:
    """Return 32 random bits for an event."""
    return secrets.randbits(32)


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a topic's log is kept; the stricter of the two limits counts.

    Attributes:
        max_events: the newest events that are kept; 0 keeps none (and the head all the same).
        max_age: seconds that an event is kept, on the store's clock.
    """

    max_events: int
    max_age: float


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append did.

    Attributes:
        previous: the head before the first of the events, which a wake-up carries along.
        events: the new events in log order; fewer than drafts where ids had been seen.
        kept: how many events the log holds now, so that the caller knows when to trim.
    """

    previous: Cursor
    events: tuple[Event, ...]
    kept: int


@dataclass(frozen=True, slots=True)
class Page:
    """A contiguous piece of a log.

    Attributes:
        events: in log order; empty only if the cursor was the head.
        head: the log's head when it was read; the page is the last one if its last event is it.
    """

    events: tuple[Event, ...]
    head: Cursor


@dataclass(frozen=True, slots=True)
class Node:
    """A server process, as it described itself last.

    Attributes:
        id: random; another one for each life of a process, and after it was given up.
        host: the machine's name.
        pid: the process's number there.
        version: of this package.
        connections: clients that it holds now; a poll counts while it waits.
        topics: topics that they follow.
        followers: how many connections follow a topic, for the most followed ones.
        writes: how often it wrote to a client since it started, by the way that the bytes took:
            ``direct`` to the socket, ``buffered`` behind what waited for it in the server, or
            ``portable`` through the server's ``send()``.
        started: when it registered, seconds since 1970 on the store's clock.
        age: seconds since its last heartbeat, on the store's clock.
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
    """Who is on a topic, at one moment of its presence log.

    Attributes:
        cursor: the head of the log at that moment.
        members: JSON text by the member's id, in the order in which they came.
    """

    cursor: Cursor
    members: Mapping[str, str]


class Store(ABC):
    """The contract of a store; see the module's text for the guarantees.

    Every method raises ``StoreUnavailable`` if the store cannot be reached or is locked beyond the
    store's own bounded retries, and ``StoreError`` if it refuses for good. The call has then
    changed nothing; only if the connection was lost while committing, it may have appended what a
    repetition with the same ``Draft.id`` does not append again.
    The names with an ``a`` in front are the same for coroutines.
    """

    #: Do other processes see what this one appends?
    shared: bool = False
    #: Does the log outlive the process?
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
        """Append events to a topic's log, all or none, in a transaction of the store's own.

        A draft whose ``id`` was appended to this topic within the last hour is passed over, also if
        it comes twice in one call.
        Times are the store's clock and never decrease within the topic.
        """

    def append_claimed(self, topic: str, claim: Callable[[], Sequence[Draft]]) -> Appended | None:
        """Append the drafts of outbox rows, in the transaction that deletes the rows.

        Call it only if ``supports_claims`` is true and the outbox is on ``alias``.

        Args:
            topic: the topic, whose log is locked when ``claim`` is called.
            claim: deletes rows on ``alias`` and returns their drafts. It runs in the thread of the
                transaction, and runs again if the transaction has to be retried. The ids of the
                drafts are not looked up, since a deleted row does not come back.

        Returns:
            What was appended, or None if ``claim`` returned nothing.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot append in the transaction of an outbox; "
            "check supports_claims, and use append() if it is false"
        )

    @abstractmethod
    def heads(self, topics: Collection[str]) -> dict[str, Cursor]:
        """Return the head of each topic, in one query however many they are."""

    @abstractmethod
    def read(
        self, topic: str, after: Cursor, limit: int = READ_LIMIT, max_bytes: int = READ_BYTES
    ) -> Page:
        """Return the events that follow a cursor, oldest first.

        At most ``limit`` events and at most ``max_bytes`` of JSON, but at least one event if there
        is one, so that repeated calls with the last cursor always come to the head. An append or a
        trim at the same time never makes a hole in the page.

        Raises:
            CursorExpired: the log cannot be read on from there.
        """

    @abstractmethod
    def locate(self, topic: str, *, last: int | None = None, since: float | None = None) -> Cursor:
        """Return the cursor after which the wanted events follow.

        Args:
            topic: whose log.
            last: how many of the newest events are wanted.
            since: the moment (seconds since 1970, store's clock) from which on events are wanted.

        With both, the one that wants fewer counts; with neither, the head is returned. ``last``
        leaves out silently what was trimmed.

        Raises:
            CursorExpired: events from ``since`` on were trimmed, and ``last`` was not given.
        """

    @abstractmethod
    def trim(self, topic: str, retention: Retention) -> int:
        """Remove the events that the retention does not keep; return how many.

        Works in pieces, each a short transaction, so that no publisher waits for a long one.
        """

    @abstractmethod
    def renew(self, topic: str, epoch: str) -> Cursor:
        """Begin a new epoch if the log's epoch still is the given one; return the head.

        The events stay, under cursors of the new epoch. Called at the same time by many processes
        that saw the same contradiction, it begins one epoch.
        """

    @abstractmethod
    def delete(self, topic: str) -> Cursor:
        """Remove a topic's events and begin a new epoch at seq 0; return the head."""

    @abstractmethod
    def topics(self) -> Iterator[str]:
        """Iterate over the names of all topics that have a log."""

    @abstractmethod
    def clock(self) -> float:
        """Return the store's time, seconds since 1970."""

    # Nodes

    @abstractmethod
    def beat(self, node: Node, *, is_known: bool) -> bool:
        """Write a node's row, with the store's time; ``started`` and ``age`` are not read.

        Args:
            node: the row.
            is_known: it was written before, so that a row that is gone was removed by others.

        Returns:
            False, and nothing is written, if it is known and gone: the others gave it up, and it
            has to come back under another id.
        """

    @abstractmethod
    def nodes(self) -> Sequence[Node]:
        """Return all nodes that have a row, oldest first."""

    @abstractmethod
    def expire_node(self, node: str, age: float) -> bool:
        """Remove a node's row if its last heartbeat is so many seconds ago; its members stay.

        Returns:
            True if this call removed it: of several at the same time, one does.
        """

    # Members

    @abstractmethod
    def change_members(
        self, log: str, node: str, arrived: Mapping[str, str], left: Collection[str]
    ) -> Appended:
        """Write who is on a topic through a node, and append what follows from it.

        Of those who arrive, a ``join`` for each whom no node had; of those who left, a ``leave``
        for each whom no node has any more; all or none, and what is so already is passed over, so
        that a call whose answer was lost can be repeated.

        Args:
            log: the topic's presence log.
            node: the node's id.
            arrived: the members' JSON text by their ids.
            left: ids; none of ``arrived``.
        """

    @abstractmethod
    def members(self, log: str) -> MemberList:
        """Return who is on a topic; a read at one moment, which writes nothing."""

    @abstractmethod
    def members_of(self, node: str) -> Mapping[str, Sequence[str]]:
        """Return the members that a node has written: their ids, by presence log."""

    @abstractmethod
    def nodes_of_members(self) -> Collection[str]:
        """Return the ids of all nodes that have written members, with a row or without."""

    # Set-up

    def check(self) -> list[CheckMessage]:
        """Report what is wrong with the store's set-up, for ``manage.py check``.

        By default the database at ``alias`` is checked, if there is one.
        """
        return [] if self.alias is None else check_database(self.alias)

    def unshared(self) -> str:
        """Return why processes cannot share the logs, as the subject of a message; "" if they can.

        The class attribute ``shared`` says what the class can do. This method also looks at the
        settings: a database may be in the memory of one process.
        """
        name = type(self).__name__
        if not self.shared:
            return name
        if self.alias is not None and is_in_memory(self.alias):
            return f"{name} on {self.alias!r}, which is SQLite in memory,"
        return ""

    def close(self) -> None:  # noqa: B027 - nothing to close is a good answer
        """Give back what the store holds open; it can be used again afterwards."""

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

    async def amembers(self, log: str) -> MemberList:
        """Async version of ``members()``."""
        return await self._call(self.members, log)

    async def amembers_of(self, node: str) -> Mapping[str, Sequence[str]]:
        """Async version of ``members_of()``."""
        return await self._call(self.members_of, node)

    async def anodes_of_members(self) -> Collection[str]:
        """Async version of ``nodes_of_members()``."""
        return await self._call(self.nodes_of_members)
