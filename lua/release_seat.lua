-- release_seat: takes seats and reservations of one pool out of the mirror.
--
-- KEYS  1 {pool}:seats    sorted set: session -> deadline
--       2 {pool}:holders  hash: holder -> session
-- ARGV  for each: session, holder (empty: not known)
--
-- Replies  one word each, in order:
--   released
--   unknown   it was not there
local replies = {}
for i = 1, #ARGV, 2 do
  local session, holder = ARGV[i], ARGV[i + 1]
  if holder ~= '' and redis.call('HGET', KEYS[2], holder) == session then
    redis.call('HDEL', KEYS[2], holder)
  end
  replies[#replies + 1] = redis.call('ZREM', KEYS[1], session) == 1 and 'released' or 'unknown'
end
return replies
