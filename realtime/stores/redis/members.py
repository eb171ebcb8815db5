"""Nodes and members in Redis: the part of the store that is no log.

===========  ====  ==========================================================================
key          type  what it holds
===========  ====  ==========================================================================
nodes        hash  by id: ``seen started``, a line feed, and the node's JSON; of part 0
members:LOG  hash  by member: its place in the order, then a line ``node JSON`` for each node;
                   the empty field counts the places
of:NODE      set   ``LOG``, a line feed, the member: what a node has written
of           set   the nodes that have written any
===========  ====  ==========================================================================

All but the first are in the part of the log, so that one script changes them together with it.
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

# ARGV: id, 1 if it is known, JSON. Returns 0 if it is known and gone.
NODE_FIELDS = frozenset(field.name for field in fields(Node))

BEAT = Script.of("""
local before = redis.call('HGET', KEYS[1], ARGV[1])
if not before and ARGV[2] == '1' then return 0 end
local text = clock()
local started = before and string.match(before, '^%S+ (%S+)') or text
redis.call('HSET', KEYS[1], ARGV[1], text .. ' ' .. started .. '\\n' .. ARGV[3])
return 1
""")

# Returns the time, and by turns ids and what is kept of them.
NODES = Script.of("""
local text = clock()
return {text, redis.call('HGETALL', KEYS[1])}
""")

# ARGV: id, seconds since its last heartbeat. Returns 1 if this removed it.
EXPIRE = Script.of("""
local before = redis.call('HGET', KEYS[1], ARGV[1])
if not before then return 0 end
local _, now = clock()
if now - tonumber(string.match(before, '^%S+')) < tonumber(ARGV[2]) then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
""")

# ARGV: store id, log, node, how many arrive; member, JSON and tag of each of them; then member and
# tag of each that left.
# Returns where the log stood, the time, how many it keeps, and name, JSON and tag of each event.
CHANGE = Script.of("""
local MEMBERS, OF, NODES = KEYS[6], KEYS[7], KEYS[8]
local meta, exists = standing()
local at = parts(meta)
local kept = exists and redis.call('XLEN', LOG) or 0
local text, now = clock()
local time = now < tonumber(at.time) and at.time or text
local log, node, arrive = ARGV[2], ARGV[3], tonumber(ARGV[4])
local mark = '\\n' .. node .. ' '
local told = {}
local index = 5
for _ = 1, arrive do
  local uid, json, tag = ARGV[index], ARGV[index + 1], ARGV[index + 2]
  index = index + 3
  local value = redis.call('HGET', MEMBERS, uid)
  if not value then
    local place = redis.call('HINCRBY', MEMBERS, '', 1)
    redis.call('HSET', MEMBERS, uid, whole(place) .. mark .. json)
    told[#told + 1] = {'join', json, tag}
  elseif not string.find(value, mark, 1, true) then
    redis.call('HSET', MEMBERS, uid, value .. mark .. json)
  end
  redis.call('SADD', OF, log .. '\\n' .. uid)
  redis.call('SADD', NODES, node)
end
while index < #ARGV do
  local uid, tag = ARGV[index], ARGV[index + 1]
  index = index + 2
  local value = redis.call('HGET', MEMBERS, uid)
  local first, last
  if value then first, last = string.find(value, mark, 1, true) end
  if first then
    local after = string.find(value, '\\n', last, true) or #value + 1
    local rest = string.sub(value, 1, first - 1) .. string.sub(value, after)
    if string.find(rest, '\\n', 1, true) then
      redis.call('HSET', MEMBERS, uid, rest)
    else
      redis.call('HDEL', MEMBERS, uid)
      told[#told + 1] = {'leave', string.sub(value, last + 1, after - 1), tag}
    end
  end
  redis.call('SREM', OF, log .. '\\n' .. uid)
end
if redis.call('HLEN', MEMBERS) <= 1 then redis.call('DEL', MEMBERS) end
if redis.call('EXISTS', OF) == 0 then redis.call('SREM', NODES, node) end
local reply = {meta, time, kept + #told}
if #told == 0 then return reply end
if not exists then begin(log) end
for _, one in ipairs(told) do
  at.seq = at.seq + 1
  at.tag = one[3]
  local entry = time .. ' ' .. at.tag .. ' - ' .. one[1] .. '\\n' .. one[2]
  redis.call('XADD', LOG, place(at.seq), 'e', entry)
  reply[#reply + 1] = one[1]
  reply[#reply + 1] = one[2]
  reply[#reply + 1] = one[3]
end
at.time = time
write(at)
return reply
""")

# ARGV: store id. Returns where the log stands, and what is kept of its members.
MEMBERS = Script.of("""
local meta = standing()
return {meta, redis.call('HGETALL', KEYS[6])}
""")

LIST = Script.of("return redis.call('SMEMBERS', KEYS[1])")


class RedisMembers(Store):
    """Nodes and members of a ``RedisStore``."""

    _access: RedisAccess
    _prefix: str
    _parts: int

    def _start(self, topic: str) -> str:
        raise NotImplementedError  # by the log's part

    def _keys(self, topic: str) -> tuple[str, ...]:
        raise NotImplementedError  # by the log's part

    # Keys

    @property
    def _nodes_keys(self) -> tuple[str, ...]:
        return (f"{self._prefix}:{{0}}:nodes",)

    def _member_keys(self, log: str, node: str = "") -> tuple[str, ...]:
        start = self._start(log)
        return (*self._keys(log), f"{start}members:{log}", f"{start}of:{node}", f"{start}of")

    def _set_keys(self, name: str) -> Iterator[tuple[str]]:
        for part in range(self._parts):
            yield (f"{self._prefix}:{{{part}}}:{name}",)

    # Nodes

    def beat(self, node: Node, *, is_known: bool) -> bool:
        """Write a node's row, with the store's time."""
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
        """Remove a node's row if its last heartbeat is so many seconds ago; its members stay."""
        return bool(self._access.run(EXPIRE, self._nodes_keys, node, age))

    async def aexpire_node(self, node: str, age: float) -> bool:
        """Async version of ``expire_node()``."""
        return bool(await self._access.arun(EXPIRE, self._nodes_keys, node, age))

    # Members

    def change_members(
        self, log: str, node: str, arrived: Mapping[str, str], left: Collection[str]
    ) -> Appended:
        """Write who is on a topic through a node, and append what follows from it."""
        args = _change_args(log, node, arrived, left)
        return _appended(log, self._access.run(CHANGE, self._member_keys(log, node), *args))

    async def achange_members(
        self, log: str, node: str, arrived: Mapping[str, str], left: Collection[str]
    ) -> Appended:
        """Async version of ``change_members()``."""
        args = _change_args(log, node, arrived, left)
        return _appended(log, await self._access.arun(CHANGE, self._member_keys(log, node), *args))

    def members(self, log: str) -> MemberList:
        """Return who is on a topic."""
        return _roster(log, self._access.run(MEMBERS, self._member_keys(log), new_epoch()))

    async def amembers(self, log: str) -> MemberList:
        """Async version of ``members()``."""
        return _roster(log, await self._access.arun(MEMBERS, self._member_keys(log), new_epoch()))

    def members_of(self, node: str) -> Mapping[str, Sequence[str]]:
        """Return the members that a node has written: their ids, by presence log."""
        found: dict[str, list[str]] = {}
        for keys in self._set_keys(f"of:{node}"):
            _sort_in(found, self._access.run(LIST, keys))
        return found

    async def amembers_of(self, node: str) -> Mapping[str, Sequence[str]]:
        """Async version of ``members_of()``."""
        found: dict[str, list[str]] = {}
        for keys in self._set_keys(f"of:{node}"):
            _sort_in(found, await self._access.arun(LIST, keys))
        return found

    def nodes_of_members(self) -> Collection[str]:
        """Return the ids of all nodes that have written members, with a row or without."""
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
    said = asdict(node)
    for kept_apart in ("id", "started", "age"):
        del said[kept_apart]
    return node.id, int(is_known), json.dumps(said, separators=(",", ":"))


def _nodes(answer: Sequence[Any]) -> list[Node]:
    now, flat = float(answer[0]), answer[1]
    nodes = []
    for id_, value in zip(flat[::2], flat[1::2], strict=True):
        times, _, text = value.decode().partition("\n")
        seen, started = map(float, times.split(" "))
        # A process of the next version may say more of itself.
        said = {name: value for name, value in json.loads(text).items() if name in NODE_FIELDS}
        nodes.append(Node(id=id_.decode(), started=started, age=max(0.0, now - seen), **said))
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
    standing = log_state_of(log, answer[0])
    time, kept = float(answer[1]), int(answer[2])
    changes = zip(answer[3::3], answer[4::3], answer[5::3], strict=True)
    events = tuple(
        Event(log, name.decode(), text.decode(), Cursor(standing.epoch, seq, int(tag)), time)
        for seq, (name, text, tag) in enumerate(changes, standing.seq + 1)
    )
    return Appended(standing.head, events, kept)


def _roster(log: str, answer: Sequence[Any]) -> MemberList:
    found = []
    for uid, value in zip(answer[1][::2], answer[1][1::2], strict=True):
        if uid:
            place, line, *_ = value.decode().split("\n")
            found.append((int(place), uid.decode(), line.partition(" ")[2]))
    members = {uid: text for _, uid, text in sorted(found)}
    return MemberList(log_state_of(log, answer[0]).head, members)


def _sort_in(found: dict[str, list[str]], entries: Sequence[bytes]) -> None:
    for entry in entries:
        log, _, uid = entry.decode().partition("\n")
        found.setdefault(log, []).append(uid)
