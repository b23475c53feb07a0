-- The read model `users` is kept by `append` itself, in the transaction of the events, because a grant must know at once who
-- was removed. These fold it from the log: to compare, and to rebuild.

-- What the log says of a tenant's users. Who was erased is nobody any more.
create function users_of_log(p_tenant uuid)
  returns table (user_id text, email text, roles text[], removed boolean, created_at timestamptz, updated_at timestamptz)
language sql stable set search_path = public, pg_temp as $$
  select f.user_id, f.email, array(select jsonb_array_elements_text(f.roles)), f.removed, f.created_at, f.updated_at
  from (select e.user_id,
          (array_agg(e.data ->> 'email' order by e.version desc) filter (where e.data ? 'email'))[1] as email,
          (array_agg(e.data -> 'roles' order by e.version desc) filter (where e.data ? 'roles'))[1] as roles,
          (array_agg(e.type = 'user_removed' order by e.version desc) filter (where e.type <> 'user_updated'))[1] as removed,
          min(e.occurred_at) as created_at, max(e.occurred_at) as updated_at
        from events_decision e
        where e.stream_id = p_tenant and e.type in ('user_added', 'user_updated', 'user_removed')
          and e.user_id !~ '^erased:[A-Za-z0-9_-]{43}$'
        group by e.user_id) f
$$;

-- The users of a tenant that are not what the log says, by id. One that is removed, and that the log does not know or knows
-- as removed, may be in the midst of an erasure, which needs its row to the end.
create function users_unlike_log(p_tenant uuid) returns setof text
language sql stable set search_path = public, pg_temp as $$
  select user_id
  from (select * from users where tenant_id = p_tenant) u full join users_of_log(p_tenant) l using (user_id)
  where (u.email, u.roles, u.removed) is distinct from (l.email, l.roles, l.removed)
    and not (coalesce(u.removed, false) and coalesce(l.removed, true))
  order by user_id
$$;

-- Makes a tenant's users what the log says; answers how many were not. `append` waits for the tenant's row meanwhile.
create function rebuild_users(p_tenant uuid) returns bigint
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_unlike text[];
begin
  perform from streams where stream_id = p_tenant for update;
  v_unlike := array(select users_unlike_log(p_tenant));
  delete from users u
  where tenant_id = p_tenant and user_id = any (v_unlike)
    and not exists (select from users_of_log(p_tenant) l where l.user_id = u.user_id);
  insert into users as u (tenant_id, user_id, email, roles, removed, created_at, updated_at)
  select p_tenant, l.* from users_of_log(p_tenant) l where l.user_id = any (v_unlike)
  on conflict (tenant_id, user_id) do update
    set email = excluded.email, roles = excluded.roles, removed = excluded.removed, updated_at = excluded.updated_at;
  return cardinality(v_unlike);
end $$;

comment on function users_of_log is 'What the log says of a tenant''s users';
comment on function users_unlike_log is 'The users of a tenant that are not what the log says';
comment on function rebuild_users is 'Makes a tenant''s users what the log says';
grant execute on function users_of_log, users_unlike_log, rebuild_users to license_service;
