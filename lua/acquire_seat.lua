-- acquire_seat: asks the gate for a batch of acquires of one pool, and reserves a seat for each that it lets through.
--
-- A reservation is a seat in the mirror whose event is not committed yet. It lapses by itself after the TTL.
-- Nothing here decides: the pool's actor does, and Postgres referees.
--
-- KEYS  1 {pool}:meta     hash: limit, version
--       2 {pool}:seats    sorted set: session -> deadline, Unix milliseconds of this Redis
--       3 {pool}:holders  hash: holder -> session
-- ARGV  1 ttl in milliseconds, then for each request: session, holder
--
-- Replies  'unknown_pool' alone, or one word a request, in order, then the sessions that lapsed (100 at most):
--   granted            reserved
--   held <session>     the holder has a live session already
--   full               no seat is free
--   lapsed <session>   its deadline has passed
local limit = tonumber(redis.call('HGET', KEYS[1], 'limit'))
if not limit then
  return { 'unknown_pool' }
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = redis.call('ZCOUNT', KEYS[2], '(' .. now, '+inf')
local replies = {}

for i = 2, #ARGV, 2 do
  local session, holder = ARGV[i], ARGV[i + 1]
  local held = redis.call('HGET', KEYS[3], holder)
  local deadline = held and redis.call('ZSCORE', KEYS[2], held)
  if deadline and tonumber(deadline) > now then
    replies[#replies + 1] = 'held ' .. held
  elseif live >= limit then
    replies[#replies + 1] = 'full'
  else
    redis.call('ZADD', KEYS[2], now + ARGV[1], session)
    redis.call('HSET', KEYS[3], holder, session)
    live = live + 1
    replies[#replies + 1] = 'granted'
  end
end

for _, session in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(-inf', now, 'LIMIT', 0, 100)) do
  replies[#replies + 1] = 'lapsed ' .. session
end
return replies
