-- Rebuild of read models without downtime: new tables beside the old ones, switched in one transaction. The service may
-- not make tables; it may call these, for the projections that are named here and no others.

-- Which fold wrote the tables: a rebuild that an older program began is begun anew.
alter table projection_cursors add column fold integer not null default 1;

create function projection_tables(p_projection text) returns text[]
language sql immutable set search_path = public, pg_temp as $$
  select case p_projection
    when 'directory' then array['tenants_view', 'licenses_view', 'license_limits']
    when 'activity' then array['sessions_view', 'denials_view', 'usage_buckets', 'usage_scopes', 'usage_users']
  end
$$;

-- Drops what a rebuild has made so far.
create function abandon_rebuild(p_projection text) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_table text;
begin
  perform pg_advisory_xact_lock(hashtext('rebuild'));
  foreach v_table in array projection_tables(p_projection) loop
    execute format('drop table if exists %I', v_table || '_next');
  end loop;
  delete from projection_cursors where projection = p_projection || '.next';
end $$;

-- Makes empty tables beside the live ones, or goes on with those that an earlier rebuild by the same fold has left.
-- Answers whether it goes on.
create function begin_rebuild(p_projection text, p_fold integer) returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_table text;
begin
  perform pg_advisory_xact_lock(hashtext('rebuild'));
  if exists (select from projection_cursors where projection = p_projection || '.next' and fold = p_fold) then
    return true;
  end if;
  perform abandon_rebuild(p_projection);
  foreach v_table in array projection_tables(p_projection) loop
    execute format('create table %I (like %I including all)', v_table || '_next', v_table);
    execute format('grant select, insert, update, delete, truncate on %I to license_service', v_table || '_next');
  end loop;
  insert into projection_cursors (projection, fold) values (p_projection || '.next', p_fold);
  return false;
end $$;

-- Puts the new tables in the place of the old ones, with their cursor. Nothing happens, and the answer is false, if the
-- new ones are behind the old, or are gone. Views are bound to tables, not to names: those over a table are made again.
create function switch_rebuild(p_projection text) returns boolean
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '2s' as $$
declare
  v_tables text[] := projection_tables(p_projection);
  v_table text;
  v_views oid[];
  v_definitions text[];
  v_options text;
begin
  perform pg_advisory_xact_lock(hashtext('rebuild'));
  perform from projection_cursors where projection in (p_projection, p_projection || '.next') order by projection for update;
  if not exists (
    select from projection_cursors n
    where n.projection = p_projection || '.next'
      and not exists (select from projection_cursors l
                      where l.projection = p_projection and (l.xid, l.position) > (n.xid, n.position))) then
    return false;
  end if;
  select array_agg(v.oid order by v.oid), array_agg(pg_get_viewdef(v.oid) order by v.oid)
  into v_views, v_definitions
  from (select distinct c.oid
        from pg_depend d
        join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
        join pg_class c on c.oid = r.ev_class and c.relkind = 'v'
        where d.refclassid = 'pg_class'::regclass and d.refobjid = any (v_tables::regclass[])) v;
  foreach v_table in array v_tables loop
    execute format('alter table %I rename to %I', v_table, v_table || '_old');
    execute format('alter table %I rename to %I', v_table || '_next', v_table);
  end loop;
  for v_n in 1 .. coalesce(cardinality(v_views), 0) loop
    select 'with (' || array_to_string(c.reloptions, ', ') || ')' into v_options from pg_class c where c.oid = v_views[v_n];
    execute format('create or replace view %s %s as %s', v_views[v_n]::regclass, coalesce(v_options, ''), v_definitions[v_n]);
  end loop;
  foreach v_table in array v_tables loop
    execute format('drop table %I', v_table || '_old');
  end loop;
  delete from projection_cursors where projection = p_projection;
  update projection_cursors set projection = p_projection where projection = p_projection || '.next';
  return true;
end $$;

grant execute on function begin_rebuild, abandon_rebuild, switch_rebuild to license_service;
