#!lua flags=no-writes
-- A page of the names in a bucket of state.
--
-- KEYS  1 prefix of the names, which is no key itself: it says in which slot of a cluster they are
-- ARGV  1 cursor, 0 for the first page   2 pattern of the names   3 number of names of the whole database to look at
-- Reply {cursor of the next page, 0 after the last one; names}.
return redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3], 'TYPE', 'string')
