#!lua flags=no-writes
-- The facts of a stream, without the contents of its first and last entry, which XINFO also sends.
--
-- KEYS  1 stream
-- Reply {length, entries ever added, id of the first entry or '', id of the last entry ever added}.
local key = KEYS[1]
local kind = redis.call('TYPE', key).ok
if kind == 'none' then
  return {0, 0, '', '0-0'}
elseif kind ~= 'stream' then
  return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind .. ', not a stream; rename or delete it')
end
local facts, info = {}, redis.call('XINFO', 'STREAM', key)
for at = 1, #info, 2 do
  facts[info[at]] = info[at + 1]
end
local first = facts['first-entry']
return {facts['length'], facts['entries-added'], first and first[1] or '', facts['last-generated-id']}
