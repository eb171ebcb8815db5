"""A store in the memory of one process: for tests and for what may be forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from django.core.exceptions import ImproperlyConfigured

from realtime.protocol.events import Cursor, Draft, Event
from realtime.stores.base import (
    JOIN,
    LEAVE,
    READ_BYTES,
    READ_LIMIT,
    SEEN_SECONDS,
    Appended,
    MemberList,
    Node,
    Page,
    Retention,
    Store,
    new_epoch,
    new_tag,
)
from realtime.stores.log_state import LogState, cut

__all__ = ["MemoryStore"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class _Log:
    standing: LogState
    time: float = 0.0
    events: list[Event] = field(default_factory=list)  # seq is floor_seq + 1 + index
    seen: dict[str, float] = field(default_factory=dict)  # id -> time, oldest first

    def tag_at(self, seq: int) -> int | None:
        """Return the tag of an event that is kept."""
        index = seq - self.standing.floor_seq - 1
        if not 0 <= index < len(self.events):
            return None
        cursor = self.events[index].cursor
        return None if cursor is None else cursor.tag

    def cursor_at(self, seq: int) -> Cursor:
        """Return the cursor of an event that is kept, or of the floor."""
        index = seq - self.standing.floor_seq - 1
        cursor = self.events[index].cursor if index >= 0 else None
        return self.standing.floor if cursor is None else cursor

    def count_before(self, moment: float) -> int:
        """Return how many of the events that are kept are older than a moment."""
        low, high = 0, len(self.events)
        while low < high:
            middle = (low + high) // 2
            if (self.events[middle].time or 0.0) < moment:
                low = middle + 1
            else:
                high = middle
        return low


class MemoryStore(Store):
    """The logs of one process, gone with it.

    Every call takes a lock for some microseconds and never waits for anything else, so the
    coroutines run in place.
    What it keeps is bounded by the retention that ``trim()`` is given, and by a row per topic.
    """

    shared = False
    durable = False

    def __init__(self, location: str = "", options: dict[str, object] | None = None) -> None:
        super().__init__(location, options)
        if location or options:
            raise ImproperlyConfigured("MemoryStore takes no LOCATION and no OPTIONS")
        self._lock = threading.RLock()
        self._id = new_epoch()
        self._logs: dict[str, _Log] = {}
        self._nodes: dict[str, tuple[Node, float]] = {}  # with the time of the last heartbeat
        # By log, then by member: JSON text by node; the first one's is what is shown.
        self._members: dict[str, dict[str, dict[str, str]]] = {}

    def clock(self) -> float:
        """Return the store's time, seconds since 1970."""
        return time.time()

    def append(self, topic: str, drafts: Sequence[Draft]) -> Appended:
        """Append events to a topic's log, all or none."""
        with self._lock:
            log = self._logs.get(topic) or _Log(LogState(topic, self._id))
            now = self.clock()
            self._forget_seen(log, now)
            previous = last = log.standing.head
            moment = max(log.time, now)
            events: list[Event] = []
            seen: dict[str, float] = {}
            for draft in drafts:
                if draft.id is not None:
                    if draft.id in log.seen or draft.id in seen:
                        continue
                    seen[draft.id] = now
                last = Cursor(last.epoch, last.seq + 1, new_tag())
                events.append(Event(topic, draft.name, draft.json, last, moment, draft.origin))
            # From here on nothing can fail.
            if events:
                self._logs[topic] = log
                log.standing = replace(log.standing, seq=last.seq, tag=last.tag)
                log.time = moment
                log.events += events
                log.seen |= seen
            return Appended(previous, tuple(events), len(log.events))

    def _forget_seen(self, log: _Log, now: float) -> None:
        old = [key for key, seen in log.seen.items() if seen < now - SEEN_SECONDS]
        for key in old:
            del log.seen[key]

    def heads(self, topics: Collection[str]) -> dict[str, Cursor]:
        """Return the head of each topic."""
        with self._lock:
            return {topic: self._standing(topic).head for topic in topics}

    def _standing(self, topic: str) -> LogState:
        log = self._logs.get(topic)
        return LogState(topic, self._id) if log is None else log.standing

    def read(
        self, topic: str, after: Cursor, limit: int = READ_LIMIT, max_bytes: int = READ_BYTES
    ) -> Page:
        """Return the events that follow a cursor, oldest first."""
        with self._lock:
            log = self._logs.get(topic)
            if log is None:
                standing = LogState(topic, self._id)
                standing.check(after, None)
                return Page((), standing.head)
            standing = log.standing
            standing.check(after, log.tag_at(after.seq))
            start = after.seq - standing.floor_seq
            events = log.events[start : start + max(limit, 1)]
        return Page(cut(events, max_bytes), standing.head)

    def locate(self, topic: str, *, last: int | None = None, since: float | None = None) -> Cursor:
        """Return the cursor after which the wanted events follow."""
        with self._lock:
            log = self._logs.get(topic)
            if log is None:
                return LogState(topic, self._id).head
            floor = seq = log.standing.floor_seq
            if since is not None and last is None:
                log.standing.check_moment(since)
            if last is not None:
                seq = max(seq, log.standing.seq - max(last, 0))
            if since is not None:
                seq = max(seq, floor + log.count_before(since))
            if last is None and since is None:
                seq = log.standing.seq
            return log.standing.head if seq == log.standing.seq else log.cursor_at(seq)

    def trim(self, topic: str, retention: Retention) -> int:
        """Remove the events that the retention does not keep; return how many."""
        with self._lock:
            log = self._logs.get(topic)
            if log is None:
                return 0
            count = max(
                len(log.events) - max(retention.max_events, 0),
                log.count_before(self.clock() - retention.max_age),
                0,
            )
            if count:
                seq = log.standing.floor_seq + count
                floor = log.cursor_at(seq)
                log.standing = replace(
                    log.standing,
                    floor_seq=seq,
                    floor_tag=floor.tag,
                    floor_time=log.events[count - 1].time or 0.0,
                )
                del log.events[:count]
            self._forget_seen(log, self.clock())
            return count

    def renew(self, topic: str, epoch: str) -> Cursor:
        """Begin a new epoch if the log's epoch still is the given one; return the head."""
        with self._lock:
            standing = self._standing(topic)
            if standing.epoch != epoch:
                return standing.head
            log = self._logs.setdefault(topic, _Log(standing))
            log.standing = renewed = replace(standing, epoch=new_epoch())
            log.events = [
                replace(event, cursor=replace(event.cursor, epoch=renewed.epoch))
                for event in log.events
                if event.cursor is not None
            ]
            return renewed.head

    def delete(self, topic: str) -> Cursor:
        """Remove a topic's events and begin a new epoch at seq 0; return the head."""
        with self._lock:
            log = self._logs.setdefault(topic, _Log(self._standing(topic)))
            log.standing = LogState(topic, new_epoch(), floor_time=max(log.time, self.clock()))
            log.events = []
            return log.standing.head

    def topics(self) -> Iterator[str]:
        """Iterate over the names of all topics that have a log."""
        with self._lock:
            return iter(sorted(self._logs))

    def beat(self, node: Node, *, is_known: bool) -> bool:
        """Write a node's row, with the store's time."""
        with self._lock:
            before = self._nodes.get(node.id)
            if before is None and is_known:
                return False
            now = self.clock()
            started = now if before is None else before[0].started
            self._nodes[node.id] = (replace(node, started=started, age=0.0), now)
            return True

    def nodes(self) -> Sequence[Node]:
        """Return all nodes that have a row, oldest first."""
        with self._lock:
            now = self.clock()
            return [replace(node, age=max(0.0, now - seen)) for node, seen in self._nodes.values()]

    def expire_node(self, node: str, age: float) -> bool:
        """Remove a node's row if its last heartbeat is so many seconds ago; its members stay."""
        with self._lock:
            if node not in self._nodes or self.clock() - self._nodes[node][1] < age:
                return False
            del self._nodes[node]
            return True

    def change_members(
        self, log: str, node: str, arrived: Mapping[str, str], left: Collection[str]
    ) -> Appended:
        """Write who is on a topic through a node, and append what follows from it."""
        with self._lock:
            members = self._members.setdefault(log, {})
            drafts: list[Draft] = []
            for uid, text in arrived.items():
                if uid not in members:
                    drafts.append(Draft(JOIN, text))
                members.setdefault(uid, {}).setdefault(node, text)
            for uid in left:
                by_node = members.get(uid, {})
                if node in by_node:
                    text = by_node.pop(node)
                    if not by_node:
                        del members[uid]
                        drafts.append(Draft(LEAVE, text))
            if not members:
                del self._members[log]
            return self.append(log, drafts)

    def members(self, log: str) -> MemberList:
        """Return who is on a topic."""
        with self._lock:
            members = self._members.get(log, {})
            shown = {uid: next(iter(by_node.values())) for uid, by_node in members.items()}
            return MemberList(self._standing(log).head, shown)

    def members_of(self, node: str) -> Mapping[str, Sequence[str]]:
        """Return the members that a node has written: their ids, by presence log."""
        with self._lock:
            found: dict[str, list[str]] = {}
            for log, members in self._members.items():
                for uid in (uid for uid, by_node in members.items() if node in by_node):
                    found.setdefault(log, []).append(uid)
            return found

    def nodes_of_members(self) -> Collection[str]:
        """Return the ids of all nodes that have written members."""
        with self._lock:
            every = self._members.values()
            return {node for log in every for by_node in log.values() for node in by_node}

    async def _call(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(*args, **kwargs)
