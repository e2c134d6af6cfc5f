-- Writes what is covered, once everything has been appended that the list then covers.
--
-- KEYS  1 list of what is covered   2 inbox   3 dead letters   then their index, if the transaction writes dead letters
-- ARGV  1 the list
--
-- The last command of the transaction that appends. A failed command does not undo the rest of a transaction: if one of the
-- streams is something else, nothing was appended to it, and then this fails first. Sent as text, because a transaction is also
-- not undone when it names a script that the server has lost.
for key = 2, #KEYS do
  redis.call('XLEN', KEYS[key])
end
return redis.call('SET', KEYS[1], ARGV[1])
