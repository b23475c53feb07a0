-- Those of the sessions $1 that began by version $4 of pool $2 and lived at its version $3, by their own decisions: a few of the
-- index each, whatever the planner knows of the table.
select a.session_id, a.user_id, a.hardware_id, a.occurred_at
from unnest($1::uuid[]) h(session_id)
cross join lateral (
  select * from events_decision
  where session_id = h.session_id and stream_id = $2 and type = 'seat_acquired' and version <= $4 limit 1) a
cross join lateral (
  select count(*) as ends from events_decision
  where session_id = h.session_id and version > a.version and version <= $3) o
where o.ends = 0
