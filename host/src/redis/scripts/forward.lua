-- Moves messages whose next attempt is due from the waiting retries into the inbox.
--
-- KEYS  1 waiting retries, a sorted set by due time (ms, server time)   2 inbox
-- ARGV  1 most messages to move   2 bytes after which to stop   3 most messages in an entry   4 most bytes in an entry
-- Reply {moved, ms until the next one is due, -1 when none waits}. 0 ms: more are due already.
--
-- Atomic, because a message between the two keys would be in neither, or in both: then every host that looks at the
-- same time would append it. Messages are appended before they are removed, so that an error loses nothing.
-- A member is "<attempt> <token> <crashes> <bytes of the id>\n<id><body>"; redis/retries.rs writes it.
-- A message that hosts died with is alone in its entry.
local waiting, inbox = KEYS[1], KEYS[2]
local most, bytes_max = tonumber(ARGV[1]), tonumber(ARGV[2])
local entry_messages_max, entry_bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local entry, members, entry_bytes = {}, {}, 0
local function flush()
  if #entry > 0 then
    redis.call('XADD', inbox, '*', unpack(entry))
  end
  if #members > 0 then
    redis.call('ZREM', waiting, unpack(members))
  end
  entry, members, entry_bytes = {}, {}, 0
end

local function add(member)
  local header, length, text = string.match(member, '^(%d+ %S+ %d+) (%d+)\n(.*)$')
  -- What somebody else put here is no message of ours, and would be found again for ever.
  if header then
    length = tonumber(length)
    for _, value in ipairs({'', header, string.sub(text, 1, length), string.sub(text, length + 1)}) do
      entry[#entry + 1] = value
    end
  end
  members[#members + 1] = member
  entry_bytes = entry_bytes + #member
end

local moved, bytes = 0, 0
while moved < most and bytes < bytes_max do
  -- Few at a time: each may be as long as a message can be.
  local due = redis.call('ZRANGE', waiting, '-inf', now, 'BYSCORE', 'LIMIT', #members, math.min(16, most - moved))
  if #due == 0 then
    break
  end
  for _, member in ipairs(due) do
    local is_suspect = string.match(member, '^%d+ %S+ [1-9]')
    if is_suspect or #members >= entry_messages_max or entry_bytes + #member > entry_bytes_max then
      flush()
    end
    add(member)
    if is_suspect then
      flush()
    end
    moved = moved + 1
    bytes = bytes + #member
  end
end
flush()

local next = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
if not next[2] then
  return {moved, -1}
end
return {moved, math.max(0, tonumber(next[2]) - now)}
