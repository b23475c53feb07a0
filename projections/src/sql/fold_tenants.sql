-- Folds again each tenant whose terms a page touches: for every field, the value of the latest version that names it.
-- $1, $2: after this place; $3, $4: up to this one.
with touched as (
  select distinct stream_id from events_decision
  where type in ('tenant_created', 'tenant_updated')
    and (xid, position) > ($1::bigint::text::xid8, $2) and (xid, position) <= ($3::bigint::text::xid8, $4)
), facts as (
  select e.stream_id, e.version, e.occurred_at, e.data
  from touched join events_decision e using (stream_id)
  where e.type in ('tenant_created', 'tenant_updated') and e.xid <= $3::bigint::text::xid8
), terms as (
  select f.stream_id, jsonb_object_agg(t.key, t.value order by f.version) as data,
    min(f.occurred_at) as created_at, max(f.occurred_at) as updated_at
  from facts f, jsonb_each(f.data) t group by f.stream_id
)
insert into tenants_view as v (tenant_id, name, subdomain, plan, max_seats, active, identity_tenant, created_at, updated_at)
select stream_id, data ->> 'name', data ->> 'subdomain', data ->> 'plan', (data ->> 'max_seats')::bigint,
  (data ->> 'active')::boolean, data ->> 'identity_tenant', created_at, updated_at
from terms where data ? 'subdomain'
on conflict (tenant_id) do update set name = excluded.name, plan = excluded.plan, max_seats = excluded.max_seats,
  active = excluded.active, identity_tenant = excluded.identity_tenant, updated_at = excluded.updated_at
