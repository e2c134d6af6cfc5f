#!lua flags=allow-oom
-- A host states the facts on which its group must agree, and learns whether the group agrees. Sent with every
-- heartbeat.
--
-- KEYS  1 descriptor of the group, a hash
-- ARGV  1 host id   2 how long this is valid, in ms; 0 to leave   3 what the host receives (group.rs)   4 the newest format that the host reads
--       5 how long the host remembers message ids, in ms   6 messages that the host has finished since its start
--       7 the named outputs of the host, a text
-- Reply {1, format that the group writes, longest dedup window of its hosts in ms}, and behind that for a host with other
--       named outputs, if there is one: its id, its outputs;
--       or {0, format that the group writes, the window, what the group receives} when the host does not fit in: then it has not
--       joined.
--
-- Fields: channel and format belong to the group. Each host has one field, "host <id>", with its expiry (ms, server
-- time), the newest format that it reads, and its window; one field, "processed <id>", with the number of messages, which
-- the field "processed" of the group takes over from a host that is gone; and one field, "outputs <id>". An older host
-- has no such fields, and leaves those of others as they are. The first host writes into channel what the group receives. The format is the newest
-- one that every host reads. While any host is alive the format only rises, because a host that cannot read it is
-- refused. Atomic, because two hosts that start at the same moment must not both be the first. Expires with the last
-- host.
local key, host, ttl, channel, reads, window = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5]
local kind = redis.call('TYPE', key).ok
if kind ~= 'hash' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind .. ', not a hash; rename or delete it')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local alive = {[host] = ttl > 0}
local group, lowest, longest, last = {}, reads, tonumber(window), now + ttl
local others, counted, outputs = 0, {}, {}
local fields = redis.call('HGETALL', key)
for at = 1, #fields, 2 do
  local kind_of, id = string.match(fields[at], '^(%l+) (.*)$')
  if kind_of == 'processed' then
    counted[id] = tonumber(fields[at + 1])
  elseif kind_of == 'outputs' then
    outputs[id] = fields[at + 1]
  elseif kind_of ~= 'host' then
    group[fields[at]] = fields[at + 1]
  elseif id ~= host then
    local expires, format, remembers = string.match(fields[at + 1], '^(%d+) (%d+) (%d+)$')
    expires = tonumber(expires) or 0
    if expires <= now then
      redis.call('HDEL', key, fields[at])
    else
      others = others + 1
      alive[id] = true
      last = math.max(last, expires)
      lowest = math.min(lowest, tonumber(format))
      longest = math.max(longest, tonumber(remembers))
    end
  end
end

-- A host that leaves a second time, because the first reply was lost, has no count any more.
if ttl > 0 or counted[host] then
  counted[host] = tonumber(ARGV[6])
end
local gone = 0
for id, count in pairs(counted) do
  if not alive[id] then
    gone = gone + count
    redis.call('HDEL', key, 'processed ' .. id)
  end
end
if gone > 0 then
  redis.call('HSET', key, 'processed', (group.processed or 0) + gone)
end
local other = nil
for id in pairs(outputs) do
  if not alive[id] then
    redis.call('HDEL', key, 'outputs ' .. id)
  elseif outputs[id] ~= ARGV[7] and id ~= host and (not other or id < other) then
    other = id
  end
end

if ttl == 0 then
  redis.call('HDEL', key, 'host ' .. host)
  if others == 0 then
    redis.call('DEL', key)
  end
  return {1, lowest, longest}
end
local format = tonumber(group.format) or 0
if others > 0 and (group.channel ~= channel or format > reads) then
  return {0, format, longest, group.channel or ''}
end
if others > 0 then
  lowest = math.max(lowest, format)
end
redis.call('HSET', key, 'channel', channel, 'format', lowest, 'host ' .. host, (now + ttl) .. ' ' .. reads .. ' ' .. window)
redis.call('HSET', key, 'processed ' .. host, counted[host], 'outputs ' .. host, ARGV[7])
redis.call('PEXPIREAT', key, last)
return {1, lowest, longest, other, other and outputs[other]}
