-- The seats table of these tenants.
select t.session_id::text as session_id, t.stream_id::text as stream_id, t.tenant_id::text as tenant_id, t.user_id,
  t.hardware_id, (extract(epoch from t.deadline) * 1000)::bigint as deadline_ms
from seats t
where t.tenant_id in (
    select tenant_id from streams where tenant_id::text = any ($1)
    union select stream_id from names where scope = 'identity_tenant' and name = any ($1))
order by t.session_id
