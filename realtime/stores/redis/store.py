"""A store in Redis, on one server or on a Redis Cluster.

Every operation is one Lua script, so that it is atomic and costs one round trip; ``heads()`` is one
``MGET``.

The keys of a log share a hash tag, and so a node of a cluster: the number of the part that the
topic belongs to.
A server is one part. A cluster has 256, each with a store id of its own, since its nodes lose
their data by themselves.

What Redis forgets (a restart without persistence, an older dump, a replica that was behind) is a
rewound log: its followers are reset, once.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from realtime.protocol.events import Cursor, Draft, Event
from realtime.stores.base import (
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
    APPEND,
    CLOCK,
    DELETE,
    LOCATE,
    READ,
    RENEW,
    TRIM,
    log_state_of,
)

__all__ = ["RedisStore"]

CLUSTER_PARTS = 256  # some dozens of nodes share them evenly; it must never change
TIMEOUT_SECONDS = 2.0  # a server that answers at all does so in milliseconds
MOST_SECONDS = 10.0  # less than a client, and the outbox's lease, wait for a store
HEADS_PIECE = 2_000  # keys a command: some 2 ms in which the server does nothing else
TRIM_PIECE = 1_000  # events: some ms
TOPICS_PIECE = 500


class RedisStore(RedisMembers):
    """The logs in Redis.

    Args:
        location: ``redis://``, ``rediss://`` or ``unix://``; of a cluster one or more nodes,
            separated by commas.
        options: ``prefix`` of the keys, by default "realtime"; ``timeout`` in seconds to connect
            and for an answer, by default 2; ``cluster``, whether it is a Redis Cluster.

    It needs Redis 6.2 or newer, a ``maxmemory-policy`` that evicts nothing (``noeviction``), and
    persistence if events are to outlive a restart of the server.
    """

    shared = True
    durable = True

    def __init__(self, location: str = "", options: dict[str, object] | None = None) -> None:
        super().__init__(location, options)
        unknown = sorted(self.options.keys() - {"prefix", "timeout", "cluster"})
        if unknown:
            raise ImproperlyConfigured(
                f"RedisStore has no option {unknown[0]!r}; it has prefix, timeout and cluster"
            )
        self._prefix = _prefix(self.options.get("prefix", "realtime"))
        cluster = self.options.get("cluster", False)
        if not isinstance(cluster, bool):
            raise ImproperlyConfigured(
                f'RedisStore\'s OPTIONS["cluster"] is {cluster!r}, neither True nor False'
            )
        timeout = _timeout(self.options.get("timeout", TIMEOUT_SECONDS))
        self._parts = CLUSTER_PARTS if cluster else 1
        target = Target.of(location, cluster=cluster, timeout=timeout)
        self._access = RedisAccess(target, type(self).__name__)

    # Keys

    def _part(self, topic: str) -> int:
        return crc_hqx(topic.encode(), 0) % self._parts

    def _start(self, topic: str) -> str:
        return f"{self._prefix}:{{{self._part(topic)}}}:"

    def _keys(self, topic: str) -> tuple[str, ...]:
        start = self._start(topic)
        return (
            f"{start}meta:{topic}",
            f"{start}log:{topic}",
            f"{start}seen:{topic}",
            f"{start}id",
            f"{start}topics",
        )

    # Appending

    def append(self, topic: str, drafts: Sequence[Draft]) -> Appended:
        """Append events to a topic's log, all or none, in one step."""
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
        """Return the head of each topic: one command for each part of the store, sent at once.

        On a cluster it raises if one of the nodes that are asked is away; ask for fewer topics to
        have those of the others.
        """
        found: dict[str, Cursor] = {}
        for groups in self._groups(topics):
            while new := _take_heads(groups, self._access.mget(self._meta_keys(groups)), found):
                for topic in new:
                    self.locate(topic)  # makes the store id
        return found

    async def aheads(self, topics: Collection[str]) -> dict[str, Cursor]:
        """Async version of ``heads()``."""
        found: dict[str, Cursor] = {}
        for groups in self._groups(topics):
            keys = self._meta_keys(groups)
            while new := _take_heads(groups, await self._access.amget(keys), found):
                for topic in new:
                    await self.alocate(topic)
        return found

    def _groups(self, topics: Collection[str]) -> Iterator[list[list[str]]]:
        """Yield the topics in pieces, in each of them those of a part together."""
        names = list(topics)
        for start in range(0, len(names), HEADS_PIECE):
            groups: dict[int, list[str]] = {}
            for topic in names[start : start + HEADS_PIECE]:
                groups.setdefault(self._part(topic), []).append(topic)
            yield list(groups.values())

    def _meta_keys(self, groups: Sequence[Sequence[str]]) -> list[list[str]]:
        keys = []
        for group in groups:
            start = self._start(group[0])
            keys.append([f"{start}id", *(f"{start}meta:{topic}" for topic in group)])
        return keys

    def read(
        self, topic: str, after: Cursor, limit: int = READ_LIMIT, max_bytes: int = READ_BYTES
    ) -> Page:
        """Return the events that follow a cursor, oldest first."""
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
        """Return the cursor after which the wanted events follow."""
        args = new_epoch(), _or_nothing(last), _or_nothing(since)
        answer = self._access.run(LOCATE, self._keys(topic), *args)
        return _located(topic, last, since, answer)

    async def alocate(
        self, topic: str, *, last: int | None = None, since: float | None = None
    ) -> Cursor:
        """Async version of ``locate()``."""
        args = new_epoch(), _or_nothing(last), _or_nothing(since)
        answer = await self._access.arun(LOCATE, self._keys(topic), *args)
        return _located(topic, last, since, answer)

    # Changing

    def trim(self, topic: str, retention: Retention) -> int:
        """Remove the events that the retention does not keep; return how many."""
        keys, args = self._keys(topic), _trim_args(retention)
        removed = 0
        while piece := int(self._access.run(TRIM, keys, *args)):
            removed += piece
        return removed

    async def atrim(self, topic: str, retention: Retention) -> int:
        """Async version of ``trim()``."""
        keys, args = self._keys(topic), _trim_args(retention)
        removed = 0
        while piece := int(await self._access.arun(TRIM, keys, *args)):
            removed += piece
        return removed

    def renew(self, topic: str, epoch: str) -> Cursor:
        """Begin a new epoch if the log's epoch still is the given one; return the head."""
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
        for part in range(self._parts):
            key = f"{self._prefix}:{{{part}}}:topics"
            told: set[bytes] = set()  # a set that changes while it is scanned may repeat some
            position = -1
            while position:
                position, names = self._access.scan_set(key, max(position, 0), TOPICS_PIECE)
                yield from (name.decode() for name in names if name not in told)
                told.update(names)

    def clock(self) -> float:
        """Return the store's time, seconds since 1970."""
        return _time(self._access.run(CLOCK, self._keys("")))

    async def aclock(self) -> float:
        """Async version of ``clock()``."""
        return _time(await self._access.arun(CLOCK, self._keys("")))

    def close(self) -> None:
        """Close the store's connections; the next call opens others."""
        self._access.close()


# Options


def _prefix(value: object) -> str:
    if not isinstance(value, str) or not value or any(mark in value for mark in "{} \n"):
        raise ImproperlyConfigured(
            f'RedisStore\'s OPTIONS["prefix"] is {value!r}; give text without braces and spaces'
        )
    return value


def _timeout(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MOST_SECONDS:
        return float(value)
    raise ImproperlyConfigured(
        f'RedisStore\'s OPTIONS["timeout"] is {value!r}; '
        f"give seconds, more than 0 and at most {MOST_SECONDS:g}"
    )


# Arguments and answers of the scripts


def _or_nothing(value: float | None) -> str:
    return "" if value is None else repr(value)


def _append_args(topic: str, drafts: Sequence[Draft]) -> tuple[list[int], list[object]]:
    tags = [new_tag() for _ in drafts]
    args: list[object] = [new_epoch(), topic, SEEN_SECONDS]
    for draft, tag in zip(drafts, tags, strict=True):
        text = f"{tag} {draft.origin or '-'} {draft.name}\n{draft.json}"
        args += (draft.id or "", tag, text)
    return tags, args


def _trim_args(retention: Retention) -> tuple[object, ...]:
    return "", retention.max_events, retention.max_age, SEEN_SECONDS, TRIM_PIECE, new_tag()


def _event(topic: str, epoch: str, seq: int, entry: bytes) -> Event:
    head, _, json = entry.decode().partition("\n")
    time, tag, origin, name = head.split(" ", 3)
    cursor = Cursor(epoch, seq, int(tag))
    return Event(topic, name, json, cursor, float(time), None if origin == "-" else origin)


def _appended(
    topic: str, drafts: Sequence[Draft], tags: Sequence[int], answer: Sequence[Any]
) -> Appended:
    standing = log_state_of(topic, answer[0])
    time, kept, seen = float(answer[1]), int(answer[2]), set(map(int, answer[3:]))
    events: list[Event] = []
    for number, (draft, tag) in enumerate(zip(drafts, tags, strict=True)):
        if number not in seen:
            cursor = Cursor(standing.epoch, standing.seq + len(events) + 1, tag)
            events.append(Event(topic, draft.name, draft.json, cursor, time, draft.origin))
    return Appended(standing.head, tuple(events), kept)


def _take_heads(
    groups: Sequence[Sequence[str]], answers: Sequence[Sequence[Any]], found: dict[str, Cursor]
) -> list[str]:
    """Note the heads; return a topic of each part that has no store id yet."""
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
    standing = log_state_of(topic, meta)
    own_tag = None if own is None else int(own.split(b" ", 2)[1])
    standing.check(after, own_tag)
    if not entries and after.seq < standing.seq:
        raise standing.expired(after, contradicts=False)  # entries were removed by other hands
    events = [
        _event(topic, standing.epoch, after.seq + number, entry)
        for number, entry in enumerate(entries, 1)
    ]
    return Page(cut(events, max_bytes), standing.head)


def _located(topic: str, last: int | None, since: float | None, answer: Sequence[Any]) -> Cursor:
    standing = log_state_of(topic, answer[0])
    seq, entry = int(answer[1]), answer[2]
    if since is not None and last is None:
        standing.check_moment(since)
    if seq == standing.floor_seq:
        return standing.floor
    if seq == standing.seq or entry is None:  # removed by other hands: none can be read from there
        return standing.head
    return standing.cursor(seq, int(entry.split(b" ", 2)[1]))


def _time(answer: Sequence[Any]) -> float:
    seconds, microseconds = answer
    return int(seconds) + int(microseconds) / 1_000_000
