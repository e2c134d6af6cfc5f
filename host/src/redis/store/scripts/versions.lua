#!lua flags=allow-oom
-- What the hosts of a group tell each other of versions of the plugin. One record for each version: it was rolled back, it is
-- trusted, or one host tries it first, the canary, and renews the record while it does.
--
-- KEYS  1 hash of records by fingerprint
-- ARGV  1 what is wanted   2 fingerprint of the version   3 digest of its bytes   4 host id   5 validity of a record in ms
--       6 records to keep at most   7 reason of a rollback
--       "look": only the record.  "claim": to become the canary, unless there is a record.  "keep": to stay the canary.
--       "forgive": to forget a rollback.  "roll-back", "trust": to write such a record.  "prove": the same as "trust", unless
--       a host has rolled the version back.
-- Reply {1 when this host is the canary now, otherwise 0; 1 when there was a record that cannot be read, otherwise 0; the
--       record, JSON, if there is one: after a change the new one, but for "forgive" the one that is forgotten}
--
-- Atomic, because of several hosts that ask at the same moment only one may become the canary, and because a host must not
-- trust over the head of another one that has just rolled back. A record that cannot be read counts as none. Expired records
-- go with the next write, and beyond the bound the oldest ones. The key expires with its last record.
local key, wanted, fingerprint, digest, host = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local kind = redis.call('TYPE', key).ok
if kind ~= 'hash' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. kind .. ', not a hash; rename or delete it')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local states = {canary = true, trusted = true, ['rolled-back'] = true}

-- The record, and whether the text can be read.
local function read(text)
  local is_json, record = pcall(cjson.decode, text)
  if not is_json or type(record) ~= 'table' or not states[record.state] then
    return nil, false
  end
  if type(record.at_ms) ~= 'number' or type(record.expires_ms) ~= 'number' or type(record.host) ~= 'string' then
    return nil, false
  end
  return record, true
end

local function write(state, reason)
  local record = {state = state, digest = digest, host = host, at_ms = now, expires_ms = now + tonumber(ARGV[5]), reason = reason}
  local kept, last = {}, record.expires_ms
  local fields = redis.call('HGETALL', key)
  for at = 1, #fields, 2 do
    local other, is_readable = read(fields[at + 1])
    if fields[at] ~= fingerprint then
      if is_readable and other.expires_ms <= now then
        redis.call('HDEL', key, fields[at])
      else
        kept[#kept + 1] = {field = fields[at], at_ms = is_readable and other.at_ms or 0}
        last = math.max(last, is_readable and other.expires_ms or 0)
      end
    end
  end
  table.sort(kept, function(one, other) return one.at_ms < other.at_ms end)
  for at = 1, #kept + 1 - tonumber(ARGV[6]) do
    redis.call('HDEL', key, kept[at].field)
  end
  local text = cjson.encode(record)
  redis.call('HSET', key, fingerprint, text)
  redis.call('PEXPIREAT', key, last)
  return text
end

local text = redis.call('HMGET', key, fingerprint)[1]
local record, is_readable
if text then
  record, is_readable = read(text)
end
local unreadable = (text and not is_readable) and 1 or 0
if record and record.expires_ms <= now then
  record = nil
end
local is_canary = record and record.state == 'canary' and record.host == host

if (wanted == 'claim' and (not record or is_canary)) or (wanted == 'keep' and (not record or is_canary)) then
  return {1, unreadable, write('canary')}
elseif wanted == 'forgive' and record and record.state == 'rolled-back' then
  redis.call('HDEL', key, fingerprint)
elseif wanted == 'roll-back' then
  return {0, unreadable, write('rolled-back', ARGV[7])}
elseif wanted == 'trust' or (wanted == 'prove' and not (record and record.state == 'rolled-back')) then
  return {0, unreadable, write('trusted')}
end
return {0, unreadable, record and text or false}
