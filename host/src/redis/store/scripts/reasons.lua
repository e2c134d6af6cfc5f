#!lua flags=no-writes
-- Counts some dead letters by their reasons, without sending their payloads.
--
-- KEYS  1 dead letters
-- ARGV  1 "after" for the oldest ones that are newer than an id, "before" for the newest ones that are older
--       2 that id, or "-" or "+" for all   3 maximum number of dead letters
-- Reply {number of dead letters, id of the last one, then a reason and its number, and so on}.
local key, count = KEYS[1], ARGV[3]
local bound = (ARGV[2] == '-' or ARGV[2] == '+') and ARGV[2] or '(' .. ARGV[2]
local letters
if ARGV[1] == 'after' then
  letters = redis.call('XRANGE', key, bound, '+', 'COUNT', count)
else
  letters = redis.call('XREVRANGE', key, bound, '-', 'COUNT', count)
end
local reasons = {}
for _, letter in ipairs(letters) do
  local reason, fields = '', letter[2]
  for at = 1, #fields, 2 do
    if fields[at] == 'reason' then
      reason = fields[at + 1]
    end
  end
  reasons[reason] = (reasons[reason] or 0) + 1
end
local reply = {#letters, #letters > 0 and letters[#letters][1] or ''}
for reason, number in pairs(reasons) do
  reply[#reply + 1] = reason
  reply[#reply + 1] = number
end
return reply
