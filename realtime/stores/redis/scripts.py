"""The Lua scripts of the Redis store: one for each operation, so that each is atomic.

A log has seven keys, which share a hash tag:

=========  ======  ===============================================================
key        type    value
=========  ======  ===============================================================
meta       text    ``epoch seq tag time floor_seq floor_tag floor_time``
log        stream  for each event an entry ``<seq>-0`` with one field ``e``, see below
seen       zset    ids of appended events, by the time of their append
id         text    the store id of the partition
topics     set     names of the topics of the partition that have a log
forgotten  text    the time of the newest event in all logs that were forgotten
due        zset    the names in ``topics``, by the time at which to look at the log next
=========  ======  ===============================================================

The value of ``e`` is ``time tag origin name``, a line feed, and the event's JSON. The origin ``-``
stands for none.

A counter, ``quota:NAME``, is text in partition 0 and expires when it restarts.

Every script of a log gets all seven keys. Its first argument is the store id to set if there is
none.
Whatever can fail runs before a script's first write, because Redis does not roll back the writes of
a script that fails.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from realtime.stores.log_state import LogState

__all__ = [
    "ADD_TO_INDEX",
    "APPEND",
    "CLAIM",
    "CLOCK",
    "DELETE",
    "DUE",
    "LOCATE",
    "READ",
    "RENEW",
    "TAKE",
    "TRIM",
    "Script",
    "log_state_of",
]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script.

    Attributes:
        text: the whole script.
        sha: its SHA-1 digest, by which a server that has the script in its cache runs it.
    """

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> Script:
        """Return the script, with the functions that all scripts share prepended."""
        text = _SHARED + text
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_SHARED = """
local META, LOG, SEEN, ID, TOPICS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local FORGOTTEN, DUE = KEYS[6], KEYS[7]

-- Formats a number in full: Lua's doubles are exact up to 2^53, but tostring() writes 1e+15.
local function whole(number) return string.format('%.0f', number) end

local function entry_id(seq) return whole(seq) .. '-0' end

-- Returns the time of the server's clock, as text and as a number.
local function clock()
  local now = redis.call('TIME')
  local text = now[1] .. '.' .. string.format('%06d', now[2])
  return text, tonumber(text)
end

-- Returns the value of meta, and whether the topic has a log; if not, the value of an empty log.
local function load_meta()
  local meta = redis.call('GET', META)
  if meta then return meta, true end
  local id = redis.call('GET', ID)
  if not id then
    id = ARGV[1]
    redis.call('SET', ID, id)
  end
  return id .. ' 0 0 0 0 0 ' .. (redis.call('GET', FORGOTTEN) or '0'), false
end

local function parse(meta)
  local epoch, seq, tag, time, floor, floor_tag, floor_time =
    string.match(meta, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  return {
    epoch = epoch, seq = tonumber(seq), tag = tag, time = time,
    floor = tonumber(floor), floor_tag = floor_tag, floor_time = floor_time,
  }
end

local function save(state)
  local meta = table.concat({
    state.epoch, whole(state.seq), state.tag, state.time,
    whole(state.floor), state.floor_tag, state.floor_time,
  }, ' ')
  redis.call('SET', META, meta)
  return meta
end

-- Prepares the keys of a new log; deletes entries that are left from an earlier log of the topic.
local function create(topic)
  redis.call('DEL', LOG, SEEN)
  redis.call('SADD', TOPICS, topic)
  redis.call('ZADD', DUE, 'NX', 0, topic)
end

-- Lets the next trim look at a log that has been empty until now.
local function look_soon(state, topic, time)
  if state.seq == state.floor then redis.call('ZADD', DUE, time, topic) end
end

local function seq_of(entry) return tonumber(string.match(entry[1], '^%d+')) end

-- Returns the value of an event; false if the event is not kept.
local function event(seq)
  local found = redis.call('XRANGE', LOG, entry_id(seq), entry_id(seq))
  return found[1] and found[1][2][2] or false
end

local function time_of(value) return tonumber(string.match(value, '^%S+')) end

-- Returns the first seq in (low, high] whose event is not older than `since`; high + 1 if none is.
local function first_since(low, high, since)
  high = high + 1
  while low + 1 < high do
    local middle = math.floor((low + high) / 2)
    local found = redis.call('XRANGE', LOG, entry_id(middle), '+', 'COUNT', 1)
    if found[1] and time_of(found[1][2][2]) < since then low = middle else high = middle end
  end
  return high
end
"""

# ARGV: store id, topic, seconds that ids are remembered; then for each draft its id (or ''), its
# tag, and the value of its entry without the time.
# Returns the meta before the append, the events' time, how many events the log holds now, and the
# indexes of the drafts that were skipped.
APPEND = Script.of("""
local meta, exists = load_meta()
local state = parse(meta)
local kept = exists and redis.call('XLEN', LOG) or 0
local text, now = clock()
local time = now < tonumber(state.time) and state.time or text
local seen_seconds = tonumber(ARGV[3])
local reply = {meta, time, 0}
local accepted = {}
local ids = {}
for index = 4, #ARGV, 3 do
  local id = ARGV[index]
  local seen = false
  if id ~= '' then
    local before = exists and redis.call('ZSCORE', SEEN, id)
    seen = ids[id] or (before and tonumber(before) >= now - seen_seconds)
  end
  if seen then
    reply[#reply + 1] = (index - 4) / 3
  else
    if id ~= '' then ids[id] = true end
    accepted[#accepted + 1] = index
  end
end
if #accepted == 0 then
  reply[3] = kept
  return reply
end
if not exists then create(ARGV[2]) end
look_soon(state, ARGV[2], time)
for _, index in ipairs(accepted) do
  state.seq = state.seq + 1
  state.tag = ARGV[index + 1]
  redis.call('XADD', LOG, entry_id(state.seq), 'e', time .. ' ' .. ARGV[index + 2])
end
if next(ids) then
  redis.call('ZREMRANGEBYSCORE', SEEN, '-inf', '(' .. (now - seen_seconds))
  for id in pairs(ids) do redis.call('ZADD', SEEN, text, id) end
  redis.call('EXPIRE', SEEN, seen_seconds + 60)
end
state.time = time
save(state)
reply[3] = kept + #accepted
return reply
""")

# ARGV: store id, seq of the cursor, maximum number of events, bytes after which to stop.
# Returns the meta, the cursor's own event (false if it is not kept), and the events after it up to
# the first hole.
READ = Script.of("""
local meta, exists = load_meta()
local reply = {meta, false}
if not exists then return reply end
local after, limit, max_bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if after > parse(meta).seq then return reply end
reply[2] = event(after)
local count, size, batch = 0, 0, 64
while count < limit and size < max_bytes do
  local wanted = math.min(batch, limit - count)
  local rows = redis.call('XRANGE', LOG, entry_id(after + count + 1), '+', 'COUNT', wanted)
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

# ARGV: store id, how many of the newest events are wanted (or ''), the time from which on events
# are wanted (or '').
# Returns the meta, the seq that was found, and its event (false if it is not kept).
LOCATE = Script.of("""
local meta, exists = load_meta()
local state = parse(meta)
local last, since = tonumber(ARGV[2]), tonumber(ARGV[3])
local seq = state.seq
if exists and (last or since) then
  seq = state.floor
  if last then seq = math.max(seq, state.seq - math.max(last, 0)) end
  if since then seq = math.max(seq, first_since(state.floor, state.seq, since) - 1) end
end
return {meta, whole(seq), event(seq)}
""")

# ARGV: store id, events to keep, seconds to keep them, seconds that ids are remembered, maximum
# number of events to remove, a random tag, topic, seconds after which an empty log is forgotten (or
# ''), seconds until the next look at the latest (or ''), seconds until the next look at a log that
# cannot be forgotten yet. KEYS[8]: the log's members.
# Returns how many events were removed.
TRIM = Script.of("""
local topic, members = ARGV[7], KEYS[8]
local meta = redis.call('GET', META)
if not meta then
  redis.call('ZREM', DUE, topic)
  return 0
end
local state = parse(meta)
local _, now = clock()
redis.call('ZREMRANGEBYSCORE', SEEN, '-inf', '(' .. (now - tonumber(ARGV[4])))
local last = math.min(state.seq, state.floor + tonumber(ARGV[5]))
local aged = first_since(state.floor, last, now - tonumber(ARGV[3])) - 1
local seq = math.min(last, math.max(aged, state.seq - math.max(tonumber(ARGV[2]), 0)))
local removed = math.max(seq - state.floor, 0)
if removed > 0 then
  local value = event(seq)
  state.floor = seq
  if value then
    state.floor_time, state.floor_tag = string.match(value, '^(%S+) (%S+)')
  else
    -- The entry was deleted by hand, and its tag is lost. A random tag matches no cursor.
    state.floor_time, state.floor_tag = state.time, ARGV[6]
  end
  redis.call('XTRIM', LOG, 'MINID', entry_id(seq + 1))
  save(state)
end
local next_look
if state.floor < state.seq then
  local oldest = event(state.floor + 1)
  next_look = (oldest and time_of(oldest) or tonumber(state.time)) + tonumber(ARGV[3])
elseif ARGV[8] ~= '' then
  local changed = state.time
  if tonumber(state.floor_time) > tonumber(changed) then changed = state.floor_time end
  next_look = changed + tonumber(ARGV[8])
  if next_look <= now and redis.call('EXISTS', members) == 0 then
    local before = redis.call('GET', FORGOTTEN)
    if not before or tonumber(before) < tonumber(changed) then
      redis.call('SET', FORGOTTEN, changed)
    end
    redis.call('DEL', META, LOG, SEEN)
    redis.call('SREM', TOPICS, topic)
    redis.call('ZREM', DUE, topic)
    return removed
  end
  if next_look <= now then next_look = now + tonumber(ARGV[10]) end
end
if next_look and ARGV[9] ~= '' then next_look = math.min(next_look, now + tonumber(ARGV[9])) end
redis.call('ZADD', DUE, next_look and string.format('%.6f', next_look) or '+inf', topic)
return removed
""")

# ARGV: store id, maximum number of names.
# Returns whether logs are missing in the index (an earlier version of this package made them), and
# the names of the logs to trim now.
DUE = Script.of("""
local text = clock()
local missing = redis.call('ZCARD', DUE) < redis.call('SCARD', TOPICS)
local names = redis.call('ZRANGEBYSCORE', DUE, '-inf', text, 'LIMIT', 0, ARGV[2])
return {missing and 1 or 0, names}
""")

# ARGV: names of logs, which are added to the index unless they are in it.
ADD_TO_INDEX = Script.of("""
for _, topic in ipairs(ARGV) do redis.call('ZADD', DUE, 'NX', 0, topic) end
""")

# ARGV: store id, topic, the epoch that ends, the epoch that begins. Returns the meta.
RENEW = Script.of("""
local meta, exists = load_meta()
local state = parse(meta)
if state.epoch ~= ARGV[3] then return meta end
if not exists then create(ARGV[2]) end
state.epoch = ARGV[4]
local text, now = clock()
if now > tonumber(state.time) then state.time = text end  -- so that it is not forgotten at once
return save(state)
""")

# ARGV: store id, topic, the epoch that begins. Returns the meta.
DELETE = Script.of("""
local meta, exists = load_meta()
local state = parse(meta)
local text, now = clock()
if not exists then create(ARGV[2]) end
redis.call('DEL', LOG)
redis.call('ZADD', DUE, text, ARGV[2])
return save({
  epoch = ARGV[3], seq = 0, tag = '0', time = state.time, floor = 0, floor_tag = '0',
  floor_time = now < tonumber(state.time) and state.time or text,
})
""")

# KEYS: a counter, which expires when it restarts. ARGV: how much to add, the limit, milliseconds
# after which the counter restarts. Returns 0 if the limit would be exceeded.
TAKE = Script.of("""
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
if used + tonumber(ARGV[1]) > tonumber(ARGV[2]) then return 0 end
redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
""")

# Returns seconds and microseconds. The script gets keys, so the same node of a cluster always runs
# it.
CLOCK = Script.of("return redis.call('TIME')")

# KEYS: the fingerprints of the site that the logs belong to, separated by spaces: that of its
# SECRET_KEY, then those of the SECRET_KEY_FALLBACKS that it had when the former was written.
# ARGV: the fingerprints of the caller, in the same order.
# Returns 1 if the logs belong to the caller's site, or to none before. The fingerprints of the
# fallbacks stay, so processes that have only the previous SECRET_KEY are still accepted.
CLAIM = Script.of("""
local owner = redis.call('GET', KEYS[1])
local known = {}
for fingerprint in string.gmatch(owner or '', '%S+') do known[fingerprint] = true end
if known[ARGV[1]] then return 1 end
local is_ours = not owner
for index = 2, #ARGV do is_ours = is_ours or known[ARGV[index]] or false end
if not is_ours then return 0 end
redis.call('SET', KEYS[1], table.concat(ARGV, ' '))
return 1
""")


def log_state_of(topic: str, meta: bytes) -> LogState:
    """Return the state of a log from the value of its key ``meta``."""
    epoch, seq, tag, _, floor_seq, floor_tag, floor_time = meta.decode().split()
    return LogState(
        topic, epoch, int(seq), int(tag), int(floor_seq), int(floor_tag), float(floor_time)
    )
