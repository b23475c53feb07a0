-- Room beside the rows of usage, which every page of the fold changes.
--
-- A new version of a row that finds no room on its page goes to another one, and all indexes of the table get an entry for
-- it: 87 % of the updates of `usage_buckets` under load, a quarter of what the fold costs. With room it stays where it is.

alter table usage_buckets set (fillfactor = 50);
alter table usage_scopes set (fillfactor = 50);
alter table usage_users set (fillfactor = 50);
-- A rebuild that is under way goes on with the tables that it has.
alter table if exists usage_buckets_next set (fillfactor = 50);
alter table if exists usage_scopes_next set (fillfactor = 50);
alter table if exists usage_users_next set (fillfactor = 50);

-- As before (V7), and the tables that it makes leave as much room as those that they will replace.
create or replace function begin_rebuild(p_projection text, p_fold integer) returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_table text;
  v_options text;
begin
  perform pg_advisory_xact_lock(hashtext('rebuild'));
  if exists (select from projection_cursors where projection = p_projection || '.next' and fold = p_fold) then
    return true;
  end if;
  perform abandon_rebuild(p_projection);
  foreach v_table in array projection_tables(p_projection) loop
    execute format('create table %I (like %I including all)', v_table || '_next', v_table);
    select array_to_string(reloptions, ', ') into v_options from pg_class where oid = v_table::regclass;
    if v_options is not null then
      execute format('alter table %I set (%s)', v_table || '_next', v_options);
    end if;
    execute format('grant select, insert, update, delete, truncate on %I to license_service', v_table || '_next');
  end loop;
  insert into projection_cursors (projection, fold) values (p_projection || '.next', p_fold);
  return false;
end $$;
