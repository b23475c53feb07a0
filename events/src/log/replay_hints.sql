-- Sessions of pool $2 of tenant $1 that lived at the time $3 and began by $4, as far as the read model knows; at most $5.
select session_id from (
  select session_id from sessions_view
  where tenant_id = $1 and license_id = $2 and ended_at is null and started_at <= $4
  union all
  select session_id from sessions_view
  where tenant_id = $1 and license_id = $2 and ended_at >= $3 and started_at <= $4) v
limit $5
