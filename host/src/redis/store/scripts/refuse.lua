-- Writes dead letters that never were messages, and removes the oldest of these beyond their bound.
--
-- KEYS  1 dead letters   2 index: a stream with the entry ids of the dead letters without a message id
-- ARGV  1 dead letters kept of all, 0 for all   2 kept of those without a message id, 0 for all   3 number of entries
--       then for each entry: number of values, field, value, …
-- Reply number of dead letters that were removed.
--
-- The index tells which dead letters these are without a look at the others, of which none is removed for them. An id comes into
-- the index with its dead letter, so both have the same order. Where the dead letters are gone, what is left of the index says
-- nothing, and its ids might be newer than the next ones. Runs in the transaction that appends. Sent as text, because a transaction
-- is not undone when it names a script that the server has lost. If a key is something else, this fails before it writes.
local dead, index = KEYS[1], KEYS[2]
local kept, indexed_max, entries = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'stream' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind .. ', not a stream; rename or delete it')
  end
end
local before = redis.call('XLEN', dead)
if before == 0 then
  redis.call('DEL', index)
end
local at = 4
for _ = 1, entries do
  local values, id = tonumber(ARGV[at]), nil
  if kept == '0' then
    id = redis.call('XADD', dead, '*', unpack(ARGV, at + 1, at + values))
  else
    id = redis.call('XADD', dead, 'MAXLEN', '~', kept, '*', unpack(ARGV, at + 1, at + values))
  end
  if indexed_max > 0 then
    redis.call('XADD', index, id, '', '')
  end
  at = at + values + 1
end
local excess = redis.call('XLEN', index) - indexed_max
if indexed_max > 0 and excess > 0 then
  -- After a change of the bound there may be very many, which go little by little.
  for _, entry in ipairs(redis.call('XRANGE', index, '-', '+', 'COUNT', math.min(excess, entries + 1000))) do
    redis.call('XDEL', dead, entry[1])
    redis.call('XDEL', index, entry[1])
  end
end
return before + entries - redis.call('XLEN', dead)
