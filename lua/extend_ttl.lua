-- extend_ttl: moves the deadlines of live sessions of one pool. It never brings a session back: that is sync_pool's.
--
-- KEYS  1 {pool}:seats  sorted set: session -> deadline, Unix milliseconds of this Redis
-- ARGV  1 ttl in milliseconds, then the sessions
--
-- Replies  one word a session, in order:
--   extended
--   unknown   the mirror has forgotten it
local time = redis.call('TIME')
local deadline = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
local replies = {}
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], 'XX', 'GT', deadline, ARGV[i])
    replies[#replies + 1] = 'extended'
  else
    replies[#replies + 1] = 'unknown'
  end
end
return replies
