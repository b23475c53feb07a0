-- Licenses of tenant $1 after $2, at most $3.
select l.*, coalesce(s.used, 0)::bigint as seats_used
from licenses_view l left join usage_scopes s on s.scope_id = l.license_id
where l.tenant_id = $1 and l.license_id > coalesce($2, '00000000-0000-0000-0000-000000000000'::uuid)
order by l.license_id limit $3
