-- Acknowledges deliveries whose results have just been appended, and takes them out of the inbox.
--
-- KEYS  1 inbox   2 output stream
-- ARGV  1 consumer group   then the ids of the entries
-- Reply how many were acknowledged.
--
-- The last command of the transaction that appends the results. What fails in a transaction does not undo the rest: when
-- the output is no stream nothing has been appended, and then nothing may be acknowledged.
-- Sent as text, because a transaction is not undone either when it names a script that the server has lost.
local inbox, output, group = KEYS[1], KEYS[2], ARGV[1]
local kind = redis.call('TYPE', output).ok
if kind ~= 'stream' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. output .. ' is a ' .. kind .. ', not a stream; rename or delete it')
end
local acknowledged = redis.call('XACK', inbox, group, unpack(ARGV, 2))
redis.call('XDEL', inbox, unpack(ARGV, 2))
return acknowledged
