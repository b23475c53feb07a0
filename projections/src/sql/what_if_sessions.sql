-- The sessions of license $2 of tenant $1 that touch [$3, $4), at most $5: user, start, end, and the last sign of life of
-- those that expired.
select user_id, started_at, ended_at,
  case when ended = 'expired' then last_heartbeat_at end
from sessions_view
where tenant_id = $1 and license_id = $2 and (ended_at is null or ended_at > $3) and started_at < $4
limit $5
