-- What a page says about seats. $1, $2: after this place; $3, $4: up to this one.
select stream_id as license_id, tenant_id, user_id, type, occurred_at as at, position
from events
where class in ('decision', 'denial')
  and type in ('seat_acquired', 'seat_denied', 'seat_released', 'seat_expired', 'seat_revoked')
  and (xid, position) > ($1::bigint::text::xid8, $2) and (xid, position) <= ($3::bigint::text::xid8, $4)
