#!lua flags=allow-oom
-- Claims messages again that have waited or are being processed for long: claims free ids and renews own claims.
--
-- KEYS  the claim of each message
-- ARGV  1 how long the claims last from now, in ms   then the token of each message, in their order
-- Reply for each message 1 when the claim belongs to it, 0 when another message has claimed the id.
--
-- Atomic, because a claim that expires between the check and its renewal could be made by a copy. A claim is never
-- shortened: another host may have a longer window. A claim that is not a string is not a claim of a host; its message
-- continues without a claim. The script may use memory even when Redis is full: settling the deliveries in the inbox is
-- what makes room.
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
