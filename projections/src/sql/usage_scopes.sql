-- Where the fold of the scopes $1 stands.
select scope_id, tenant_id, used, users, last_at, last_position from usage_scopes where scope_id = any ($1)
