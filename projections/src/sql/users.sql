-- Users of tenant $1 after $2, at most $3; or the one that $4 names. The last sign of life: of the live seats, or of one of
-- the latest sessions.
select u.user_id, u.email, u.roles, u.created_at, u.updated_at,
  greatest(
    (select max(t.last_heartbeat_at) from streams s join seats t using (stream_id)
     where s.tenant_id = u.tenant_id and t.user_id = u.user_id),
    (select max(v.last_heartbeat_at)
     from (select last_heartbeat_at from sessions_view v where v.tenant_id = u.tenant_id and v.user_id = u.user_id
           order by v.started_at desc nulls last limit 20) v)) as last_seen_at
from (select * from users
      where tenant_id = $1 and not removed and user_id > coalesce($2, '') and ($4::text is null or user_id = $4)
      order by user_id limit $3) u
order by u.user_id
