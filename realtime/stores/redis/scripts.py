"""What the Redis store does inside the server: one Lua script an operation, each atomic.

A log is at five keys, which share a hash tag:

=======  ======  =================================================================
key      type    what it holds
=======  ======  =================================================================
meta     text    ``epoch seq tag time floor_seq floor_tag floor_time``
log      stream  an entry ``<seq>-0`` an event, with one field ``e``, see below
seen     zset    ids that were appended, by the time of their append
id       text    the store id
topics   set     names of the topics that have a log
=======  ======  =================================================================

An event is ``time tag origin name``, a line feed, and its JSON; origin ``-`` is none.

Every script is given all five keys and, as its first argument, the id that the store gets if it
has none.
What can fail fails before the first write, since Redis does not undo what a script has written.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from realtime.stores.log_state import LogState

__all__ = ["APPEND", "CLOCK", "DELETE", "LOCATE", "READ", "RENEW", "TRIM", "Script", "log_state_of"]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, and the name by which a server that has seen it knows it."""

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> Script:
        """Return the script with the functions that all of them share in front."""
        text = _SHARED + text
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_SHARED = """
local META, LOG, SEEN, ID, TOPICS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

-- Numbers are doubles: exact up to 2^53, and not to be written as 1e+15.
local function whole(number) return string.format('%.0f', number) end

local function place(seq) return whole(seq) .. '-0' end

-- The server's clock, as text and as a number.
local function clock()
  local now = redis.call('TIME')
  local text = now[1] .. '.' .. string.format('%06d', now[2])
  return text, tonumber(text)
end

-- Where the log stands: its own words, or those of a topic that has none.
local function standing()
  local meta = redis.call('GET', META)
  if meta then return meta, true end
  local id = redis.call('GET', ID)
  if not id then
    id = ARGV[1]
    redis.call('SET', ID, id)
  end
  return id .. ' 0 0 0 0 0 0', false
end

local function parts(meta)
  local epoch, seq, tag, time, floor, floor_tag, floor_time =
    string.match(meta, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  return {
    epoch = epoch, seq = tonumber(seq), tag = tag, time = time,
    floor = tonumber(floor), floor_tag = floor_tag, floor_time = floor_time,
  }
end

local function write(at)
  local meta = table.concat(
    {at.epoch, whole(at.seq), at.tag, at.time, whole(at.floor), at.floor_tag, at.floor_time}, ' ')
  redis.call('SET', META, meta)
  return meta
end

-- What a log that begins finds in its place belonged to one that is no more.
local function begin(topic)
  redis.call('DEL', LOG, SEEN)
  redis.call('SADD', TOPICS, topic)
end

local function seq_of(entry) return tonumber(string.match(entry[1], '^%d+')) end

-- The event at a place; false if it is not kept.
local function event(seq)
  local found = redis.call('XRANGE', LOG, place(seq), place(seq))
  return found[1] and found[1][2][2] or false
end

local function time_of(text) return tonumber(string.match(text, '^%S+')) end

-- The first number in (low, high] whose event is not older than a moment; high + 1 if all are.
local function first_since(low, high, moment)
  high = high + 1
  while low + 1 < high do
    local middle = math.floor((low + high) / 2)
    local found = redis.call('XRANGE', LOG, place(middle), '+', 'COUNT', 1)
    if found[1] and time_of(found[1][2][2]) < moment then low = middle else high = middle end
  end
  return high
end
"""

# ARGV: store id, topic, seconds that ids are remembered, then id (or nothing), tag and text of
# each event.
# Returns where the log stood, the time, how many it keeps, and the places of those passed over.
APPEND = Script.of("""
local meta, exists = standing()
local at = parts(meta)
local kept = exists and redis.call('XLEN', LOG) or 0
local text, now = clock()
local time = now < tonumber(at.time) and at.time or text
local remembered = tonumber(ARGV[3])
local reply = {meta, time, 0}
local taken = {}
local ids = {}
for index = 4, #ARGV, 3 do
  local id = ARGV[index]
  local seen = false
  if id ~= '' then
    local before = exists and redis.call('ZSCORE', SEEN, id)
    seen = ids[id] or (before and tonumber(before) >= now - remembered)
  end
  if seen then
    reply[#reply + 1] = (index - 4) / 3
  else
    if id ~= '' then ids[id] = true end
    taken[#taken + 1] = index
  end
end
if #taken == 0 then
  reply[3] = kept
  return reply
end
if not exists then begin(ARGV[2]) end
for _, index in ipairs(taken) do
  at.seq = at.seq + 1
  at.tag = ARGV[index + 1]
  redis.call('XADD', LOG, place(at.seq), 'e', time .. ' ' .. ARGV[index + 2])
end
if next(ids) then
  redis.call('ZREMRANGEBYSCORE', SEEN, '-inf', '(' .. (now - remembered))
  for id in pairs(ids) do redis.call('ZADD', SEEN, text, id) end
  redis.call('EXPIRE', SEEN, remembered + 60)
end
at.time = time
write(at)
reply[3] = kept + #taken
return reply
""")

# ARGV: store id, seq of the cursor, events at most, bytes after which no more are wanted.
# Returns where the log stands, the cursor's own event, and those that follow without a hole.
READ = Script.of("""
local meta, exists = standing()
local reply = {meta, false}
if not exists then return reply end
local after, limit, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if after > parts(meta).seq then return reply end
reply[2] = event(after)
local count, size, piece = 0, 0, 64
while count < limit and size < most do
  local wanted = math.min(piece, limit - count)
  local rows = redis.call('XRANGE', LOG, place(after + count + 1), '+', 'COUNT', wanted)
  for _, row in ipairs(rows) do
    if seq_of(row) ~= after + count + 1 then return reply end
    count = count + 1
    size = size + #row[2][2]
    reply[count + 2] = row[2][2]
  end
  if #rows < wanted then break end
end
return reply
""")

# ARGV: store id, how many of the newest (or nothing), since when (or nothing).
# Returns where the log stands, the number found, and its event if it is kept.
LOCATE = Script.of("""
local meta, exists = standing()
local at = parts(meta)
local last, since = tonumber(ARGV[2]), tonumber(ARGV[3])
local seq = at.seq
if exists and (last or since) then
  seq = at.floor
  if last then seq = math.max(seq, at.seq - math.max(last, 0)) end
  if since then seq = math.max(seq, first_since(at.floor, at.seq, since) - 1) end
end
return {meta, whole(seq), event(seq)}
""")

# ARGV: store id, events to keep, seconds to keep them, seconds that ids are remembered, events to
# remove at most, a tag.
# Returns how many were removed.
TRIM = Script.of("""
local meta = redis.call('GET', META)
if not meta then return 0 end
local at = parts(meta)
local _, now = clock()
redis.call('ZREMRANGEBYSCORE', SEEN, '-inf', '(' .. (now - tonumber(ARGV[4])))
local last = math.min(at.seq, at.floor + tonumber(ARGV[5]))
local aged = first_since(at.floor, last, now - tonumber(ARGV[3])) - 1
local seq = math.min(last, math.max(aged, at.seq - math.max(tonumber(ARGV[2]), 0)))
if seq <= at.floor then return 0 end
local text = event(seq)
local removed = seq - at.floor
at.floor = seq
if text then
  at.floor_time, at.floor_tag = string.match(text, '^(%S+) (%S+)')
else
  at.floor_time, at.floor_tag = at.time, ARGV[6]  -- removed by other hands: nobody has its tag
end
redis.call('XTRIM', LOG, 'MINID', place(seq + 1))
write(at)
return removed
""")

# ARGV: store id, topic, the epoch that ends, the epoch that begins. Returns where the log stands.
RENEW = Script.of("""
local meta, exists = standing()
local at = parts(meta)
if at.epoch ~= ARGV[3] then return meta end
if not exists then begin(ARGV[2]) end
at.epoch = ARGV[4]
return write(at)
""")

# ARGV: store id, topic, the epoch that begins. Returns where the log stands.
DELETE = Script.of("""
local meta, exists = standing()
local at = parts(meta)
local text, now = clock()
if not exists then begin(ARGV[2]) end
redis.call('DEL', LOG)
return write({
  epoch = ARGV[3], seq = 0, tag = '0', time = at.time, floor = 0, floor_tag = '0',
  floor_time = now < tonumber(at.time) and at.time or text,
})
""")

# Returns the seconds and the microseconds; by a script, so that a cluster asks always one node.
CLOCK = Script.of("return redis.call('TIME')")


def log_state_of(topic: str, meta: bytes) -> LogState:
    """Return where a log stands, of the words that are kept of it."""
    epoch, seq, tag, _, floor_seq, floor_tag, floor_time = meta.decode().split()
    return LogState(
        topic, epoch, int(seq), int(tag), int(floor_seq), int(floor_tag), float(floor_time)
    )
