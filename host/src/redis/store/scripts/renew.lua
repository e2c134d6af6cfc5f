#!lua flags=allow-oom
-- Claims messages again that have waited, or are worked on, for long: claims what is free and renews what is ours.
--
-- KEYS  the claim of each message
-- ARGV  1 how long the claims last from now, in ms   then the token of each message, in their order
-- Reply for each message 1 when it is ours, 0 when somebody else has claimed it.
--
-- Atomic, because a claim that expires between a look and its renewal could be made by a copy. A claim never becomes
-- shorter: another host may have a longer window. A claim that is no string is none of ours; the message goes on without one.
-- It may use memory also when Redis is full: what is in the inbox goes on being settled, which is what makes room.
local ours = {}
for at, key in ipairs(KEYS) do
  local token = ARGV[at + 1]
  local holder = redis.pcall('SET', key, token, 'NX', 'GET', 'PX', ARGV[1])
  if type(holder) == 'table' and holder.err and not string.find(holder.err, 'WRONGTYPE', 1, true) then
    return holder
  end
  if holder == token then
    redis.call('PEXPIRE', key, ARGV[1], 'GT')
  end
  ours[at] = (type(holder) ~= 'string' or holder == token) and 1 or 0
end
return ours
