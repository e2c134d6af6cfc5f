#!lua flags=allow-oom
-- Counts the messages that the hosts of the group have finished, for a report.
--
-- KEYS  1 descriptor of the group, a hash: see join.lua
-- ARGV  1 host id   2 messages that the host has finished since it has this id
-- Reply messages that the group has finished since the first of its hosts started.
--
-- Atomic, because the count of a host that is not in the group any more has been added to the group's already.
local key, host = KEYS[1], ARGV[1]
local total, is_member, before = 0, false, 0
local fields = redis.call('HGETALL', key)
for at = 1, #fields, 2 do
  local name = fields[at]
  if name == 'host ' .. host then
    is_member = true
  elseif name == 'processed ' .. host then
    before = tonumber(fields[at + 1])
  elseif name == 'processed' or string.match(name, '^processed ') then
    total = total + tonumber(fields[at + 1])
  end
end
if not is_member then
  return total + before
end
redis.call('HSET', key, 'processed ' .. host, ARGV[2])
return total + tonumber(ARGV[2])
