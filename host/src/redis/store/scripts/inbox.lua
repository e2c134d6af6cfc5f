#!lua flags=no-writes
-- Entries of the inbox, oldest first, without their messages.
--
-- KEYS  1 inbox
-- ARGV  1 where to begin: an id, an id with ( in front to begin behind it, or -   2 maximum number of entries
-- Reply {for each entry: its id, number of its messages}.
--
-- One entry at a time, so that only one is in the memory of the script.
local key, from = KEYS[1], ARGV[1]
local kind = redis.call('TYPE', key).ok
if kind ~= 'stream' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind .. ', not a stream; rename or delete it')
end
local reply = {}
for _ = 1, ARGV[2] do
  local entry = redis.call('XRANGE', key, from, '+', 'COUNT', 1)[1]
  if not entry then
    break
  end
  local messages = 0
  for at = 1, #entry[2], 2 do
    -- A pair with an empty name is a note.
    if entry[2][at] ~= '' then
      messages = messages + 1
    end
  end
  reply[#reply + 1] = entry[1]
  reply[#reply + 1] = messages
  from = '(' .. entry[1]
end
return reply
