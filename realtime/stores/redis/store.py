"""A store in Redis, on one server or on a Redis Cluster.

Every operation is one Lua script, so that it is atomic and takes one round trip; ``heads()`` is one
``MGET``.

Topics are divided into partitions. The number of a topic's partition is the hash tag of all its
keys, so that they are on the same node of a cluster.
A single server has one partition. A cluster has 256, each with its own store id, because its nodes
lose their data independently of each other.

If Redis loses data (a restart without persistence, an older dump, a replica that was behind), the
logs are rewound, and their followers are reset once.
"""

from __future__ import annotations

import math
from binascii import crc_hqx
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from realtime.protocol.events import Cursor, Draft, Event
from realtime.stores.base import (
    LOOK_AGAIN_SECONDS,
    READ_BYTES,
    READ_LIMIT,
    SEEN_SECONDS,
    Appended,
    Page,
    Retention,
    new_epoch,
    new_tag,
)
from realtime.stores.log_state import LogState, cut
from realtime.stores.redis.clients import RedisAccess, Target
from realtime.stores.redis.members import RedisMembers
from realtime.stores.redis.scripts import (
    ADD_TO_INDEX,
    APPEND,
    CLOCK,
    DELETE,
    DUE,
    LOCATE,
    READ,
    RENEW,
    TAKE,
    TRIM,
    log_state_of,
)

__all__ = ["RedisStore"]

CLUSTER_PARTITIONS = 256  # spreads well over dozens of nodes; changing it would lose all logs
TIMEOUT_SECONDS = 2.0  # a healthy server answers within milliseconds
KEEPALIVE_SECONDS = 15  # balancers and firewalls forget idle connections after a minute or more
MAX_TIMEOUT_SECONDS = 10.0  # less than the timeouts of clients and the outbox's lease
HEADS_BATCH = 2_000  # keys per command, which blocks the server for about 2 ms
TRIM_BATCH = 1_000  # events per script, which takes a few ms
TOPICS_BATCH = 500


class RedisStore(RedisMembers):
    """The logs in Redis.

    Args:
        location: a URL that begins with ``redis://``, ``rediss://`` or ``unix://``; for a cluster,
            the URLs of one or more nodes, separated by commas.
        options: ``prefix`` of the keys, by default "realtime"; ``timeout`` in seconds to connect
            and to wait for an answer, by default 2; ``keepalive``, the whole seconds after which
            an idle connection is tried before it is used, by default 15; ``cluster``, whether it is
            a Redis Cluster.

    It needs Redis 6.2 or newer, the ``maxmemory-policy`` ``noeviction``, and persistence if events
    have to survive a restart of the server.
    """

    shared = True
    durable = True

    def __init__(self, location: str = "", options: dict[str, object] | None = None) -> None:
        super().__init__(location, options)
        unknown = sorted(self.options.keys() - {"prefix", "timeout", "keepalive", "cluster"})
        if unknown:
            raise ImproperlyConfigured(
                f"RedisStore has no option {unknown[0]!r}; it has prefix, timeout, keepalive and "
                "cluster"
            )
        self._prefix = _prefix(self.options.get("prefix", "realtime"))
        cluster = self.options.get("cluster", False)
        if not isinstance(cluster, bool):
            raise ImproperlyConfigured(
                f'RedisStore\'s OPTIONS["cluster"] is {cluster!r}, neither True nor False'
            )
        timeout = _timeout(self.options.get("timeout", TIMEOUT_SECONDS))
        self._partitions = CLUSTER_PARTITIONS if cluster else 1
        keepalive = _keepalive(self.options.get("keepalive", KEEPALIVE_SECONDS))
        target = Target.of(location, cluster=cluster, timeout=timeout, keepalive=keepalive)
        site_key = f"{self._prefix}:{{0}}:site"
        self._access = RedisAccess(target, type(self).__name__, site_key)

    # Keys

    def _partition(self, topic: str) -> int:
        return crc_hqx(topic.encode(), 0) % self._partitions

    def _key_start(self, topic: str) -> str:
        return f"{self._prefix}:{{{self._partition(topic)}}}:"

    def _keys(self, topic: str) -> tuple[str, ...]:
        return self._keys_of(self._partition(topic), topic)

    def _keys_of(self, partition: int, topic: str = "") -> tuple[str, ...]:
        start = f"{self._prefix}:{{{partition}}}:"
        return (
            f"{start}meta:{topic}",
            f"{start}log:{topic}",
            f"{start}seen:{topic}",
            f"{start}id",
            f"{start}topics",
            f"{start}forgotten",
            f"{start}due",
        )

    # Appending

    def append(self, topic: str, drafts: Sequence[Draft]) -> Appended:
        """Append events to a topic's log, all or none."""
        tags, args = _append_args(topic, drafts)
        answer = self._access.run(APPEND, self._keys(topic), *args)
        return _appended(topic, drafts, tags, answer)

    async def aappend(self, topic: str, drafts: Sequence[Draft]) -> Appended:
        """Async version of ``append()``."""
        tags, args = _append_args(topic, drafts)
        answer = await self._access.arun(APPEND, self._keys(topic), *args)
        return _appended(topic, drafts, tags, answer)

    # Reading

    def heads(self, topics: Collection[str]) -> dict[str, Cursor]:
        """Return the head of each topic, with one pipelined command for each partition.

        On a cluster, the call fails if the node of any topic cannot be reached. Ask for fewer
        topics to get the heads from the other nodes.
        """
        found: dict[str, Cursor] = {}
        for groups in self._groups(topics):
            while new := _take_heads(groups, self._access.mget(self._meta_keys(groups)), found):
                for topic in new:
                    self.locate(topic)  # creates the store id
        return found

    async def aheads(self, topics: Collection[str]) -> dict[str, Cursor]:
        """Async version of ``heads()``."""
        found: dict[str, Cursor] = {}
        for groups in self._groups(topics):
            keys = self._meta_keys(groups)
            while new := _take_heads(groups, await self._access.amget(keys), found):
                for topic in new:
                    await self.alocate(topic)  # creates the store id
        return found

    def _groups(self, topics: Collection[str]) -> Iterator[list[list[str]]]:
        """Yield batches of topics, each grouped by partition."""
        names = list(topics)
        for start in range(0, len(names), HEADS_BATCH):
            groups: dict[int, list[str]] = {}
            for topic in names[start : start + HEADS_BATCH]:
                groups.setdefault(self._partition(topic), []).append(topic)
            yield list(groups.values())

    def _meta_keys(self, groups: Sequence[Sequence[str]]) -> list[list[str]]:
        keys = []
        for group in groups:
            start = self._key_start(group[0])
            keys.append([f"{start}id", *(f"{start}meta:{topic}" for topic in group)])
        return keys

    def read(
        self, topic: str, after: Cursor, limit: int = READ_LIMIT, max_bytes: int = READ_BYTES
    ) -> Page:
        """Return the events after a cursor, oldest first."""
        args = new_epoch(), after.seq, max(limit, 1), max_bytes
        answer = self._access.run(READ, self._keys(topic), *args)
        return _page(topic, after, max_bytes, answer)

    async def aread(
        self, topic: str, after: Cursor, limit: int = READ_LIMIT, max_bytes: int = READ_BYTES
    ) -> Page:
        """Async version of ``read()``."""
        args = new_epoch(), after.seq, max(limit, 1), max_bytes
        answer = await self._access.arun(READ, self._keys(topic), *args)
        return _page(topic, after, max_bytes, answer)

    def locate(self, topic: str, *, last: int | None = None, since: float | None = None) -> Cursor:
        """Return the cursor from which ``read()`` returns the wanted events."""
        args = new_epoch(), _or_empty(last), _or_empty(since)
        answer = self._access.run(LOCATE, self._keys(topic), *args)
        return _cursor(topic, last, since, answer)

    async def alocate(
        self, topic: str, *, last: int | None = None, since: float | None = None
    ) -> Cursor:
        """Async version of ``locate()``."""
        args = new_epoch(), _or_empty(last), _or_empty(since)
        answer = await self._access.arun(LOCATE, self._keys(topic), *args)
        return _cursor(topic, last, since, answer)

    # Trimming and epochs

    def trim(self, topic: str, retention: Retention) -> int:
        """Remove the events that the retention does not keep; return how many."""
        keys, args = self._member_keys(topic), _trim_args(topic, retention)
        removed = 0
        while count := int(self._access.run(TRIM, keys, *args)):
            removed += count
        return removed

    async def atrim(self, topic: str, retention: Retention) -> int:
        """Async version of ``trim()``."""
        keys, args = self._member_keys(topic), _trim_args(topic, retention)
        removed = 0
        while count := int(await self._access.arun(TRIM, keys, *args)):
            removed += count
        return removed

    def renew(self, topic: str, epoch: str) -> Cursor:
        """Begin a new epoch if the log's epoch is still ``epoch``; return the head."""
        args = new_epoch(), topic, epoch, new_epoch()
        return log_state_of(topic, self._access.run(RENEW, self._keys(topic), *args)).head

    async def arenew(self, topic: str, epoch: str) -> Cursor:
        """Async version of ``renew()``."""
        args = new_epoch(), topic, epoch, new_epoch()
        return log_state_of(topic, await self._access.arun(RENEW, self._keys(topic), *args)).head

    def delete(self, topic: str) -> Cursor:
        """Remove a topic's events and begin a new epoch at seq 0; return the head."""
        args = new_epoch(), topic, new_epoch()
        return log_state_of(topic, self._access.run(DELETE, self._keys(topic), *args)).head

    async def adelete(self, topic: str) -> Cursor:
        """Async version of ``delete()``."""
        args = new_epoch(), topic, new_epoch()
        return log_state_of(topic, await self._access.arun(DELETE, self._keys(topic), *args)).head

    # The whole store

    def topics(self) -> Iterator[str]:
        """Iterate over the names of all topics that have a log."""
        for partition in range(self._partitions):
            for names in self._names(partition):
                yield from (name.decode() for name in names)

    def _names(self, partition: int) -> Iterator[set[bytes]]:
        """Yield batches of the names of a partition's logs."""
        key = f"{self._prefix}:{{{partition}}}:topics"
        seen: set[bytes] = set()  # SSCAN can return a name again if the set changes meanwhile
        scan_cursor = -1
        while scan_cursor:
            scan_cursor, names = self._access.scan_set(key, max(scan_cursor, 0), TOPICS_BATCH)
            yield set(names) - seen
            seen.update(names)

    def due(self) -> Iterator[str]:
        """Iterate over the names of the logs that have to be trimmed now, each once."""
        for partition in range(self._partitions):
            keys = self._keys_of(partition)
            missing, names = self._access.run(DUE, keys, "", TOPICS_BATCH)
            if missing:
                for batch in self._names(partition):
                    self._access.run(ADD_TO_INDEX, keys, *batch)
                _, names = self._access.run(DUE, keys, "", TOPICS_BATCH)
            found: set[bytes] = set()
            # The logs of the batch before are trimmed, so they are no longer due.
            while batch := set(names) - found:
                found |= batch
                yield from (name.decode() for name in batch)
                _, names = self._access.run(DUE, keys, "", TOPICS_BATCH)

    def clock(self) -> float:
        """Return the store's time, seconds since 1970."""
        return _time(self._access.run(CLOCK, self._keys("")))

    async def aclock(self) -> float:
        """Async version of ``clock()``."""
        return _time(await self._access.arun(CLOCK, self._keys("")))

    def take(self, quota: str, amount: int, limit: int, seconds: float) -> bool:
        """Add to a counter of the whole site, unless it would then exceed a limit."""
        return bool(self._access.run(TAKE, *self._quota(quota, amount, limit, seconds)))

    async def atake(self, quota: str, amount: int, limit: int, seconds: float) -> bool:
        """Async version of ``take()``."""
        return bool(await self._access.arun(TAKE, *self._quota(quota, amount, limit, seconds)))

    def _quota(self, quota: str, amount: int, limit: int, seconds: float) -> tuple[Any, ...]:
        key = f"{self._prefix}:{{0}}:quota:{quota}"
        return (key,), amount, limit, max(1, round(seconds * 1000))

    def close(self) -> None:
        """Close the store's connections; the next call opens new ones."""
        self._access.close()


# Options


def _prefix(value: object) -> str:
    if not isinstance(value, str) or not value or any(character in value for character in "{} \n"):
        raise ImproperlyConfigured(
            f'RedisStore\'s OPTIONS["prefix"] is {value!r}; give text without braces and spaces'
        )
    return value


def _timeout(value: object) -> float:
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 < value <= MAX_TIMEOUT_SECONDS
    ):
        return float(value)
    raise ImproperlyConfigured(
        f'RedisStore\'s OPTIONS["timeout"] is {value!r}; '
        f"give seconds, more than 0 and at most {MAX_TIMEOUT_SECONDS:g}"
    )


def _keepalive(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 3_600:
        return value
    raise ImproperlyConfigured(
        f'RedisStore\'s OPTIONS["keepalive"] is {value!r}; give whole seconds from 1 to 3600'
    )


# Arguments and answers of the scripts


def _or_empty(value: float | None) -> str:
    return "" if value is None else repr(value)


def _append_args(topic: str, drafts: Sequence[Draft]) -> tuple[list[int], list[object]]:
    tags = [new_tag() for _ in drafts]
    args: list[object] = [new_epoch(), topic, SEEN_SECONDS]
    for draft, tag in zip(drafts, tags, strict=True):
        text = f"{tag} {draft.origin or '-'} {draft.name}\n{draft.json}"
        args += (draft.id or "", tag, text)
    return tags, args


def _trim_args(topic: str, retention: Retention) -> tuple[object, ...]:
    look_again = None if retention.look_again == math.inf else retention.look_again
    return (
        "",
        retention.max_events,
        retention.max_age,
        SEEN_SECONDS,
        TRIM_BATCH,
        new_tag(),
        topic,
        _or_empty(retention.forget_after),
        _or_empty(look_again),
        LOOK_AGAIN_SECONDS,
    )


def _event(topic: str, epoch: str, seq: int, entry: bytes) -> Event:
    head, _, json = entry.decode().partition("\n")
    time, tag, origin, name = head.split(" ", 3)
    cursor = Cursor(epoch, seq, int(tag))
    return Event(topic, name, json, cursor, float(time), None if origin == "-" else origin)


def _appended(
    topic: str, drafts: Sequence[Draft], tags: Sequence[int], answer: Sequence[Any]
) -> Appended:
    state = log_state_of(topic, answer[0])
    time, kept, seen = float(answer[1]), int(answer[2]), set(map(int, answer[3:]))
    events: list[Event] = []
    for number, (draft, tag) in enumerate(zip(drafts, tags, strict=True)):
        if number not in seen:
            cursor = Cursor(state.epoch, state.seq + len(events) + 1, tag)
            events.append(Event(topic, draft.name, draft.json, cursor, time, draft.origin))
    return Appended(state.head, tuple(events), kept)


def _take_heads(
    groups: Sequence[Sequence[str]], answers: Sequence[Sequence[Any]], found: dict[str, Cursor]
) -> list[str]:
    """Add the heads to ``found``; return one topic of each partition without a store id."""
    new = []
    for topics, (store_id, *metas) in zip(groups, answers, strict=True):
        for topic, meta in zip(topics, metas, strict=True):
            if meta is not None:
                found[topic] = log_state_of(topic, meta).head
            elif store_id is not None:
                found[topic] = LogState(topic, store_id.decode()).head
            else:
                new.append(topic)
                break
    return new


def _page(topic: str, after: Cursor, max_bytes: int, answer: Sequence[Any]) -> Page:
    meta, own, *entries = answer
    state = log_state_of(topic, meta)
    own_tag = None if own is None else int(own.split(b" ", 2)[1])
    state.check(after, own_tag)
    if not entries and after.seq < state.seq:
        raise state.expired(after, contradicts=False)  # the next entries were deleted by hand
    events = [
        _event(topic, state.epoch, after.seq + number, entry)
        for number, entry in enumerate(entries, 1)
    ]
    return Page(cut(events, max_bytes), state.head)


def _cursor(topic: str, last: int | None, since: float | None, answer: Sequence[Any]) -> Cursor:
    state = log_state_of(topic, answer[0])
    seq, entry = int(answer[1]), answer[2]
    if since is not None and last is None:
        state.check_since(since)
    if seq == state.floor_seq:
        return state.floor
    if seq == state.seq or entry is None:  # without its entry, the log cannot be read from seq
        return state.head
    return state.cursor(seq, int(entry.split(b" ", 2)[1]))


def _time(answer: Sequence[Any]) -> float:
    seconds, microseconds = answer
    return int(seconds) + int(microseconds) / 1_000_000
