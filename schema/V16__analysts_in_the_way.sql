-- Readers of the log wait for transactions that have an id and have not ended. An analyst writes nothing, but Postgres lets
-- every login take an id (`pg_current_xact_id()`, a large object) and keep its transaction open: the read models and the notary
-- would stand still for all tenants. Such a transaction is ended with its connection.

-- Ends those that are older than `p_age`; answers how many.
create function end_analysts_in_the_way(p_age interval) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_pid integer;
  v_ended integer := 0;
begin
  for v_pid in
    select a.pid from pg_stat_activity a join analyst_logins l on l.login = a.usename
    where a.datname = current_database() and a.backend_xid is not null and a.xact_start < clock_timestamp() - p_age
  loop
    v_ended := v_ended + pg_terminate_backend(v_pid)::integer;
  end loop;
  return v_ended;
end $$;

comment on function end_analysts_in_the_way is 'Ends the transactions of analysts that hold back the readers of the log';
revoke execute on function end_analysts_in_the_way from public;
grant execute on function end_analysts_in_the_way to license_service;
