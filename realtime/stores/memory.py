"""A store in the memory of one process: for tests, and for events that may be lost."""

from __future__ import annotations

import math
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
    LOOK_AGAIN_SECONDS,
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
    """A topic's log."""

    state: LogState
    time: float = 0.0  # of the last event, or of a later renew()
    due: float = 0.0  # when to look at the log next
    events: list[Event] = field(default_factory=list)  # seq is floor_seq + 1 + index
    seen: dict[str, float] = field(default_factory=dict)  # event id to append time, oldest first

    def tag_at(self, seq: int) -> int | None:
        """Return the tag of an event; None if it is not kept."""
        index = seq - self.state.floor_seq - 1
        if not 0 <= index < len(self.events):
            return None
        cursor = self.events[index].cursor
        return None if cursor is None else cursor.tag

    def cursor_at(self, seq: int) -> Cursor:
        """Return the cursor of an event that is kept, or the floor."""
        index = seq - self.state.floor_seq - 1
        cursor = self.events[index].cursor if index >= 0 else None
        return self.state.floor if cursor is None else cursor

    def count_before(self, moment: float) -> int:
        """Return how many of the kept events are older than a time."""
        low, high = 0, len(self.events)
        while low < high:
            middle = (low + high) // 2
            if (self.events[middle].time or 0.0) < moment:
                low = middle + 1
            else:
                high = middle
        return low


class MemoryStore(Store):
    """The logs of one process; they are lost when it ends.

    A call holds a lock for a few microseconds and never blocks otherwise, so the async versions
    call the methods directly.
    The retention passed to ``trim()`` bounds the store's memory, except for one small object per
    topic.
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
        self._nodes: dict[str, tuple[Node, float]] = {}  # node, last heartbeat
        self._forgotten = 0.0  # when the newest event of all forgotten logs was appended
        self._quotas: dict[str, tuple[int, float]] = {}  # used, and when the counter restarts
        # JSON texts by presence log, member id and node; members() returns the first node's text.
        self._members: dict[str, dict[str, dict[str, str]]] = {}

    def clock(self) -> float:
        """Return the store's time, seconds since 1970."""
        return time.time()

    def append(self, topic: str, drafts: Sequence[Draft]) -> Appended:
        """Append events to a topic's log, all or none."""
        with self._lock:
            log = self._logs.get(topic) or _Log(self._state(topic))
            now = self.clock()
            self._expire_seen(log, now)
            previous = last = log.state.head
            event_time = max(log.time, now)
            events: list[Event] = []
            seen: dict[str, float] = {}
            for draft in drafts:
                if draft.id is not None:
                    if draft.id in log.seen or draft.id in seen:
                        continue
                    seen[draft.id] = now
                last = Cursor(last.epoch, last.seq + 1, new_tag())
                events.append(Event(topic, draft.name, draft.json, last, event_time, draft.origin))
            # Nothing below can fail, so the append is all or none.
            if events:
                self._logs[topic] = log
                log.state = replace(log.state, seq=last.seq, tag=last.tag)
                log.time = event_time
                if not log.events:
                    log.due = now
                log.events += events
                log.seen |= seen
            return Appended(previous, tuple(events), len(log.events))

    def _expire_seen(self, log: _Log, now: float) -> None:
        old = [key for key, seen in log.seen.items() if seen < now - SEEN_SECONDS]
        for key in old:
            del log.seen[key]

    def heads(self, topics: Collection[str]) -> dict[str, Cursor]:
        """Return the head of each topic."""
        with self._lock:
            return {topic: self._state(topic).head for topic in topics}

    def _state(self, topic: str) -> LogState:
        log = self._logs.get(topic)
        if log is None:
            return LogState(topic, self._id, floor_time=self._forgotten)
        return log.state

    def read(
        self, topic: str, after: Cursor, limit: int = READ_LIMIT, max_bytes: int = READ_BYTES
    ) -> Page:
        """Return the events after a cursor, oldest first."""
        with self._lock:
            log = self._logs.get(topic)
            if log is None:
                state = LogState(topic, self._id)
                state.check(after, None)
                return Page((), state.head)
            state = log.state
            state.check(after, log.tag_at(after.seq))
            start = after.seq - state.floor_seq
            events = log.events[start : start + max(limit, 1)]
        return Page(cut(events, max_bytes), state.head)

    def locate(self, topic: str, *, last: int | None = None, since: float | None = None) -> Cursor:
        """Return the cursor from which ``read()`` returns the wanted events."""
        with self._lock:
            log = self._logs.get(topic)
            state = self._state(topic)
            if since is not None and last is None:
                state.check_since(since)
            if log is None:
                return state.head
            floor = seq = state.floor_seq
            if last is not None:
                seq = max(seq, log.state.seq - max(last, 0))
            if since is not None:
                seq = max(seq, floor + log.count_before(since))
            if last is None and since is None:
                seq = log.state.seq
            return log.state.head if seq == log.state.seq else log.cursor_at(seq)

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
                seq = log.state.floor_seq + count
                floor = log.cursor_at(seq)
                log.state = replace(
                    log.state,
                    floor_seq=seq,
                    floor_tag=floor.tag,
                    floor_time=log.events[count - 1].time or 0.0,
                )
                del log.events[:count]
            self._expire_seen(log, self.clock())
            self._set_due(topic, log, retention)
            return count

    def _set_due(self, topic: str, log: _Log, retention: Retention) -> None:
        now, last = self.clock(), max(log.time, log.state.floor_time)
        oldest = log.events[0].time if log.events else None
        due = retention.next_look(now, oldest, last)
        log.due = math.inf if due is None else due
        if oldest is None and log.due <= now:
            if topic in self._members:
                log.due = now + LOOK_AGAIN_SECONDS
                return
            self._forgotten = max(self._forgotten, last)
            del self._logs[topic]

    def due(self) -> Iterator[str]:
        """Iterate over the names of the logs that have to be trimmed now."""
        with self._lock:
            now = self.clock()
            return iter([name for name, log in self._logs.items() if log.due <= now])

    def renew(self, topic: str, epoch: str) -> Cursor:
        """Begin a new epoch if the log's epoch is still ``epoch``; return the head."""
        with self._lock:
            state = self._state(topic)
            if state.epoch != epoch:
                return state.head
            log = self._logs.setdefault(topic, _Log(state))
            log.state = renewed = replace(state, epoch=new_epoch())
            log.time = max(log.time, self.clock())
            log.events = [
                replace(event, cursor=replace(event.cursor, epoch=renewed.epoch))
                for event in log.events
                if event.cursor is not None
            ]
            return renewed.head

    def delete(self, topic: str) -> Cursor:
        """Remove a topic's events and begin a new epoch at seq 0; return the head."""
        with self._lock:
            log = self._logs.setdefault(topic, _Log(self._state(topic)))
            log.state = LogState(topic, new_epoch(), floor_time=max(log.time, self.clock()))
            log.events = []
            log.due = 0.0
            return log.state.head

    def topics(self) -> Iterator[str]:
        """Iterate over the names of all topics that have a log."""
        with self._lock:
            return iter(sorted(self._logs))

    def take(self, quota: str, amount: int, limit: int, seconds: float) -> bool:
        """Add to a counter of the whole site, unless it would then exceed a limit."""
        with self._lock:
            now = self.clock()
            used, until = self._quotas.get(quota, (0, 0.0))
            if now >= until:
                used, until = 0, now + seconds
            if used + amount > limit:
                return False
            self._quotas[quota] = used + amount, until
            return True

    def beat(self, node: Node, *, is_known: bool) -> bool:
        """Write a node's row, with the time of the store's clock."""
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
        """Remove a node's row if its last heartbeat is at least ``age`` seconds old."""
        with self._lock:
            if node not in self._nodes or self.clock() - self._nodes[node][1] < age:
                return False
            del self._nodes[node]
            return True

    def change_members(
        self, log: str, node: str, arrived: Mapping[str, str], left: Collection[str]
    ) -> Appended:
        """Add and remove a node's members of a topic, and append the joins and leaves."""
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

    def members(self, log: str, limit: int | None = None) -> MemberList:
        """Return a topic's members, or only their number, and the head of its presence log."""
        with self._lock:
            members = self._members.get(log, {})
            if limit is not None and len(members) > limit:
                return MemberList(self._state(log).head, {}, len(members))
            shown = {uid: next(iter(by_node.values())) for uid, by_node in members.items()}
            return MemberList(self._state(log).head, shown)

    def members_of(self, node: str) -> Mapping[str, Sequence[str]]:
        """Return the ids of a node's members, by presence log."""
        with self._lock:
            found: dict[str, list[str]] = {}
            for log, members in self._members.items():
                for uid in (uid for uid, by_node in members.items() if node in by_node):
                    found.setdefault(log, []).append(uid)
            return found

    def nodes_of_members(self) -> Collection[str]:
        """Return the ids of all nodes that have members."""
        with self._lock:
            logs = self._members.values()
            return {node for log in logs for by_node in log.values() for node in by_node}

    async def _call(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(*args, **kwargs)
