-- Tenants after $1, at most $2; or the one that $3 names. A license without a seat ever taken has no scope yet.
select t.tenant_id, t.name, t.subdomain, t.plan, t.active, t.identity_tenant, t.created_at, t.updated_at, first.license_id, coalesce(first.seats_total, t.max_seats) as max_seats,
  coalesce(seats.used, 0)::bigint as seats_used, coalesce(seats.total, 0)::bigint as seats_total
from (select * from tenants_view
      where ($3::uuid is null or tenant_id = $3) and tenant_id > coalesce($1, '00000000-0000-0000-0000-000000000000'::uuid)
      order by tenant_id limit $2) t
left join lateral (
  select l.license_id, l.seats_total from licenses_view l where l.tenant_id = t.tenant_id
  order by l.license_id limit 1) first on true
left join lateral (
  select sum(s.used) as used, sum(l.seats_total) as total
  from licenses_view l left join usage_scopes s on s.scope_id = l.license_id
  where l.tenant_id = t.tenant_id and l.active) seats on true
order by t.tenant_id
