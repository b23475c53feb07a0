-- Refusals of a page. A grant that is later in time may have been folded already: it is looked up.
-- $1, $2: after this place; $3, $4: up to this one.
insert into denials_view (event_id, position, tenant_id, license_id, product, user_id, hardware_id, denied_at, reason,
                          seats_used, seats_total, granted_at, granted_position, granted_session)
select e.event_id, e.position, e.tenant_id, e.stream_id, s.product, e.user_id, e.hardware_id, e.occurred_at,
  e.data ->> 'reason', (e.data ->> 'seats_used')::bigint, (e.data ->> 'seats_total')::bigint,
  g.started_at, g.started_position, g.session_id
from events_denial e join streams s using (stream_id)
left join lateral (
  select v.started_at, v.started_position, v.session_id from sessions_view v
  where v.tenant_id = e.tenant_id and v.user_id = e.user_id and v.product = s.product
    and v.started_at >= e.occurred_at and (v.started_at, v.started_position) > (e.occurred_at, e.position)
  order by v.started_at, v.started_position limit 1) g on true
where (e.xid, e.position) > ($1::bigint::text::xid8, $2) and (e.xid, e.position) <= ($3::bigint::text::xid8, $4)
on conflict (event_id) do nothing
