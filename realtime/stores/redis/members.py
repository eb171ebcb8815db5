"""Nodes and members in Redis.

===========  ====  ==========================================================================
key          type  value
===========  ====  ==========================================================================
nodes        hash  by node id: ``seen started``, a line feed, and the node's JSON
members:LOG  hash  by member id: the order number, then a line ``node JSON`` for each node;
                   the field with the empty name holds the last order number
of:NODE      set   a node's members: ``LOG``, a line feed, and the member's id
of           set   the ids of the nodes that have members
===========  ====  ==========================================================================

``nodes`` is in partition 0. The other keys are in the log's partition, so that one script changes
them together with the log.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from realtime.protocol.events import Cursor, Event
from realtime.stores.base import Appended, MemberList, Node, Store, new_epoch, new_tag
from realtime.stores.redis.scripts import Script, log_state_of

if TYPE_CHECKING:
    from realtime.stores.redis.clients import RedisAccess

__all__ = ["RedisMembers"]

NODE_FIELDS = frozenset(field.name for field in fields(Node))

# ARGV: node id, 1 if it was written before, JSON. Returns 0 if it was, but its row is gone.
BEAT = Script.of("""
local before = redis.call('HGET', KEYS[1], ARGV[1])
if not before and ARGV[2] == '1' then return 0 end
local text = clock()
local started = before and string.match(before, '^%S+ (%S+)') or text
redis.call('HSET', KEYS[1], ARGV[1], text .. ' ' .. started .. '\\n' .. ARGV[3])
return 1
""")

# Returns the time and a flat list of node ids and values.
NODES = Script.of("""
local text = clock()
return {text, redis.call('HGETALL', KEYS[1])}
""")

# ARGV: node id, seconds since the last heartbeat. Returns 1 if the row was removed.
EXPIRE = Script.of("""
local before = redis.call('HGET', KEYS[1], ARGV[1])
if not before then return 0 end
local _, now = clock()
if now - tonumber(string.match(before, '^%S+')) < tonumber(ARGV[2]) then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
""")

# ARGV: store id, log, node, number of members to add; then the id, the JSON and a tag of each of
# them; then the id and a tag of each member to remove.
# Returns the value of `meta` before the append, the events' time, the number of events that the log
# holds now, and the name, the JSON and the tag of each event.
CHANGE = Script.of("""
local MEMBERS, OF, NODES = KEYS[8], KEYS[9], KEYS[10]
local meta, exists = load_meta()
local state = parse(meta)
local kept = exists and redis.call('XLEN', LOG) or 0
local text, now = clock()
local time = now < tonumber(state.time) and state.time or text
local log, node, added = ARGV[2], ARGV[3], tonumber(ARGV[4])
local line_start = '\\n' .. node .. ' '
local changes = {}
local index = 5
for _ = 1, added do
  local uid, json, tag = ARGV[index], ARGV[index + 1], ARGV[index + 2]
  index = index + 3
  local value = redis.call('HGET', MEMBERS, uid)
  if not value then
    local order = redis.call('HINCRBY', MEMBERS, '', 1)
    redis.call('HSET', MEMBERS, uid, whole(order) .. line_start .. json)
    changes[#changes + 1] = {'join', json, tag}
  elseif not string.find(value, line_start, 1, true) then
    redis.call('HSET', MEMBERS, uid, value .. line_start .. json)
  end
  redis.call('SADD', OF, log .. '\\n' .. uid)
  redis.call('SADD', NODES, node)
end
while index < #ARGV do
  local uid, tag = ARGV[index], ARGV[index + 1]
  index = index + 2
  local value = redis.call('HGET', MEMBERS, uid)
  local first, last
  if value then first, last = string.find(value, line_start, 1, true) end
  if first then
    local after = string.find(value, '\\n', last, true) or #value + 1
    local rest = string.sub(value, 1, first - 1) .. string.sub(value, after)
    if string.find(rest, '\\n', 1, true) then
      redis.call('HSET', MEMBERS, uid, rest)
    else
      redis.call('HDEL', MEMBERS, uid)
      changes[#changes + 1] = {'leave', string.sub(value, last + 1, after - 1), tag}
    end
  end
  redis.call('SREM', OF, log .. '\\n' .. uid)
end
if redis.call('HLEN', MEMBERS) <= 1 then redis.call('DEL', MEMBERS) end
if redis.call('EXISTS', OF) == 0 then redis.call('SREM', NODES, node) end
local reply = {meta, time, kept + #changes}
if #changes == 0 then return reply end
if not exists then create(log) end
look_soon(state, log, time)
for _, change in ipairs(changes) do
  state.seq = state.seq + 1
  state.tag = change[3]
  local entry = time .. ' ' .. state.tag .. ' - ' .. change[1] .. '\\n' .. change[2]
  redis.call('XADD', LOG, entry_id(state.seq), 'e', entry)
  reply[#reply + 1] = change[1]
  reply[#reply + 1] = change[2]
  reply[#reply + 1] = change[3]
end
state.time = time
save(state)
return reply
""")

# ARGV: store id, and the limit; a negative one is none.
# Returns the value of `meta`, and a flat list of member ids and values, or the number of members if
# it exceeds the limit.
MEMBERS = Script.of("""
local meta = load_meta()
local count = math.max(redis.call('HLEN', KEYS[8]) - 1, 0)
local limit = tonumber(ARGV[2])
if limit >= 0 and count > limit then return {meta, count} end
return {meta, redis.call('HGETALL', KEYS[8])}
""")

LIST = Script.of("return redis.call('SMEMBERS', KEYS[1])")


class RedisMembers(Store):
    """Nodes and members of a ``RedisStore``."""

    _access: RedisAccess
    _prefix: str
    _partitions: int

    def _key_start(self, topic: str) -> str:
        raise NotImplementedError  # RedisStore implements it

    def _keys(self, topic: str) -> tuple[str, ...]:
        raise NotImplementedError  # RedisStore implements it

    # Keys

    @property
    def _nodes_keys(self) -> tuple[str, ...]:
        return (f"{self._prefix}:{{0}}:nodes",)

    def _member_keys(self, log: str, node: str = "") -> tuple[str, ...]:
        start = self._key_start(log)
        return (*self._keys(log), f"{start}members:{log}", f"{start}of:{node}", f"{start}of")

    def _set_keys(self, name: str) -> Iterator[tuple[str]]:
        for partition in range(self._partitions):
            yield (f"{self._prefix}:{{{partition}}}:{name}",)

    # Nodes

    def beat(self, node: Node, *, is_known: bool) -> bool:
        """Write a node's row, with the time of the store's clock."""
        return bool(self._access.run(BEAT, self._nodes_keys, *_beat_args(node, is_known)))

    async def abeat(self, node: Node, *, is_known: bool) -> bool:
        """Async version of ``beat()``."""
        return bool(await self._access.arun(BEAT, self._nodes_keys, *_beat_args(node, is_known)))

    def nodes(self) -> Sequence[Node]:
        """Return all nodes that have a row, oldest first."""
        return _nodes(self._access.run(NODES, self._nodes_keys))

    async def anodes(self) -> Sequence[Node]:
        """Async version of ``nodes()``."""
        return _nodes(await self._access.arun(NODES, self._nodes_keys))

    def expire_node(self, node: str, age: float) -> bool:
        """Remove a node's row if its last heartbeat is at least ``age`` seconds old."""
        return bool(self._access.run(EXPIRE, self._nodes_keys, node, age))

    async def aexpire_node(self, node: str, age: float) -> bool:
        """Async version of ``expire_node()``."""
        return bool(await self._access.arun(EXPIRE, self._nodes_keys, node, age))

    # Members

    def change_members(
        self, log: str, node: str, arrived: Mapping[str, str], left: Collection[str]
    ) -> Appended:
        """Add and remove a node's members of a topic, and append the joins and leaves."""
        args = _change_args(log, node, arrived, left)
        return _appended(log, self._access.run(CHANGE, self._member_keys(log, node), *args))

    async def achange_members(
        self, log: str, node: str, arrived: Mapping[str, str], left: Collection[str]
    ) -> Appended:
        """Async version of ``change_members()``."""
        args = _change_args(log, node, arrived, left)
        return _appended(log, await self._access.arun(CHANGE, self._member_keys(log, node), *args))

    def members(self, log: str, limit: int | None = None) -> MemberList:
        """Return a topic's members, or only their number, and the head of its presence log."""
        args = _members_args(limit)
        return _member_list(log, self._access.run(MEMBERS, self._member_keys(log), *args))

    async def amembers(self, log: str, limit: int | None = None) -> MemberList:
        """Async version of ``members()``."""
        args = _members_args(limit)
        return _member_list(log, await self._access.arun(MEMBERS, self._member_keys(log), *args))

    def members_of(self, node: str) -> Mapping[str, Sequence[str]]:
        """Return the ids of a node's members, by presence log."""
        found: dict[str, list[str]] = {}
        for keys in self._set_keys(f"of:{node}"):
            _group_by_log(found, self._access.run(LIST, keys))
        return found

    async def amembers_of(self, node: str) -> Mapping[str, Sequence[str]]:
        """Async version of ``members_of()``."""
        found: dict[str, list[str]] = {}
        for keys in self._set_keys(f"of:{node}"):
            _group_by_log(found, await self._access.arun(LIST, keys))
        return found

    def nodes_of_members(self) -> Collection[str]:
        """Return the ids of all nodes that have members, including nodes without a row."""
        found: set[str] = set()
        for keys in self._set_keys("of"):
            found.update(node.decode() for node in self._access.run(LIST, keys))
        return found

    async def anodes_of_members(self) -> Collection[str]:
        """Async version of ``nodes_of_members()``."""
        found: set[str] = set()
        for keys in self._set_keys("of"):
            found.update(node.decode() for node in await self._access.arun(LIST, keys))
        return found


def _beat_args(node: Node, is_known: bool) -> tuple[object, ...]:
    values = asdict(node)
    for stored_elsewhere in ("id", "started", "age"):
        del values[stored_elsewhere]
    return node.id, int(is_known), json.dumps(values, separators=(",", ":"))


def _nodes(answer: Sequence[Any]) -> list[Node]:
    now, flat = float(answer[0]), answer[1]
    nodes = []
    for id_, value in zip(flat[::2], flat[1::2], strict=True):
        times, _, text = value.decode().partition("\n")
        seen, started = map(float, times.split(" "))
        # A process of a newer version can have more fields.
        known = {name: value for name, value in json.loads(text).items() if name in NODE_FIELDS}
        nodes.append(Node(id=id_.decode(), started=started, age=max(0.0, now - seen), **known))
    return sorted(nodes, key=lambda node: node.started)


def _change_args(
    log: str, node: str, arrived: Mapping[str, str], left: Collection[str]
) -> list[object]:
    args: list[object] = [new_epoch(), log, node, len(arrived)]
    for uid, text in arrived.items():
        args += (uid, text, new_tag())
    for uid in left:
        args += (uid, new_tag())
    return args


def _appended(log: str, answer: Sequence[Any]) -> Appended:
    state = log_state_of(log, answer[0])
    time, kept = float(answer[1]), int(answer[2])
    changes = zip(answer[3::3], answer[4::3], answer[5::3], strict=True)
    events = tuple(
        Event(log, name.decode(), text.decode(), Cursor(state.epoch, seq, int(tag)), time)
        for seq, (name, text, tag) in enumerate(changes, state.seq + 1)
    )
    return Appended(state.head, events, kept)


def _members_args(limit: int | None) -> tuple[object, ...]:
    return new_epoch(), -1 if limit is None else limit


def _member_list(log: str, answer: Sequence[Any]) -> MemberList:
    head = log_state_of(log, answer[0]).head
    if isinstance(answer[1], int):
        return MemberList(head, {}, answer[1])
    found = []
    for uid, value in zip(answer[1][::2], answer[1][1::2], strict=True):
        if uid:
            order, line, *_ = value.decode().split("\n")
            found.append((int(order), uid.decode(), line.partition(" ")[2]))
    members = {uid: text for _, uid, text in sorted(found)}
    return MemberList(head, members)


def _group_by_log(found: dict[str, list[str]], entries: Sequence[bytes]) -> None:
    """Add the member ids of ``of:NODE`` to ``found``, by presence log."""
    for entry in entries:
        log, _, uid = entry.decode().partition("\n")
        found.setdefault(log, []).append(uid)
