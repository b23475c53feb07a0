-- What came of earlier refusals: the same user's next grant of the same product, in time. The page is read once, whatever
-- the statistics of a table that was just made say.
-- $1, $2: after this place; $3, $4: up to this one.
with grants as materialized (
  select e.tenant_id, e.user_id, s.product, e.occurred_at, e.position, e.session_id
  from events_decision e join streams s using (stream_id)
  where e.type = 'seat_acquired'
    and (e.xid, e.position) > ($1::bigint::text::xid8, $2) and (e.xid, e.position) <= ($3::bigint::text::xid8, $4)
), outcomes as (
  select distinct on (d.event_id) d.event_id, g.occurred_at, g.position, g.session_id
  from grants g join denials_view d using (tenant_id, user_id, product)
  where d.granted_at is null and (g.occurred_at, g.position) > (d.denied_at, d.position)
  order by d.event_id, g.occurred_at, g.position
)
update denials_view d set granted_at = o.occurred_at, granted_position = o.position, granted_session = o.session_id
from outcomes o where d.event_id = o.event_id
