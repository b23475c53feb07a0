-- Folds again each license whose terms a page touches: for every field, the value of the latest version that names it.
-- $1, $2: after this place; $3, $4: up to this one.
with touched as (
  select distinct stream_id from events_decision
  where type in ('license_issued', 'license_updated')
    and (xid, position) > ($1::bigint::text::xid8, $2) and (xid, position) <= ($3::bigint::text::xid8, $4)
), facts as (
  select e.stream_id, e.tenant_id, e.version, e.occurred_at, e.data
  from touched join events_decision e using (stream_id)
  where e.type in ('license_issued', 'license_updated') and e.xid <= $3::bigint::text::xid8
), terms as (
  select f.stream_id, f.tenant_id, jsonb_object_agg(t.key, t.value order by f.version) as data,
    max(f.version) as version, min(f.occurred_at) as created_at, max(f.occurred_at) as updated_at
  from facts f, jsonb_each(f.data) t group by f.stream_id, f.tenant_id
)
insert into licenses_view (license_id, tenant_id, version, product, plan, seats_total, active, features, valid_from,
                           valid_until, offline_grace_seconds, created_at, updated_at)
select stream_id, tenant_id, version, data ->> 'product', data ->> 'plan', (data ->> 'seats_total')::bigint,
  (data ->> 'active')::boolean, data -> 'features', (data ->> 'valid_from')::timestamptz,
  (data ->> 'valid_until')::timestamptz, (data ->> 'offline_grace_seconds')::bigint, created_at, updated_at
from terms where data ? 'product'
on conflict (license_id) do update set version = excluded.version, plan = excluded.plan,
  seats_total = excluded.seats_total, active = excluded.active, features = excluded.features,
  valid_from = excluded.valid_from, valid_until = excluded.valid_until,
  offline_grace_seconds = excluded.offline_grace_seconds, updated_at = excluded.updated_at
