-- Settles one delivery: acknowledge it and write everything that came of it, or nothing at all.
--
-- KEYS  1 inbox   2 output stream   3 dead letters
-- ARGV  1 consumer group   2 entry id
--       3 results kept, 0 for all   4 dead letters kept, 0 for all
--       5 number of results, then for each: number of values, field, value, …
--       then number of dead letters, then each likewise
-- Reply 1 when this call settled the delivery, 0 when somebody had settled it before: then nothing is written.
--
-- Atomic, because XACK is the fence: whoever gets its 1 writes, and nobody sees it acknowledged but unwritten.
-- The types are checked first, because a script that fails halfway is not undone.
local inbox, output, dead = KEYS[1], KEYS[2], KEYS[3]
for key = 2, 3 do
  local kind = redis.call('TYPE', KEYS[key]).ok
  if kind ~= 'stream' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[key] .. ' is a ' .. kind .. ', not a stream; rename or delete it')
  end
end
if redis.call('XACK', inbox, ARGV[1], ARGV[2]) == 0 then
  return 0
end

local at = 5
local function append(stream, length_max)
  local entries = tonumber(ARGV[at])
  at = at + 1
  for _ = 1, entries do
    local values = tonumber(ARGV[at])
    if length_max == '0' then
      redis.call('XADD', stream, '*', unpack(ARGV, at + 1, at + values))
    else
      redis.call('XADD', stream, 'MAXLEN', '~', length_max, '*', unpack(ARGV, at + 1, at + values))
    end
    at = at + values + 1
  end
end
append(output, ARGV[3])
append(dead, ARGV[4])
redis.call('XDEL', inbox, ARGV[2])
return 1
