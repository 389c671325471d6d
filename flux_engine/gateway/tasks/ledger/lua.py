"""The steps of the ledger that must be atomic, each one Lua script and one round trip.

Every script may run twice with the same result, because a call whose connection breaks is repeated. An event goes to
the task's stream and to its user's under one id, and to the channel that all replicas listen to.
"""

from __future__ import annotations

from typing import Final

TASK_EVENTS: Final = 200  # kept for replay; the newest matter
USER_EVENTS: Final = 1000

EMIT: Final = f"""
local function emit(user_events, task_events, channel, head, task, kind, data)
  local kept = data
  if kind == 'preview' then kept = '' end
  local function add(key, most, id)
    return redis.pcall('XADD', key, 'MAXLEN', '~', most, id, 'task', task, 'kind', kind, 'data', kept)
  end
  local id = add(user_events, {USER_EVENTS}, '*')
  if type(add(task_events, {TASK_EVENTS}, id)) == 'table' then add(task_events, {TASK_EVENTS}, '*') end
  redis.call('PUBLISH', channel, head .. '\\n' .. task .. '\\n' .. id .. '\\n' .. kind .. '\\n' .. data)
  return id
end
local function set_pairs(key, first)
  for i = first, #ARGV - 1, 2 do
    if ARGV[i + 1] == '' then redis.call('HDEL', key, ARGV[i]) else redis.call('HSET', key, ARGV[i], ARGV[i + 1]) end
  end
end
"""

# KEYS: task, input, index, due, task events, user events, idempotency or '', join.
# ARGV: task id, now, due at, input, body hash, seconds an idempotency key lasts, seconds a repeat joins, channel, user,
# kind, event, seconds and tasks that the index reaches back, then the hash in pairs. Returns {'made'} or {'known', task
# id, body hash}.
CREATE: Final = (
    EMIT
    + """
if KEYS[7] ~= '' then
  local known = redis.call('HMGET', KEYS[7], 'task', 'body')
  if known[1] and known[1] ~= ARGV[1] then return {'known', known[1], known[2]} end
  redis.call('HSET', KEYS[7], 'task', ARGV[1], 'body', ARGV[5])
  redis.call('EXPIRE', KEYS[7], ARGV[6])
end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'made'} end
redis.call('SET', KEYS[8], ARGV[1], 'EX', ARGV[7])
set_pairs(KEYS[1], 14)
redis.call('SET', KEYS[2], ARGV[4])
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', tonumber(ARGV[2]) - tonumber(ARGV[12]))
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - tonumber(ARGV[13]))
redis.call('EXPIRE', KEYS[3], ARGV[12])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
emit(KEYS[6], KEYS[5], ARGV[8], ARGV[9], ARGV[1], ARGV[10], ARGV[11])
return {'made'}
"""
)

# KEYS: task, due, task events, user events, preview. ARGV: task id, mode, progress, seq or status, due at or '',
# channel, user, kind or '', event, preview or '', seconds that a preview lasts, now where its worker said so itself,
# then pairs. Changes nothing that has ended. `progress` changes only what goes forward; `note` only what is still at
# the status and progress that its writer read, so that no event tells older ones after newer; `wish` anything, `orphan`
# what nobody waits for; `final` ends the task, and where it was not completed, at the progress that its writer read.
# Returns 1 where it changed something, -1 where an end was written by somebody who had read an older progress.
APPLY: Final = (
    EMIT
    + """
local known = redis.call('HMGET', KEYS[1], 'status', 'progress', 'seq')
if not known[1] or known[1] == 'completed' or known[1] == 'failed' or known[1] == 'cancelled' then return 0 end
local from, to = tonumber(known[2] or '0'), tonumber(ARGV[3])
if ARGV[2] == 'progress' then
  if ARGV[12] ~= '' then redis.call('HSET', KEYS[1], 'heard_at', ARGV[12]) end
  if to < from or (to == from and tonumber(ARGV[4]) <= tonumber(known[3] or '0')) then return 0 end
elseif ARGV[2] == 'note' then
  if known[1] ~= ARGV[4] or from ~= to then return 0 end
elseif ARGV[2] == 'orphan' then
  if redis.call('HEXISTS', KEYS[1], 'orphaned_at') == 0 then return 0 end
elseif ARGV[2] == 'final' then
  if ARGV[8] ~= 'completed' and from ~= to then return -1 end
end
set_pairs(KEYS[1], 13)
if ARGV[5] ~= '' then redis.call('ZADD', KEYS[2], ARGV[5], ARGV[1]) end
if ARGV[8] ~= '' then emit(KEYS[4], KEYS[3], ARGV[6], ARGV[7], ARGV[1], ARGV[8], ARGV[9]) end
if ARGV[10] ~= '' then
  redis.call('SET', KEYS[5], ARGV[10], 'EX', ARGV[11])
  emit(KEYS[4], KEYS[3], ARGV[6], ARGV[7], ARGV[1], 'preview', ARGV[10])
end
return 1
"""
)

# KEYS: task. ARGV: user. The task, where it is this user's.
OWN: Final = """
if redis.call('HGET', KEYS[1], 'user') ~= ARGV[1] then return {} end
return redis.call('HGETALL', KEYS[1])
"""

# KEYS: task. ARGV: now, seconds. True for the one who may submit it: no ticket, not ended, nobody else is at it.
BEGIN_SUBMIT: Final = """
local known = redis.call('HMGET', KEYS[1], 'status', 'ticket', 'submitting_until')
if not known[1] or known[2] then return 0 end
if known[1] ~= 'queued' and known[1] ~= 'processing' then return 0 end
if known[3] and tonumber(known[3]) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'submitting_until', tonumber(ARGV[1]) + tonumber(ARGV[2]))
return 1
"""

# KEYS: task, input, task events, due, index, join, idempotency where it had one. ARGV: task id. It was never there.
DISCARD: Final = """
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
if redis.call('GET', KEYS[6]) == ARGV[1] then redis.call('DEL', KEYS[6]) end
if KEYS[7] and redis.call('HGET', KEYS[7], 'task') == ARGV[1] then redis.call('DEL', KEYS[7]) end
return 1
"""

# KEYS: task, due. ARGV: task id, ticket, now, due at. What the queue calls this task from now on; -1 where it has ended
# meanwhile, 2 where the ticket is to be cancelled: the task is, or it has another ticket by now. Else 1.
TICKET: Final = """
local known = redis.call('HMGET', KEYS[1], 'status', 'cancelling', 'ticket')
if not known[1] or (known[1] ~= 'queued' and known[1] ~= 'processing') then return -1 end
if known[3] and known[3] ~= ARGV[2] then return 2 end
if not known[3] then
  redis.call('HSET', KEYS[1], 'ticket', ARGV[2], 'submitted_at', ARGV[3], 'seq', 0)
  redis.call('HINCRBY', KEYS[1], 'attempt', 1)
  redis.call('HDEL', KEYS[1], 'submitting_until', 'ended_at', 'heard_at')
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
end
if known[2] == '1' then return 2 end
return 1
"""

# KEYS: task, due. ARGV: task id, the ticket that is lost, now. The next look submits the task again.
LOSE_TICKET: Final = """
if redis.call('HGET', KEYS[1], 'ticket') ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], 'ticket')
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
return 1
"""

# KEYS: due, bucket. ARGV: now, lease, at most, tokens a second, most tokens. The tasks whose turn to be looked at has
# come, at the rate that the queue takes over all replicas; each is left alone for `lease` seconds by the others.
CLAIM: Final = """
local now, rate, most = tonumber(ARGV[1]), tonumber(ARGV[4]), tonumber(ARGV[5])
local held = redis.call('HMGET', KEYS[2], 'tokens', 'at')
local tokens = math.min(most, tonumber(held[1] or most) + math.max(0, now - tonumber(held[2] or now)) * rate)
local count = math.min(tonumber(ARGV[3]), math.floor(tokens))
local ids = {}
if count > 0 then ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, count) end
for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), id) end
redis.call('HSET', KEYS[2], 'tokens', tokens - #ids, 'at', now)
redis.call('EXPIRE', KEYS[2], 60)
return ids
"""

# KEYS: due. ARGV: when leases end that begin now, at. What rests for longer than a lease is due then.
WAKE_ALL: Final = """
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf')
for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1], 'LT', ARGV[2], id) end
return #ids
"""

# KEYS: task, due, input, task events, preview. ARGV: task id, seconds. Everything that follows from the end is done.
SETTLE: Final = """
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'is_settled', '1')
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[2])
redis.call('EXPIRE', KEYS[4], ARGV[2])
redis.call('DEL', KEYS[5])
return 1
"""

# KEYS: task, due. ARGV: task id, now, look at. Its worker is done with it.
SET_ENDED: Final = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'processing' then return 0 end
redis.call('HSET', KEYS[1], 'ended_at', ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
return 1
"""

# KEYS: due, task. ARGV: task id, at, 'LT' to move the next look nearer alone, and, after a look, when its lease ends,
# or 0: where another time stands there, somebody asked for it meanwhile, and it is not put off. Nothing for a task that
# is settled.
LOOK_AT: Final = """
if redis.call('EXISTS', KEYS[2]) == 0 or redis.call('HGET', KEYS[2], 'is_settled') == '1' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return 0
end
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
local is_asked_for = known and tonumber(ARGV[4]) > 0 and tonumber(known) ~= tonumber(ARGV[4])
if ARGV[3] == 'LT' or is_asked_for then redis.call('ZADD', KEYS[1], 'LT', ARGV[2], ARGV[1])
else redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1]) end
return 1
"""
