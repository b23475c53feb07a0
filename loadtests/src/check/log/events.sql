-- A page of the log of these tenants, after a cursor. $1 tenants or what the identity provider calls them,
-- $2 xid and $3 position of the last row read, $4 the page's size.
select e.xid::text as xid, e.position, e.event_id::text as event_id, e.tenant_id::text as tenant_id,
  e.stream_id::text as stream_id, e.version, e.type, e.session_id::text as session_id, e.user_id, e.hardware_id,
  (extract(epoch from e.occurred_at) * 1000)::bigint as occurred_ms, e.request_id, e.data::text as data
from events e
where e.tenant_id in (
    select tenant_id from streams where tenant_id::text = any ($1)
    union select stream_id from names where scope = 'identity_tenant' and name = any ($1))
  and (e.xid, e.position) > ($2::text::xid8, $3)
order by e.xid, e.position
limit $4
