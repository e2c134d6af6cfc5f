#!lua flags=allow-oom
-- Moves due retries into the inbox.
--
-- KEYS  1 waiting retries, a sorted set by due time (ms, server time)   2 inbox
-- ARGV  1 most messages to move   2 bytes after which to stop   3 most messages in an entry   4 most bytes in an entry
--       5 the format of new entries   6 the newest format that the host reads
-- Reply {moved, ms until the next one is due, -1 when none waits, messages of a newer format that are due and were left alone}.
--       0 ms: more are due already.
--
-- Atomic, because a message between the two keys would be in neither or in both: then every host that looks at the same
-- time would append it. Messages are appended before they are removed, so that an error loses nothing. A member is
-- "v<format> <attempt> <token> <crashes> <bytes of the id>\n<id><body>" (entry.rs); in format 0 it begins with the
-- attempt. A message during which hosts died is alone in its entry.
local waiting, inbox = KEYS[1], KEYS[2]
for key, wanted in pairs({[waiting] = 'zset', [inbox] = 'stream'}) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= wanted and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind .. ', not a ' .. wanted .. '; rename or delete it')
  end
end
local most, bytes_max = tonumber(ARGV[1]), tonumber(ARGV[2])
local entry_messages_max, entry_bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local opening, newest = 'v' .. ARGV[5] .. ' - 0', tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local entry, members, entry_bytes = {}, {}, 0
local function flush()
  if #entry > 0 then
    redis.call('XADD', inbox, '*', '', opening, unpack(entry))
  end
  if #members > 0 then
    redis.call('ZREM', waiting, unpack(members))
  end
  entry, members, entry_bytes = {}, {}, 0
end

-- Position of the attempt in a member; nil when the format is newer.
local function start(member)
  local _, version_end, version = string.find(member, '^v(%d+) ')
  if version and tonumber(version) > newest then
    return nil
  end
  return (version_end or 0) + 1
end

local function add(member, at)
  local header, length, text = string.match(member, '^(%d+ %S+ %d+) (%d+)\n()', at)
  -- A member from elsewhere is not a message. Remove it, or it would be found again for ever.
  if header then
    local body = text + tonumber(length)
    for _, value in ipairs({'', header, string.sub(member, text, body - 1), string.sub(member, body)}) do
      entry[#entry + 1] = value
    end
  end
  members[#members + 1] = member
  entry_bytes = entry_bytes + #member
end

local moved, bytes, newer = 0, 0, 0
while moved < most and bytes < bytes_max and newer < 4096 do
  -- A few at a time: each may be as long as the longest message.
  local left = math.min(16, most - moved)
  local due = redis.call('ZRANGE', waiting, '-inf', now, 'BYSCORE', 'LIMIT', newer + #members, left)
  if #due == 0 then
    break
  end
  for _, member in ipairs(due) do
    local at = start(member)
    if not at then
      newer = newer + 1
    else
      local is_suspect = string.find(member, '^%d+ %S+ [1-9]', at)
      if is_suspect or #members >= entry_messages_max or entry_bytes + #member > entry_bytes_max then
        flush()
      end
      add(member, at)
      if is_suspect then
        flush()
      end
      moved = moved + 1
    end
    bytes = bytes + #member
  end
end
flush()

-- Members that were left alone come first in the set.
local next = redis.call('ZRANGE', waiting, newer, newer, 'WITHSCORES')
if not next[2] then
  return {moved, -1, newer}
end
return {moved, math.max(0, tonumber(next[2]) - now), newer}
