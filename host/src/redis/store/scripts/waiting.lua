#!lua flags=no-writes
-- Waiting retries, those that are due next first, without their messages.
--
-- KEYS  1 waiting retries
-- ARGV  1 maximum number of retries to list
-- Reply {number that wait, then for each: id of the message, number of the attempt, when it is due in ms since 1970}. A retry
--       in a format that the script cannot read has an empty id and the attempt 0.
local key = KEYS[1]
local kind = redis.call('TYPE', key).ok
if kind ~= 'zset' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind .. ', not a zset; rename or delete it')
end
local reply = {redis.call('ZCARD', key)}
local members = redis.call('ZRANGE', key, 0, ARGV[1] - 1, 'WITHSCORES')
for at = 1, #members, 2 do
  local member = members[at]
  local _, version_end = string.find(member, '^v%d+ ')
  local attempt, length, text = string.match(member, '^(%d+) %S+ %d+ (%d+)\n()', (version_end or 0) + 1)
  reply[#reply + 1] = attempt and string.sub(member, text, text + length - 1) or ''
  reply[#reply + 1] = tonumber(attempt) or 0
  reply[#reply + 1] = tonumber(members[at + 1])
end
return reply
