#!lua flags=allow-oom
-- One heartbeat of a host: renews the host, lists its consumers, removes all dead hosts and their consumers, also those that
-- live elsewhere.
--
-- KEYS  1 list of consumer ids   2 sorted set of hosts by expiry (ms, server time)
--       3 hash with the status of each host   4 hash with the host of each remote consumer
--       5 hash with the number of listed consumers of each host, and the sums below
-- ARGV  1 host id   2 number of consumers   3 validity in ms
--       4 "join" for a host that is new, "beat" for one that should be known, "leave" for one that stops
--       5 status of the host
-- Reply {1, hosts alive, consumers alive, server time in ms}, or {0} when the host is not registered any more: it
--       counted as dead and must return with a new id.
--
-- Atomic, because list and set must agree for a reader between two commands. The id of a consumer is its host's id, a
-- slash and a number, and a remote consumer belongs to the host at which it registered, so the expiry of a host is also the
-- expiry of its consumers. All keys expire with the last host,
-- so that the list is correct even when no host is left to clean it.
--
-- A heartbeat costs what has changed: ids are added as they come, and the whole list is only swept when something has to go, or
-- when the sums or a sample of the list do not fit. The sums are "total" (ids of the hosts in the hash), "hosts" (these hosts), "remote" (remote consumers)
-- and "sweep" (when the list is swept at the latest, so that nothing stays that somebody else has written). A host of an older
-- version is not in the hash and sweeps with every heartbeat; while there is one, so does every host.
local list, hosts, words, remotes, sizes = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
for at, wanted in ipairs({'list', 'zset', 'hash', 'hash', 'hash'}) do
  local kind = redis.call('TYPE', KEYS[at]).ok
  if kind ~= wanted and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. kind .. ', not a ' .. wanted .. '; rename or delete it')
  end
end
local host, consumers, ttl, mode = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local sums = {total = true, hosts = true, remote = true, sweep = true}

-- unpack() accepts a few thousand values at most.
local function push(ids)
  for first = 1, #ids, 1000 do
    redis.call('RPUSH', list, unpack(ids, first, math.min(first + 999, #ids)))
  end
end

-- Makes everything agree with the set of hosts, and returns the length of the list.
local function sweep()
  local alive, names = {}, redis.call('ZRANGE', hosts, 0, -1)
  for _, id in ipairs(names) do
    alive[id] = true
  end
  for _, id in ipairs(redis.call('HKEYS', words)) do
    if not alive[id] then
      redis.call('HDEL', words, id)
    end
  end

  -- How many ids each host has on the list, and which ones live elsewhere.
  local counted, total, elsewhere, distant = {}, 0, {}, 0
  local pairs_of_sizes = redis.call('HGETALL', sizes)
  for at = 1, #pairs_of_sizes, 2 do
    local id, size = pairs_of_sizes[at], tonumber(pairs_of_sizes[at + 1])
    if alive[id] and size and size <= 100000 then
      counted[#counted + 1] = id
      counted[id] = size
      total = total + size
    elseif not sums[id] then
      redis.call('HDEL', sizes, id)
    end
  end
  local pairs_of_remotes = redis.call('HGETALL', remotes)
  for at = 1, #pairs_of_remotes, 2 do
    if alive[pairs_of_remotes[at + 1]] then
      elsewhere[pairs_of_remotes[at]] = true
      distant = distant + 1
    else
      redis.call('HDEL', remotes, pairs_of_remotes[at])
    end
  end

  -- Each id that belongs there stays where it stands, once. An older host adds and removes its own ids.
  local kept, seen, stale, missing_count = {}, {}, false, total + distant
  for _, id in ipairs(redis.call('LRANGE', list, 0, -1)) do
    local owner, number = string.match(id, '^(.*)/([1-9]%d*)$')
    local size = counted[owner or '']
    local is_expected = elsewhere[id] or (size and tonumber(number) <= size)
    if (is_expected or (owner and alive[owner] and not size)) and not seen[id] then
      seen[id] = true
      kept[#kept + 1] = id
      missing_count = missing_count - (is_expected and 1 or 0)
    else
      stale = true
    end
  end
  local missing = {}
  if missing_count > 0 then
    for _, id in ipairs(counted) do
      for number = 1, counted[id] do
        local consumer = id .. '/' .. number
        if not seen[consumer] then
          missing[#missing + 1] = consumer
        end
      end
    end
    for id in pairs(elsewhere) do
      if not seen[id] then
        missing[#missing + 1] = id
      end
    end
  end
  if stale then
    redis.call('DEL', list)
    push(kept)
  end
  push(missing)

  local length = #kept + #missing
  if #names == 0 then
    redis.call('DEL', sizes)
  else
    -- The longer the list, the less often.
    local due = now + 60000 + 10 * length
    redis.call('HSET', sizes, 'total', total, 'hosts', #counted, 'remote', distant, 'sweep', due)
  end
  return length
end

local known = redis.call('HMGET', sizes, 'total', 'hosts', 'remote', 'sweep', host)
local total, counted, distant = tonumber(known[1]) or 0, tonumber(known[2]) or 0, tonumber(known[3]) or 0
local due, before = tonumber(known[4]) or 0, tonumber(known[5])
local must_sweep = redis.call('ZREMRANGEBYSCORE', hosts, '-inf', now) > 0

if mode == 'beat' and not redis.call('ZSCORE', hosts, host) then
  if must_sweep then
    sweep()
  end
  return {0}
end
if mode == 'leave' then
  redis.call('ZREM', hosts, host)
  must_sweep = true
else
  redis.call('ZADD', hosts, now + ttl, host)
  redis.call('HSET', words, host, ARGV[5])
  if before ~= consumers then
    counted = counted + (before and 0 or 1)
    total = total + consumers - (before or 0)
    redis.call('HSET', sizes, host, consumers, 'total', total, 'hosts', counted)
    local missing = {}
    for number = (before or 0) + 1, consumers do
      missing[#missing + 1] = host .. '/' .. number
    end
    push(missing)
    must_sweep = must_sweep or (before or 0) > consumers
  end
end

-- Whether there are so many ids on the list, without counting them.
local function has_length(length)
  if length == 0 then
    return #redis.call('LRANGE', list, 0, 0) == 0
  end
  return #redis.call('LRANGE', list, length - 1, length) == 1
end

-- Whether a part of the list, another one with each heartbeat, has ids that belong there, each once. Of a short list that is all.
local function is_sample_right(length)
  local start = length > 64 and now * 7919 % (length - 63) or 0
  local seen, sizes_of = {}, {}
  for _, id in ipairs(redis.call('LRANGE', list, start, start + 63)) do
    local owner, number = string.match(id, '^(.*)/([1-9]%d*)$')
    if owner and sizes_of[owner] == nil then
      sizes_of[owner] = tonumber(redis.call('HMGET', sizes, owner)[1] or 0) or 0
    end
    local is_expected = owner and tonumber(number) <= sizes_of[owner]
    if seen[id] or not (is_expected or redis.call('HMGET', remotes, id)[1]) then
      return false
    end
    seen[id] = true
  end
  return true
end

local alive_count, length = redis.call('ZCARD', hosts), total + distant
if must_sweep or now >= due or alive_count ~= counted or not has_length(length) or not is_sample_right(length) then
  length = sweep()
end

-- Nothing lasts for longer than a day, whatever stands in the set.
local last = redis.call('ZRANGE', hosts, -1, -1, 'WITHSCORES')
if last[2] then
  local expiry = string.format('%.0f', math.min(tonumber(last[2]), now + 86400000))
  for at = 1, #KEYS do
    redis.call('PEXPIREAT', KEYS[at], expiry)
  end
end
return {1, alive_count, length, now}
