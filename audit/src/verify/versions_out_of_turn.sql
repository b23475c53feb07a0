-- The first decision of tenant $1 whose version does not follow the one before it: one is missing, or the order of the log
-- is another.
select event_id, stream_id, version
from (
  select event_id, stream_id, version, xid, position, lag(version) over turn as last_version, lag(xid) over turn as last_xid,
    lag(position) over turn as last_position
  from events_decision where tenant_id = $1
  window turn as (partition by stream_id order by version)) e
where version <> coalesce(last_version, 0) + 1 or (xid, position) < (last_xid, last_position)
order by xid, position limit 1
