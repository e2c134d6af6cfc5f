#!lua flags=allow-oom
-- Publishes the next mark, and takes, keeps, lets go or only looks at the lease of the intake.
--
-- KEYS  1 marks: a hash with the history, number and time of the last mark, and the identity of the data they were made for
--       2 lease, a string: the id of the host that is active   3 list of what is covered, a string (covered.rs)
-- ARGV  1 channel of the marks   2 host id   3 how long the lease lasts, in ms   4 longest that any host's lease may last, in ms
--       5 "take" if it is free, "look", or "release" if it is ours
--       6 the id that this host had before, if it had one: a lease under it is ours, and gets the present id
-- Reply {what was published, ms since the last mark when a history has begun with it and -1 otherwise, the replication id of the
-- data or -, then what was mended}:
--       "<history> <number> <ms> <ttl of the lease in ms> <its holder or -> <list>".
--
-- The number is made and published in one step, so that marks are numbered in the order in which they are heard. A history ends
-- when Redis restarts or another server is promoted, and when the hash is lost: both may take numbers back that have been heard.
-- A later history has a larger number: at least the time at which it began.
-- It may use memory also when Redis is full: the lease must not change hands because of it.
-- What lies under our names and is of another type is set aside, and nothing of it is lost.
local marks, lease, covered = KEYS[1], KEYS[2], KEYS[3]
local host, ttl_ms, ttl_ms_max, wish = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local mended = {}
for key, wanted in pairs({[marks] = 'hash', [lease] = 'string', [covered] = 'string'}) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= wanted and kind ~= 'none' then
    local aside = string.format('%s:set-aside-%.0f', key, now)
    redis.call('RENAME', key, aside)
    mended[#mended + 1] = key .. ' was a ' .. kind .. ', not a ' .. wanted .. '; it is kept as ' .. aside
  end
end

local data = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or '-'
local known = redis.call('HMGET', marks, 'history', 'number', 'data', 'at')
local history, number, away_ms = tonumber(known[1]), (tonumber(known[2]) or 0) + 1, -1
if not history or known[3] ~= data then
  away_ms = tonumber(known[4]) and math.max(now - known[4], 0) or -1
  history, number = math.max((history or 0) + 1, now), 1
  redis.call('HSET', marks, 'history', string.format('%.0f', history), 'data', data)
end
redis.call('HSET', marks, 'number', string.format('%.0f', number), 'at', string.format('%.0f', now))

local holder = redis.call('GET', lease)
if holder and holder == ARGV[6] then
  redis.call('SET', lease, host, 'PX', ttl_ms)
  holder = host
end
if wish == 'take' and not holder then
  redis.call('SET', lease, host, 'PX', ttl_ms)
  holder = host
elseif wish == 'release' and holder == host then
  redis.call('DEL', lease)
  holder = false
elseif holder == host then
  redis.call('PEXPIRE', lease, ttl_ms)
end
local left_ms = holder and redis.call('PTTL', lease) or 0
if holder and (left_ms < 0 or left_ms > ttl_ms_max) then
  mended[#mended + 1] = lease .. ' was held by ' .. holder .. (left_ms < 0 and ' for ever' or ' for ' .. left_ms .. ' ms')
    .. ', longer than any host holds it; it now ends in ' .. ttl_ms .. ' ms'
  redis.call('PEXPIRE', lease, ttl_ms)
  left_ms = ttl_ms
end
-- A holder with a space in it is none of ours.
local name = holder and (string.find(holder, '[%s%c]') and '?' or holder) or '-'
local text = string.format('%.0f %.0f %.0f %.0f %s %s', history, number, now, left_ms, name == '' and '?' or name,
  redis.call('GET', covered) or '')
redis.call('PUBLISH', ARGV[1], text)
return {text, away_ms, data, unpack(mended)}
