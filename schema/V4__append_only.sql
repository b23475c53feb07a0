-- Append-only: by grants for the service, by triggers for everybody but the person who drops the triggers.

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% on % refused: the log is append-only', tg_op, tg_table_name using errcode = 'insufficient_privilege';
end $$;

-- Row triggers, because a statement trigger on a partitioned parent does not fire for its partitions;
-- and a TRUNCATE trigger on the table itself, because that one is never inherited.
create function make_append_only(p_table regclass) returns void
language plpgsql set search_path = public, pg_temp as $$
begin
  if not exists (select from pg_trigger where tgrelid = p_table and tgname = 'append_only_rows') then
    execute format('create trigger append_only_rows before update or delete on %s
                    for each row execute function refuse_change()', p_table);
  end if;
  execute format('create trigger append_only_truncate before truncate on %s
                  for each statement execute function refuse_change()', p_table);
end $$;

select make_append_only(t::regclass)
from unnest(array['events', 'events_decision', 'events_denial', 'events_heartbeat', 'events_heartbeat_rest']) t;

-- The service reads everything, writes events, streams, seats, users, names and keys only through `append`.
revoke all on all tables in schema public from public;
revoke execute on all functions in schema public from public;
grant usage on schema public to license_service;
grant select on all tables in schema public to license_service;
alter default privileges in schema public grant select on tables to license_service;
alter default privileges revoke execute on functions from public;
grant execute on function append, tick_beacon, forget_idempotency_keys, ensure_heartbeat_partitions, standing,
  uuid_floor, event_time to license_service;
grant insert, update on snapshots to license_service;
grant insert, update, delete on signing_keys to license_service;

select ensure_heartbeat_partitions(14);
