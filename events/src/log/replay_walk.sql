-- Decisions of pool $1 from version $2 back, $3 of them: what a walk to the live sessions needs.
select type, session_id, user_id, hardware_id, occurred_at, (data ->> 'seats_used')::bigint as seats_used
from events_decision
where stream_id = $1 and version <= $2 and version > $2 - $3
order by version desc
