-- A seat of tenant $1 that is not one of a session that lives by its events.
select s.session_id::text
from seats s
where s.tenant_id = $1 and not exists (
  select from events_decision e
  where e.session_id = s.session_id and e.type = 'seat_acquired'
    and (e.stream_id, e.user_id, e.hardware_id) = (s.stream_id, s.user_id, s.hardware_id)
    and not exists (select from events_decision o where o.session_id = s.session_id and o.version > e.version))
limit 1
