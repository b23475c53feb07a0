-- From when on which limit was in force: one row for each version that names the number of seats or the switch.
-- $1, $2: after this place; $3, $4: up to this one.
with touched as (
  select distinct stream_id from events_decision
  where type in ('license_issued', 'license_updated') and (data ? 'seats_total' or data ? 'active')
    and (xid, position) > ($1::bigint::text::xid8, $2) and (xid, position) <= ($3::bigint::text::xid8, $4)
), facts as (
  select e.stream_id, e.tenant_id, e.version, e.occurred_at, e.data,
    max(e.version) filter (where e.data ? 'seats_total') over earlier as seats_version,
    max(e.version) filter (where e.data ? 'active') over earlier as active_version
  from touched join events_decision e using (stream_id)
  where e.type in ('license_issued', 'license_updated') and e.xid <= $3::bigint::text::xid8
    and (e.data ? 'seats_total' or e.data ? 'active')
  window earlier as (partition by e.stream_id order by e.version)
)
insert into license_limits (license_id, version, tenant_id, since, seats_total, active)
select f.stream_id, f.version, f.tenant_id, f.occurred_at, (s.data ->> 'seats_total')::bigint, (a.data ->> 'active')::boolean
from facts f
join facts s on s.stream_id = f.stream_id and s.version = f.seats_version
join facts a on a.stream_id = f.stream_id and a.version = f.active_version
on conflict (license_id, version) do update set seats_total = excluded.seats_total, active = excluded.active
