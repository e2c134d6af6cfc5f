-- Adds a remote consumer to the list of consumers, or removes it.
--
-- KEYS  1 list of consumer ids   2 hash with the host of each remote consumer   3 sorted set of hosts by expiry
--       4 hash with the sums by which a heartbeat knows how long the list is
-- ARGV  1 "register" or "unregister"   2 id of the remote consumer   3 id of the host that is asked
--       4 most consumers of the group, 0 for no bound
-- Reply 1 when it is done, 0 when the group has no place, -1 when the host itself is not registered.
--
-- Atomic, because two registrations at two hosts must not both get the last place. A remote consumer belongs to one host, the
-- last one at which it registered, and leaves the list with that host (beat.lua).
local list, remotes, hosts, sizes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, host, most = ARGV[2], ARGV[3], tonumber(ARGV[4])
local function count(change)
  local distant = tonumber(redis.call('HMGET', sizes, 'remote')[1])
  if distant and change ~= 0 then
    redis.call('HSET', sizes, 'remote', distant + change)
  end
end
local listed = redis.call('LRANGE', list, 0, -1)
if ARGV[1] == 'unregister' then
  count(-redis.call('HDEL', remotes, id))
  local kept = {}
  for _, other in ipairs(listed) do
    if other ~= id then
      kept[#kept + 1] = other
    end
  end
  if #kept < #listed then
    redis.call('DEL', list)
    for first = 1, #kept, 1000 do
      redis.call('RPUSH', list, unpack(kept, first, math.min(first + 999, #kept)))
    end
  end
else
  if not redis.call('ZSCORE', hosts, host) then
    return -1
  end
  local is_listed = false
  for _, other in ipairs(listed) do
    is_listed = is_listed or other == id
  end
  if not is_listed then
    if most > 0 and #listed >= most then
      return 0
    end
    redis.call('RPUSH', list, id)
  end
  count(redis.call('HSET', remotes, id, host))
end
local last = redis.call('ZRANGE', hosts, -1, -1, 'WITHSCORES')
if last[2] then
  redis.call('PEXPIREAT', list, last[2])
  redis.call('PEXPIREAT', remotes, last[2])
end
return 1
