-- Sessions of tenant $1 after $2, at most $3, of license $4 and user $5 if they are named. $6: see the caller.
select v.session_id, v.license_id, v.product, v.user_id, v.hardware_id, v.machine_name, v.started_at, v.ended_at, v.ended,
  v.ended_by, v.ended_reason,
  coalesce(t.last_heartbeat_at, g.last_heartbeat_at, v.last_heartbeat_at) as last_heartbeat_at,
  coalesce(t.deadline, g.deadline, v.expires_at) as expires_at
from (select * from sessions_view v
      where v.tenant_id = $1 and {wanted} and v.started_at is not null
        and v.session_id > coalesce($2, '00000000-0000-0000-0000-000000000000'::uuid)
        and ($4::uuid is null or v.license_id = $4)
        and ($5::text is null or v.user_id = $5)
        and ($6::uuid is null or v.session_id = $6)
      order by v.session_id limit $3) v
left join seats t using (session_id)
left join seat_ends g using (session_id)
order by v.session_id
