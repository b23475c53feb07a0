-- Sessions that a page begins or ends. The two halves of a session may come in any order: each writes its own columns.
-- $1, $2: after this place; $3, $4: up to this one.
with page as (
  select e.*, s.product from events_decision e join streams s using (stream_id)
  where e.type in ('seat_acquired', 'seat_released', 'seat_expired', 'seat_revoked')
    and (e.xid, e.position) > ($1::bigint::text::xid8, $2) and (e.xid, e.position) <= ($3::bigint::text::xid8, $4)
), began as (
  select * from page where type = 'seat_acquired'
), ended as (
  select p.*, g.last_heartbeat_at, coalesce(g.deadline, (p.data ->> 'deadline')::timestamptz) as deadline
  from page p left join seat_ends g using (session_id) where p.type <> 'seat_acquired'
)
insert into sessions_view as v (session_id, tenant_id, license_id, product, user_id, hardware_id, machine_name,
  started_at, started_position, last_heartbeat_at, expires_at, ended_at, ended_position, ended, ended_by, ended_reason)
select session_id, coalesce(b.tenant_id, e.tenant_id), coalesce(b.stream_id, e.stream_id), coalesce(b.product, e.product),
  coalesce(b.user_id, e.user_id), coalesce(b.hardware_id, e.hardware_id), b.data ->> 'machine_name',
  b.occurred_at, b.position, coalesce(e.last_heartbeat_at, b.occurred_at),
  coalesce(e.deadline, (b.data ->> 'deadline')::timestamptz),
  e.occurred_at, e.position, substr(e.type, 6), e.data ->> 'by', e.data ->> 'reason'
from began b full join ended e using (session_id)
on conflict (session_id) do update set
  machine_name = coalesce(v.machine_name, excluded.machine_name),
  started_at = coalesce(v.started_at, excluded.started_at),
  started_position = coalesce(v.started_position, excluded.started_position),
  last_heartbeat_at = greatest(v.last_heartbeat_at, excluded.last_heartbeat_at),
  expires_at = greatest(v.expires_at, excluded.expires_at),
  ended_at = coalesce(v.ended_at, excluded.ended_at),
  ended_position = coalesce(v.ended_position, excluded.ended_position),
  ended = coalesce(v.ended, excluded.ended),
  ended_by = coalesce(v.ended_by, excluded.ended_by),
  ended_reason = coalesce(v.ended_reason, excluded.ended_reason)
