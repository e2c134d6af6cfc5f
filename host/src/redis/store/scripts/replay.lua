-- Returns dead letters to the inbox as messages without a history of attempts.
--
-- KEYS  1 dead letters   2 inbox
-- ARGV  1 the format of new entries   2 the newest format that the program reads   then ids of dead letters
-- Reply {put back, not there any more, not fit for it, of a newer format and left alone}.
--
-- Atomic, so that a dead letter is replayed once, however many commands ask for it at the same time: XDEL is the fence.
-- The message keeps the token of its claim. If a later copy has claimed the id in the meantime, the consumer finds that
-- claim and drops the replayed message as a duplicate.
local dead, inbox = KEYS[1], KEYS[2]
local kind = redis.call('TYPE', inbox).ok
if kind ~= 'stream' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. inbox .. ' is a ' .. kind .. ', not a stream; rename or delete it')
end
local opening, newest = 'v' .. ARGV[1] .. ' - 0', tonumber(ARGV[2])
local replayed, gone, unfit, newer = 0, 0, 0, 0
for at = 3, #ARGV do
  local id = ARGV[at]
  local entry = redis.call('XRANGE', dead, id, id)[1]
  if not entry then
    gone = gone + 1
  else
    local fields = {}
    for field = 1, #entry[2], 2 do
      fields[entry[2][field]] = entry[2][field + 1]
    end
    local message_id, payload, token = fields['message_id'], fields['payload'], fields['token']
    if (tonumber(fields['format']) or 0) > newest then
      newer = newer + 1
    elseif message_id and message_id ~= '' and payload and token then
      redis.call('XADD', inbox, '*', '', opening, '', '1 ' .. token .. ' 0', message_id, payload)
      redis.call('XDEL', dead, id)
      replayed = replayed + 1
    else
      unfit = unfit + 1
    end
  end
end
return {replayed, gone, unfit, newer}
