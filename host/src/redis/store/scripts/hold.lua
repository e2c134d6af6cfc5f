-- Takes a message in that was not published: claims its id, and lets the message wait among the retries while it is processed.
--
-- KEYS  1 claim of the message   2 waiting retries, a sorted set by due time (ms, server time)
-- ARGV  1 end of the token, which no other has   2 how long the claim lasts, in ms   3 ms until the message is due
--       4 the format of new entries   5 message id   6 JSON text
-- Reply {1, token} when the message waits, {0} when its id was claimed before, {2} when it has waited too long already.
--
-- Atomic, because a claim without its message would make the next attempt of the sender a duplicate, and the message would be
-- lost. When the process ends before the message is settled, the message becomes due and goes to the inbox like every retry.
-- Whoever removes the message from the set settles it. May be repeated: the end of the token tells an earlier call.
local claim, waiting, own = KEYS[1], KEYS[2], ARGV[1]
local kind = redis.call('TYPE', waiting).ok
if kind ~= 'zset' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. waiting .. ' is a ' .. kind .. ', not a zset; rename or delete it')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local token = string.format('%d-%s', now, own)
local holder = redis.pcall('SET', claim, token, 'NX', 'GET', 'PX', ARGV[2])
if type(holder) == 'table' and holder.err and not string.find(holder.err, 'WRONGTYPE', 1, true) then
  return holder
end
local is_repeated = type(holder) == 'string'
if is_repeated then
  if string.sub(holder, -#own) ~= own then
    return {0}
  end
  token = holder
end
-- entry.rs describes the parts of a member.
local member = 'v' .. ARGV[4] .. ' 1 ' .. token .. ' 0 ' .. #ARGV[5] .. '\n' .. ARGV[5] .. ARGV[6]
if is_repeated then
  if not redis.call('ZSCORE', waiting, member) then
    return {2}
  end
end
redis.call('ZADD', waiting, now + ARGV[3], member)
return {1, token}
