-- Erasing a person: the one change of an event that is not refused. What was personal becomes the commitment that the
-- sealed leaf holds anyway (docs/tamper-evidence.md); nothing else of the row may move, and nothing comes back.

-- Whether a personal field stays as it is, or is replaced by `erased:` and a commitment of 43 characters.
create function is_erased(old text, new text) returns boolean
language sql immutable parallel safe as $$
  select new is not distinct from old
    or coalesce(old !~ '^erased:' and new ~ '^erased:[A-Za-z0-9_-]{43}$', false)
$$;

-- Whether a row of `events` differs from what it was, and in erased fields only.
create function is_erasure(old jsonb, new jsonb) returns boolean
language sql immutable set search_path = public, pg_temp as $$
  select old <> new
    and old - '{user_id,hardware_id,data}'::text[] = new - '{user_id,hardware_id,data}'::text[]
    and is_erased(old ->> 'user_id', new ->> 'user_id')
    and is_erased(old ->> 'hardware_id', new ->> 'hardware_id')
    and (old -> 'data') - personal = (new -> 'data') - personal
    and (select bool_and(is_erased(old -> 'data' ->> field, new -> 'data' ->> field)
           and (old -> 'data' ? field) = (new -> 'data' ? field)) from unnest(personal) field)
  from (select '{email,machine_name,by}'::text[]
          || case when old ->> 'type' in ('seat_revoked', 'signing_key_retired') then '{reason}'::text[] else '{}' end) p (personal)
$$;

-- As in V4, but for erasures of events, which whoever owns the table may make. That a commitment is the right one is
-- for `verify` to say.
create or replace function refuse_change() returns trigger language plpgsql set search_path = public, pg_temp as $$
begin
  if tg_op = 'UPDATE' and pg_partition_root(tg_relid) = 'events'::regclass then
    if is_erasure(to_jsonb(old), to_jsonb(new)) then
      return new;
    end if;
  end if;
  raise exception '% on % refused: the log is append-only', tg_op, tg_table_name using errcode = 'insufficient_privilege';
end $$;

comment on function is_erasure is 'Whether two states of an event differ in erased personal fields only';
