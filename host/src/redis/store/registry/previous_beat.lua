#!lua flags=allow-oom
-- The heartbeat of the version before the present one, for the test beside this file.
-- One heartbeat of a host: renews the host, lists its consumers, removes all dead hosts and their consumers, also those that
-- live elsewhere.
--
-- KEYS  1 list of consumer ids   2 sorted set of hosts by expiry (ms, server time)
--       3 hash with the status of each host   4 hash with the host of each remote consumer
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
local list, hosts, words, remotes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
for at, wanted in ipairs({'list', 'zset', 'hash', 'hash'}) do
  local kind = redis.call('TYPE', KEYS[at]).ok
  if kind ~= wanted and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[at] .. ' is a ' .. kind .. ', not a ' .. wanted .. '; rename or delete it')
  end
end
local host, consumers, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

redis.call('ZREMRANGEBYSCORE', hosts, '-inf', now)
if ARGV[4] == 'beat' and not redis.call('ZSCORE', hosts, host) then
  return {0}
end
if ARGV[4] ~= 'leave' then
  redis.call('ZADD', hosts, now + ttl, host)
  redis.call('HSET', words, host, ARGV[5])
else
  redis.call('ZREM', hosts, host)
end

local alive, alive_count = {}, 0
for _, id in ipairs(redis.call('ZRANGE', hosts, 0, -1)) do
  alive[id] = true
  alive_count = alive_count + 1
end

for _, id in ipairs(redis.call('HKEYS', words)) do
  if not alive[id] then
    redis.call('HDEL', words, id)
  end
end

local elsewhere = {}
local pairs_of_remotes = redis.call('HGETALL', remotes)
for at = 1, #pairs_of_remotes, 2 do
  if alive[pairs_of_remotes[at + 1]] then
    elsewhere[pairs_of_remotes[at]] = true
  else
    redis.call('HDEL', remotes, pairs_of_remotes[at])
  end
end

-- Keep each living id once, and record which ids of this host are listed.
local kept, seen, stale = {}, {}, false
for _, id in ipairs(redis.call('LRANGE', list, 0, -1)) do
  local owner, number = string.match(id, '^(.*)/(%d+)$')
  local is_alive = elsewhere[id] or (owner and alive[owner] and (owner ~= host or tonumber(number) <= consumers))
  if is_alive and not seen[id] then
    seen[id] = true
    kept[#kept + 1] = id
  else
    stale = true
  end
end
local missing = {}
for number = 1, consumers do
  local id = host .. '/' .. number
  if not seen[id] then
    missing[#missing + 1] = id
  end
end

for id in pairs(elsewhere) do
  if not seen[id] then
    missing[#missing + 1] = id
  end
end

-- unpack() accepts a few thousand values at most.
local function push(ids)
  for first = 1, #ids, 1000 do
    redis.call('RPUSH', list, unpack(ids, first, math.min(first + 999, #ids)))
  end
end
if stale then
  redis.call('DEL', list)
  push(kept)
end
push(missing)

local last = redis.call('ZRANGE', hosts, -1, -1, 'WITHSCORES')
if last[2] then
  redis.call('PEXPIREAT', list, last[2])
  redis.call('PEXPIREAT', hosts, last[2])
  redis.call('PEXPIREAT', words, last[2])
  redis.call('PEXPIREAT', remotes, last[2])
end
return {1, alive_count, #kept + #missing, now}
