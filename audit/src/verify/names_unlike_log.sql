-- A name that tenant $1 or one of its licenses holds and does not have, or has and does not hold. A license has its
-- product's name while it is active.
with said as (
  select e.stream_id, s.product,
    (array_agg(e.data ->> 'subdomain' order by e.version desc) filter (where e.data ? 'subdomain'))[1] as subdomain,
    (array_agg(e.data ->> 'identity_tenant' order by e.version desc) filter (where e.data ? 'identity_tenant'))[1]
      as identity_tenant,
    (array_agg(e.data ->> 'active' order by e.version desc) filter (where e.data ? 'active'))[1]::boolean as active
  from streams s join events_decision e using (stream_id)
  where s.tenant_id = $1 and e.type in ('tenant_created', 'tenant_updated', 'license_issued', 'license_updated')
  group by 1, 2
), had as (
  select 'subdomain' as scope, subdomain as name, stream_id from said where product is null
  union all
  select 'identity_tenant', identity_tenant, stream_id from said where identity_tenant is not null
  union all
  select 'product/' || $1::uuid::text, product, stream_id from said where product is not null and active
), held as (
  select n.scope, n.name, n.stream_id from names n join said using (stream_id)
)
select coalesce(n.scope, h.scope) || ' ' || coalesce(n.name, h.name)
from held n full join had h on (h.scope, h.name, h.stream_id) = (n.scope, n.name, n.stream_id)
where n.scope is null or h.scope is null
order by 1 limit 1
