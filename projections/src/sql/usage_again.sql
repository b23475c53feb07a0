-- What happened in a scope from $3 on, as far as it is folded. $1: the tenant; $2: the scope.
select license_id, tenant_id, user_id, 'seat_acquired' as type, started_at as at, started_position as position
from sessions_view
where tenant_id = $1 and (license_id = $2 or tenant_id = $2) and (ended_at is null or ended_at >= $3) and started_at >= $3
union all
select license_id, tenant_id, user_id, 'seat_' || ended, ended_at, ended_position
from sessions_view
where tenant_id = $1 and (license_id = $2 or tenant_id = $2) and ended_at >= $3
union all
select license_id, tenant_id, user_id, 'seat_denied', denied_at, position
from denials_view
where tenant_id = $1 and (license_id = $2 or tenant_id = $2) and denied_at >= $3
