-- Settles one delivery: acknowledges it and writes its results, retries and dead letters, or does nothing at all. Splits it in
-- the same step: what was not processed goes back into the inbox, as entries of their own. Settles in the same way one message
-- that waits among the retries while it is processed over HTTP.
--
-- KEYS  1 inbox, or the waiting retries   then the streams: the main output, each named output with a result, the dead letters,
--       and of a delivery that is split the inbox again
--       and, when there is anything to try again: waiting retries, then the claim of each such message
--       and last the keys of the plugin's state that the messages have read or change
-- ARGV  1 consumer group, empty for a waiting message   2 entry id, or the member of the set   3 number of streams
--       4 number of keys of state
--       then for each stream: entries kept, 0 for all; number of entries; for each entry: number of values, field, value, …
--       then, for each message to try again: delay in ms, member, token of its claim, ms that the claim is to last
--       then, for each key of state: what must be there ('' anything, 'absent', or 'value' and the value), the change ('' none,
--       'set' and the value, 'delete', or 'add' and a number), and the lifetime of a written value in ms, 0 for ever
-- Reply CONFLICT when a key of state is not as it was read: then nothing is written either. 0 when the delivery was already settled: then nothing is written. When this call settled it, for each stream the number of
--       entries that were removed because it was longer than its bound.
--
-- Atomic, because XACK is the fence, or ZREM for a waiting message: only the caller that gets its 1 writes, and no reader sees the delivery
-- acknowledged without its results. The types of all keys are checked first, because a script that fails half-way is not
-- undone; for the same reason all state is compared before anything is written, and a number that is added to has so few digits
-- that the sum fits. State is compared only if the delivery is not settled yet, because a repeated call finds its own changes.
-- A key that is no string counts as absent, as MGET tells it. The claim of a waiting retry is renewed, so that a copy published in the meantime is a duplicate.
local inbox, streams, states = KEYS[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local state_from, state_at = #KEYS - states, #ARGV - 5 * states
local waiting = streams + 2 <= state_from and KEYS[streams + 2]
for key = 2, math.min(state_from, streams + 2) do
  local kind, wanted = redis.call('TYPE', KEYS[key]).ok, key == streams + 2 and 'zset' or 'stream'
  if kind ~= wanted and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[key] .. ' is a ' .. kind .. ', not a ' .. wanted .. '; rename or delete it')
  end
end
local is_delivery = ARGV[1] ~= ''
if states > 0 then
  if is_delivery and #redis.pcall('XPENDING', inbox, ARGV[1], ARGV[2], ARGV[2], 1) == 0
      or not is_delivery and not redis.call('ZSCORE', inbox, ARGV[2]) then
    return 0
  end
  for state = 1, states do
    local key, at = KEYS[state_from + state], state_at + 5 * state - 4
    local value = redis.pcall('GET', key)
    value = type(value) == 'string' and value
    local wanted, change = ARGV[at], ARGV[at + 2]
    local is_as_read = wanted == '' or wanted == 'absent' and not value or wanted == 'value' and value == ARGV[at + 1]
    local is_number = not value or value == '0' or string.find(value, '^%-?[1-9]%d*$') and #value <= 19
        and (#value <= 18 or string.sub(value, 1, 1) == '-')
    if not is_as_read or change == 'add' and not is_number then
      return redis.status_reply('CONFLICT')
    end
  end
end
local settled = is_delivery and redis.call('XACK', inbox, ARGV[1], ARGV[2]) or redis.call('ZREM', inbox, ARGV[2])
if settled == 0 then
  return 0
end

local at, trimmed = 5, {}
for key = 2, streams + 1 do
  local length_max, entries = ARGV[at], tonumber(ARGV[at + 1])
  local before = length_max ~= '0' and entries > 0 and redis.call('XLEN', KEYS[key])
  at = at + 2
  for _ = 1, entries do
    local values = tonumber(ARGV[at])
    if length_max == '0' then
      redis.call('XADD', KEYS[key], '*', unpack(ARGV, at + 1, at + values))
    else
      redis.call('XADD', KEYS[key], 'MAXLEN', '~', length_max, '*', unpack(ARGV, at + 1, at + values))
    end
    at = at + values + 1
  end
  trimmed[key - 1] = before and before + entries - redis.call('XLEN', KEYS[key]) or 0
end
if waiting then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  for key = streams + 3, state_from do
    local delay_ms, member, token, claim_ms = unpack(ARGV, at, at + 3)
    redis.call('ZADD', waiting, now + delay_ms, member)
    local holder = redis.call('GET', KEYS[key])
    if not holder then
      redis.call('SET', KEYS[key], token, 'PX', claim_ms)
    elseif holder == token then
      -- Never shortened: another host may have a longer window.
      redis.call('PEXPIRE', KEYS[key], claim_ms, 'GT')
    end
    at = at + 4
  end
end
for state = 1, states do
  local key, at = KEYS[state_from + state], state_at + 5 * state - 4
  local change, value, ttl_ms = unpack(ARGV, at + 2, at + 4)
  if change == 'set' then
    redis.call('SET', key, value)
  elseif change == 'delete' then
    redis.call('DEL', key)
  elseif change == 'add' then
    if redis.call('TYPE', key).ok ~= 'string' then
      redis.call('DEL', key)
    end
    redis.call('INCRBY', key, value)
  end
  if ttl_ms ~= '0' and (change == 'set' or change == 'add') then
    redis.call('PEXPIRE', key, ttl_ms)
  end
end
if is_delivery then
  redis.call('XDEL', inbox, ARGV[2])
end
return trimmed
