-- A stream of tenant $1 whose switches, or times of validity, are not those that were said last.
with said as (
  select e.stream_id,
    (array_agg(e.data ->> 'active' order by e.version desc) filter (where e.data ? 'active'))[1]::boolean as active,
    (array_agg(e.data ->> 'valid_from' order by e.version desc) filter (where e.data ? 'valid_from'))[1]::timestamptz
      as valid_from,
    (array_agg(e.data ->> 'valid_until' order by e.version desc) filter (where e.data ? 'valid_until'))[1]::timestamptz
      as valid_until
  from streams s join events_decision e using (stream_id)
  where s.tenant_id = $1 and e.type in ('tenant_created', 'tenant_updated', 'license_issued', 'license_updated')
  group by 1
)
select s.stream_id::text
from streams s
join said t on t.stream_id = s.tenant_id
left join said l on l.stream_id = s.stream_id and s.product is not null
where s.tenant_id = $1
  and (s.tenant_active, s.license_active, s.valid_from, s.valid_until)
    is distinct from (t.active, coalesce(l.active, true), l.valid_from, l.valid_until)
order by 1 limit 1
