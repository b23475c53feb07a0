-- Who held how many seats of a scope when $3 began. $1: the tenant; $2: the scope.
select user_id, count(*)::integer as live
from sessions_view
where tenant_id = $1 and (license_id = $2 or tenant_id = $2) and (ended_at is null or ended_at >= $3) and started_at < $3
group by user_id
