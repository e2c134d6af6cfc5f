#!lua flags=allow-oom
-- Lets messages wait among the retries for longer, because they are being processed over HTTP.
--
-- KEYS  1 waiting retries, a sorted set by due time (ms, server time)
-- ARGV  1 ms until the messages are due, from now   then the member of each message
-- Reply nothing.
--
-- Atomic, because the time is the server's. A message that is not there any more stays away: it is settled, or was due.
local time = redis.call('TIME')
local due = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for at = 2, #ARGV do
  redis.call('ZADD', KEYS[1], 'XX', due, ARGV[at])
end
return redis.status_reply('OK')
