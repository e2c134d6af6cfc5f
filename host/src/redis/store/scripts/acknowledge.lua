-- Acknowledges deliveries whose results were just appended, and removes them from the inbox.
--
-- KEYS  1 inbox   2 output stream
-- ARGV  1 consumer group   then the ids of the entries
-- Reply number of acknowledged deliveries.
--
-- The last command of the transaction that appends the results. A failed command does not undo the rest of a
-- transaction: if the output is not a stream, nothing was appended, and then nothing may be acknowledged. Sent as text,
-- because a transaction is also not undone when it names a script that the server has lost.
local inbox, output, group = KEYS[1], KEYS[2], ARGV[1]
local kind = redis.call('TYPE', output).ok
if kind ~= 'stream' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. output .. ' is a ' .. kind .. ', not a stream; rename or delete it')
end
local acknowledged = redis.call('XACK', inbox, group, unpack(ARGV, 2))
redis.call('XDEL', inbox, unpack(ARGV, 2))
return acknowledged
