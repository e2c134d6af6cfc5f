#!lua flags=allow-oom
-- Takes over deliveries of a dead host, and removes the dead host's name when it has no deliveries left.
--
-- KEYS  1 inbox   2 dead host's permit to settle
-- ARGV  1 consumer group   2 dead host's id   3 id of the host that takes over   4 most deliveries to take
--       5 deaths from which on a delivery is suspect   6 delivery count that marks a trial
--       7 most deliveries to isolate   8 the format of new entries   9 the newest format that the host reads
-- Reply {entries taken, as XCLAIM gives them; number of deliveries isolated}.
--
-- A delivery that several dead hosts have owned may have killed them. Such a delivery is isolated: each of its messages
-- becomes an entry of its own with the number of deaths, so that hosts try one suspect at a time. Only an entry on
-- trial, marked by its delivery count, is blamed for a further death; a suspect that merely waited is not.
--
-- Atomic, because deleting a consumer of the group also deletes its pending entries: between the check that finds none
-- and the deletion no host may add one. Entries are found by the name of their owner and not by their idle time, so a
-- slow plugin never looks like a dead host, and two hosts never take the same entry. XACK is the fence of isolation, as
-- of settling: a host that was only paused writes nothing afterwards. Where that host would settle under its permit,
-- without a check of the delivery, the deleted permit is the fence.
local inbox, permit = KEYS[1], KEYS[2]
local group, dead, heir = ARGV[1], ARGV[2], ARGV[3]
local suspect_from, trial, isolations_max = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local opening, newest = 'v' .. ARGV[8] .. ' - 0', tonumber(ARGV[9])
redis.call('DEL', permit)
local pending = redis.call('XPENDING', inbox, group, '-', '+', ARGV[4], dead)
if #pending == 0 then
  redis.call('XGROUP', 'DELCONSUMER', inbox, group, dead)
  return {{}, 0}
end

-- entry.rs describes the parts of an entry. Returns false when the format is newer than this host.
local function isolate(entry_id, fields, deliveries)
  local first, own = 1, entry_id
  if fields[1] == '' then
    local format, token = string.match(fields[2], '^v(%d+) (%S+)')
    if format and tonumber(format) > newest then
      return false
    end
    if format then
      first = 3
      own = token ~= '-' and token or entry_id
    else
      -- Format 0 has only the token.
      own = string.match(fields[2], '^%S+$') or entry_id
    end
  end
  redis.call('XACK', inbox, group, entry_id)
  local attempt, token, crashes, seen = '1', own, 0, {}
  for at = first, #fields, 2 do
    local name, value = fields[at], fields[at + 1]
    if name == '' then
      attempt, token, crashes = string.match(value, '^(%d+) (%S+) (%d+)$')
      attempt, token, crashes = attempt or '1', token or own, tonumber(crashes) or 0
    else
      -- A copy in the same delivery has the same token, and its claim would let both through when they are separated.
      local copy = token .. ' ' .. name
      if not seen[copy] then
        seen[copy] = true
        local deaths = deliveries >= trial and crashes + 1 or math.max(crashes, suspect_from)
        redis.call('XADD', inbox, '*', '', opening, '', attempt .. ' ' .. token .. ' ' .. deaths, name, value)
      end
      attempt, token, crashes = '1', own, 0
    end
  end
  redis.call('XDEL', inbox, entry_id)
  return true
end

local ids, isolated = {}, 0
for _, entry in ipairs(pending) do
  local entry_id, deliveries = entry[1], entry[4]
  local found = deliveries >= suspect_from and redis.call('XRANGE', inbox, entry_id, entry_id)[1]
  if not found then
    ids[#ids + 1] = entry_id
  elseif isolated < isolations_max then
    if isolate(entry_id, found[2], deliveries) then
      isolated = isolated + 1
    else
      ids[#ids + 1] = entry_id
    end
  end
end
if #ids == 0 then
  return {{}, isolated}
end
return {redis.call('XCLAIM', inbox, group, heir, 0, unpack(ids)), isolated}
