-- Claims the messages of the newest entry of the inbox, and removes the messages that were claimed before.
--
-- KEYS  1 inbox   then the claim of each message of the entry, in its order
-- ARGV  1 token of the claims   2 how long they last, in ms
-- Reply number of removed messages.
--
-- Runs in the transaction that appends the entry, directly behind the append, so that a reader of the inbox sees the
-- entry only with its claims. Sent as text, because a transaction is not undone when it names a script that the server
-- has lost. The script reads the payloads only when it has to remove a message, because Lua would copy them. The entry
-- is a note about its claims under an empty name, then message id and payload in turn (entry.rs). A claim that is not a
-- string is not a claim of a host; its message stays, without a claim. If the inbox is not a stream, the append has
-- failed, and without the entry there must be no claims: then this script fails first.
local inbox, token, copies = KEYS[1], ARGV[1], nil
redis.call('XLEN', inbox)
for at = 2, #KEYS do
  if type(redis.pcall('SET', KEYS[at], token, 'NX', 'GET', 'PX', ARGV[2])) == 'string' then
    copies = copies or {}
    copies[at] = true
  end
end
if not copies then
  return 0
end
local entry = redis.call('XREVRANGE', inbox, '+', '-', 'COUNT', 1)[1]
local kept, count = {'', entry[2][2]}, 0
for at = 2, #KEYS do
  if copies[at] then
    count = count + 1
  else
    kept[#kept + 1] = entry[2][2 * at - 1]
    kept[#kept + 1] = entry[2][2 * at]
  end
end
redis.call('XDEL', inbox, entry[1])
if #kept > 2 then
  redis.call('XADD', inbox, '*', unpack(kept))
end
return count
