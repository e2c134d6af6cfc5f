-- Takes deliveries of a dead host over, and forgets the dead host once nothing of it is left.
--
-- KEYS  1 inbox
-- ARGV  1 consumer group   2 dead host's id   3 id of the host that takes over   4 most deliveries to take
-- Reply the entries taken, as XCLAIM gives them.
--
-- Atomic, because a group consumer that is deleted takes its pending entries with it: between the look that
-- finds none and the deletion nobody may add one. Entries are found by their owner's name and not by their
-- idle time, so a slow plugin is never mistaken for a dead host, and two hosts never take the same entry.
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[4], ARGV[2])
if #pending == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
  return {}
end
local ids = {}
for place, entry in ipairs(pending) do
  ids[place] = entry[1]
end
return redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, unpack(ids))
