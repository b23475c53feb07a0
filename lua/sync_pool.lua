-- sync_pool: writes what the log says of one pool into the mirror. Repair runs this way only, never back.
--
-- Each key keeps a sentinel that no session can be called, so that keys never vanish: a script over a missing key
-- gets TRYAGAIN while its slot is being moved.
--
-- KEYS  1 {pool}:meta     hash: limit, version
--       2 {pool}:seats    sorted set: session -> deadline, Unix milliseconds of this Redis
--       3 {pool}:holders  hash: holder -> session
-- ARGV  1 'replace', 'force' (replace although the mirror claims a later version), or 'add'
--       2 version of the pool  3 limit, then for each session: session, holder, remaining milliseconds
--
-- Replies
--   synced
--   unknown_pool  nothing to add to: it must be written whole
--   stale   the mirror is of a later version than 2: the caller reads the log first
local version = tonumber(redis.call('HGET', KEYS[1], 'version')) or 0
if ARGV[1] ~= 'force' and version > tonumber(ARGV[2]) then
  return 'stale'
end

if ARGV[1] == 'add' and redis.call('HEXISTS', KEYS[1], 'limit') == 0 then
  return 'unknown_pool'
end
if ARGV[1] ~= 'add' then
  redis.call('DEL', KEYS[2], KEYS[3])
  redis.call('ZADD', KEYS[2], '-inf', 'sentinel')
  redis.call('HSET', KEYS[3], 'sentinel', '')
end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'limit', ARGV[3])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 4, #ARGV, 3 do
  redis.call('ZADD', KEYS[2], now + ARGV[i + 2], ARGV[i])
  redis.call('HSET', KEYS[3], ARGV[i + 1], ARGV[i])
end
return 'synced'
