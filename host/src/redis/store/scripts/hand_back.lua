#!lua flags=allow-oom
-- Gives deliveries of a host to a name that is not a host's name. Other hosts take them over from there.
--
-- KEYS  1 inbox   2 the host's permit to settle
-- ARGV  1 consumer group   2 host id   3 the name   4 delivery count that marks a trial
--       5 "unbegun" for deliveries that are handed back as planned, "panicked" for those that count a death, "everything" for
--         all that the host has, as planned
--       then the ids of the deliveries
-- Reply number of deliveries that were handed back.
--
-- The count of a delivery is the number of its owners, and each owner except the present one has died. A takeover adds
-- one, so a hand-back subtracts one: a planned hand-back is not a death. A delivery on trial is not on trial any more.
-- A delivery whose consumer has panicked keeps its count, and with it a trial, as if its host had died.
-- Atomic, because a delivery that is settled in between must not come back. When the deliveries may have been begun, the
-- permit is deleted as well: Redis then discards the transactions that the host still has under way, since other hosts
-- may be faster.
local inbox, permit = KEYS[1], KEYS[2]
local group, host, name, trial = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local what, handed_back = ARGV[5], 0

local function hand_back(pending)
  for _, entry in ipairs(pending) do
    local count = entry[4]
    if what ~= 'panicked' then
      count = count >= trial and 0 or math.max(0, count - 1)
    end
    redis.call('XCLAIM', inbox, group, name, 0, entry[1], 'RETRYCOUNT', count, 'JUSTID')
    handed_back = handed_back + 1
  end
end

if what ~= 'unbegun' then
  redis.call('DEL', permit)
end
if what ~= 'everything' then
  for at = 6, #ARGV do
    hand_back(redis.call('XPENDING', inbox, group, ARGV[at], ARGV[at], 1, host))
  end
  return handed_back
end
local pending
repeat
  pending = redis.call('XPENDING', inbox, group, '-', '+', 1000, host)
  hand_back(pending)
until #pending == 0
return handed_back
