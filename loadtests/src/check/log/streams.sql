-- The streams of these tenants; a tenant's own stream has no product.
select s.stream_id::text as stream_id, s.tenant_id::text as tenant_id, s.product, s.version
from streams s
where s.tenant_id in (
    select tenant_id from streams where tenant_id::text = any ($1)
    union select stream_id from names where scope = 'identity_tenant' and name = any ($1))
order by s.stream_id
