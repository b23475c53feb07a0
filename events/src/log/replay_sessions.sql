-- Sessions of pool $1 that had begun and not ended at version $2.
select a.session_id, a.user_id, a.hardware_id, a.occurred_at
from events_decision a
where a.stream_id = $1 and a.version <= $2 and a.type = 'seat_acquired'
  and not exists (
    select from events_decision e
    where e.stream_id = $1 and e.session_id = a.session_id and e.version > a.version and e.version <= $2)
