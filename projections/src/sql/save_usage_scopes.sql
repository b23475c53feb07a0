-- Where the fold of some scopes stands now.
insert into usage_scopes (scope_id, tenant_id, used, users, last_at, last_position)
select * from unnest($1::uuid[], $2::uuid[], $3::integer[], $4::integer[], $5::timestamptz[], $6::bigint[])
on conflict (scope_id) do update set used = excluded.used, users = excluded.users, last_at = excluded.last_at,
  last_position = excluded.last_position
