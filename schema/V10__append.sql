-- `append` anew: it recognises heartbeats that were sent again, and two that make the same stream meet.
--
-- The one door: nothing else writes events, streams, seats, users, names or idempotency keys.
--
-- One call is one autocommitted statement. Each stream named in `s_` is judged on its own, and written whole
-- or refused, so that many pools can travel together; with `p_whole` all of them stand or fall together.
-- Locks are taken in this order: streams by id, seats by session id, users, idempotency keys.
--
--   s_  streams written to: expected version; for pools the standing (see `standing`) decided on, or null
--   d_  decisions and denials, in order; d_key is stored by seat_acquired and forgotten by seat_released;
--       d_give_back marks the release of a grant that could not be answered: it may not end a session that somebody
--       else was answered with meanwhile
--   n_  names to hold (true) or let go (false), only with p_whole
--   h_  heartbeats: no version, no lock on the stream; they apply although their pool is refused; h_key is stored,
--       unless another session has it
--   p_resend  the same was sent before, and its outcome is unknown: heartbeats that were written then are not again
--
-- Answers Postgres's time of the append, and what is not written by it; what is not named there is:
--   {stream, why: conflict, version, standing}     somebody was faster: catch up, decide again
--   {stream, why: already, at}                     a resend: these events were written before, at that time
--   {stream, why: not_lapsed, session, until}      an expiry came too early; it may be tried after `until`
--   {stream, why: user_unknown|user_removed, session}
--   {stream, why: renewed, session}                not given back: somebody was answered with it
--   {stream, why: key_taken, session}              the grant's Idempotency-Key belongs to another session
--   {stream, why: name_taken, scope, name}
--   {session, why: written, at}                    a resend: this heartbeat was written before, at that time
--   {session, why: missing|<standing>}             a heartbeat without a seat of that user, or not accepted
create function append(
  p_whole boolean, p_ttl_ms integer,
  s_stream uuid[], s_tenant uuid[], s_product text[], s_expected bigint[], s_standing text[],
  d_stream uuid[], d_event uuid[], d_type text[], d_format smallint[], d_session uuid[], d_user text[],
  d_hardware text[], d_request text[], d_data jsonb[], d_key text[], d_hash bytea[], d_give_back boolean[],
  n_stream uuid[], n_scope text[], n_name text[], n_hold boolean[],
  h_event uuid[], h_stream uuid[], h_session uuid[], h_user text[], h_request text[], h_key text[], h_hash bytea[],
  p_resend boolean,
  out at timestamptz, out refused jsonb)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_bad uuid[] := '{}';        -- streams that are refused
  v_found jsonb;
  v_ended uuid[];
  v_deadline timestamptz;
  v_ttl interval := make_interval(secs => p_ttl_ms / 1000.0);
  v_data jsonb;
  v_known uuid[] := '{}';      -- heartbeats that an earlier sending wrote
  v_open uuid[];               -- pools that accept
  v_moved integer;
begin
  refused := '[]';

  if cardinality(s_stream) > 0 then
    -- Lock. A tenant's switch concerns all its pools; a new pool concerns its tenant.
    if p_whole then
      -- What is not there yet has no row to lock: two that would make the same stream meet here.
      perform pg_advisory_xact_lock(hashtextextended(n.stream::text, 0))
      from (select r.stream from unnest(s_stream, s_expected) r(stream, expected)
            where r.expected = 0 order by r.stream) n;
      perform from streams s where s.stream_id = any (s_stream || s_tenant)
        or s.tenant_id in (select d.stream from unnest(d_stream, d_type, d_data) d(stream, type, data)
                           where d.type = 'tenant_updated' and d.data ? 'active')
        order by s.stream_id for no key update;
    else
      perform from streams s where s.stream_id = any (s_stream) order by s.stream_id for no key update;
    end if;
    at := date_trunc('milliseconds', clock_timestamp());

    -- Compare. Only a stream that is refused is looked up in the log: had it been written, it would have moved.
    select jsonb_agg(coalesce(
        (select jsonb_build_object('stream', r.stream, 'why', 'already', 'at', e.occurred_at)
         from unnest(d_stream, d_event) d(stream, event)
         join events e on e.event_id = d.event and e.class in ('decision', 'denial')
         where d.stream = r.stream limit 1),
        jsonb_build_object('stream', r.stream, 'why', 'conflict',
          'version', coalesce(s.version, 0), 'standing', case when s.stream_id is null then 'ok' else standing(s, at) end))),
      array_agg(r.stream)
    into v_found, v_ended
    from unnest(s_stream, s_expected, s_standing) r(stream, expected, standing)
    left join streams s on s.stream_id = r.stream
    where coalesce(s.version, 0) <> r.expected
       or (r.standing is not null and s.stream_id is not null and standing(s, at) <> r.standing);
    if v_found is not null then
      refused := refused || v_found;
      v_bad := v_bad || v_ended;
    end if;

    -- Expiries: by this clock, with a living beacon, and a whole TTL after an outage.
    v_ended := array(select d.session from unnest(d_type, d_session) d(type, session)
                     where d.type in ('seat_released', 'seat_expired', 'seat_revoked'));
    if cardinality(v_ended) > 0 then
      perform from seats where session_id = any (v_ended || h_session) order by session_id for update;
      select jsonb_agg(jsonb_build_object('stream', t.stream_id, 'why', 'not_lapsed', 'session', t.session_id, 'until',
               case when t.alive then t.until else greatest(t.until, at + t.ttl) end)),
             array_agg(t.stream_id)
      into v_found, v_ended
      from (select s.stream_id, s.session_id, make_interval(secs => s.ttl_ms / 1000.0) as ttl,
              at - b.last_seen <= make_interval(secs => b.gap_ms / 1000.0) as alive,
              greatest(s.deadline, b.recovered_at + make_interval(secs => s.ttl_ms / 1000.0)) as until
            from unnest(d_stream, d_type, d_session) d(stream, type, session)
            join seats s on s.session_id = d.session and s.stream_id = d.stream
            cross join beacon b
            where d.type = 'seat_expired' and d.stream <> all (v_bad)) t
      where not (t.alive and at > t.until);
      if v_found is not null then
        refused := refused || v_found;
        v_bad := v_bad || v_ended;
      end if;
      select jsonb_agg(jsonb_build_object('stream', d.stream, 'why', 'renewed', 'session', d.session)), array_agg(d.stream)
      into v_found, v_ended
      from unnest(d_stream, d_session, d_give_back) d(stream, session, give_back)
      join seats s on s.session_id = d.session and s.stream_id = d.stream
      where d.give_back and s.renewed and d.stream <> all (v_bad);
      if v_found is not null then
        refused := refused || v_found;
        v_bad := v_bad || v_ended;
      end if;
    end if;

    if 'seat_acquired' = any (d_type) then
      -- A removal that runs at the same time waits for this grant, and then finds its seat.
      perform from users u where (u.tenant_id, u.user_id) in (
          select s.tenant_id, d.usr from unnest(d_stream, d_type, d_user) d(stream, type, usr)
          join streams s on s.stream_id = d.stream where d.type = 'seat_acquired')
        order by u.tenant_id, u.user_id for share;
      select jsonb_agg(jsonb_build_object('stream', d.stream, 'session', d.session,
               'why', case when u.removed then 'user_removed' else 'user_unknown' end)),
             array_agg(d.stream)
      into v_found, v_ended
      from unnest(d_stream, d_type, d_user, d_session) d(stream, type, usr, session)
      join streams s on s.stream_id = d.stream
      left join users u on u.tenant_id = s.tenant_id and u.user_id = d.usr
      where d.type = 'seat_acquired' and d.stream <> all (v_bad) and u.removed is distinct from false;
      if v_found is not null then
        refused := refused || v_found;
        v_bad := v_bad || v_ended;
      end if;

      -- A key that another grant holds refuses the pool; the pool's other keys are taken back below.
      with wanted as (
        select s.tenant_id, d.usr, d.key, d.hash, d.stream, d.session
        from unnest(d_stream, d_type, d_user, d_session, d_key, d_hash) d(stream, type, usr, session, key, hash)
        join streams s on s.stream_id = d.stream
        where d.type = 'seat_acquired' and d.key is not null and d.stream <> all (v_bad)
      ), stored as (
        insert into idempotency_keys as k
        select tenant_id, usr, key, hash, stream, session, at from wanted order by tenant_id, usr, key
        on conflict do nothing returning k.session_id
      )
      select jsonb_agg(jsonb_build_object('stream', w.stream, 'why', 'key_taken', 'session', w.session)),
             array_agg(w.stream)
      into v_found, v_ended
      from wanted w where w.session not in (select session_id from stored);
      if v_found is not null then
        refused := refused || v_found;
        v_bad := v_bad || v_ended;
        delete from idempotency_keys k
        using unnest(d_stream, d_type, d_session) d(stream, type, session), streams s
        where d.type = 'seat_acquired' and d.stream = any (v_bad) and s.stream_id = d.stream
          and k.tenant_id = s.tenant_id and k.session_id = d.session and k.created_at = at;
      end if;
    end if;

    if p_whole then
      select jsonb_agg(jsonb_build_object('stream', n.stream, 'why', 'name_taken', 'scope', n.scope, 'name', n.name)),
             array_agg(n.stream)
      into v_found, v_ended
      from unnest(n_stream, n_scope, n_name, n_hold) n(stream, scope, name, hold)
      join names t on t.scope = n.scope and t.name = n.name
      where n.hold and t.stream_id <> n.stream and n.stream <> all (v_bad);
      if v_found is not null then
        refused := refused || v_found;
        v_bad := v_bad || v_ended;
      end if;
      if cardinality(v_bad) > 0 then
        return;
      end if;
      perform append_effects(at, s_stream, s_tenant, s_product, d_stream, d_type, d_user, d_data,
                             n_stream, n_scope, n_name, n_hold);
    end if;

    -- Write.
    insert into events (class, event_id, tenant_id, stream_id, version, type, format, session_id, user_id,
                        hardware_id, occurred_at, request_id, data)
    select d.class, d.event, s.tenant_id, d.stream,
      case when d.class = 'decision' then s.version + row_number() over (partition by d.stream, d.class order by d.n) end,
      d.type, d.format, d.session, d.usr, d.hardware, greatest(at, s.last_at), d.request,
      case d.type
        when 'seat_acquired' then d.data || jsonb_build_object('deadline', event_time(at + v_ttl))
        when 'seat_expired' then
          case when t.session_id is null then d.data
               else d.data || jsonb_build_object('deadline', event_time(t.deadline)) end
        else d.data
      end
    from (select x.*, case x.type when 'seat_denied' then 'denial' else 'decision' end as class
          from unnest(d_stream, d_event, d_type, d_format, d_session, d_user, d_hardware, d_request, d_data)
            with ordinality x(stream, event, type, format, session, usr, hardware, request, data, n)) d
    join streams s on s.stream_id = d.stream
    left join seats t on d.type = 'seat_expired' and t.session_id = d.session and t.stream_id = d.stream
    where d.stream <> all (v_bad)
    order by d.n
    on conflict (class, event_id) do nothing;

    update streams s set version = s.version + c.n, last_at = greatest(s.last_at, at)
    from (select d.stream, count(*) as n from unnest(d_stream, d_type) d(stream, type)
          where d.type <> 'seat_denied' and d.stream <> all (v_bad) group by d.stream) c
    where s.stream_id = c.stream;

    delete from seats t
    using unnest(d_stream, d_type, d_session) d(stream, type, session)
    where d.type in ('seat_released', 'seat_expired', 'seat_revoked') and d.stream <> all (v_bad)
      and t.session_id = d.session and t.stream_id = d.stream;

    insert into seats (session_id, stream_id, tenant_id, user_id, hardware_id, machine_name, started_at,
                       last_heartbeat_at, deadline, ttl_ms)
    select d.session, d.stream, s.tenant_id, d.usr, d.hardware, d.data ->> 'machine_name', at, at, at + v_ttl, p_ttl_ms
    from unnest(d_stream, d_type, d_session, d_user, d_hardware, d_data) d(stream, type, session, usr, hardware, data)
    join streams s on s.stream_id = d.stream
    where d.type = 'seat_acquired' and d.stream <> all (v_bad);

    delete from idempotency_keys k
    using unnest(d_stream, d_type, d_user, d_key) d(stream, type, usr, key), streams s
    where d.type = 'seat_released' and d.key is not null and d.stream <> all (v_bad)
      and s.stream_id = d.stream and k.tenant_id = s.tenant_id and k.user_id = d.usr and k.key = d.key;
  end if;

  if cardinality(h_session) > 0 then
    at := coalesce(at, date_trunc('milliseconds', clock_timestamp()));
    v_deadline := at + v_ttl;
    v_data := jsonb_build_object('deadline', event_time(v_deadline));

    -- A sending that is still under way holds the seats that it moves; once they are ours, its events can be seen.
    if p_resend then
      perform from seats where session_id = any (h_session) order by session_id for update;
      select coalesce(jsonb_agg(jsonb_build_object('session', h.session, 'why', 'written', 'at', e.occurred_at)), '[]'),
             coalesce(array_agg(h.event), '{}')
      into v_found, v_known
      from unnest(h_event, h_session) h(event, session)
      join events e on e.class = 'heartbeat' and e.event_id = h.event;
      refused := refused || v_found;
    end if;

    -- Which pools accept is looked up first: joined below, it would mislead the planner about how many rows there are.
    v_open := array(select s.stream_id from streams s where s.stream_id = any (h_stream) and standing(s, at) = 'ok');

    -- No `on conflict` for the events: a first sending that arrives after its repetition fails as a whole, and moves
    -- nothing; nobody waits for it any more.
    with moved as (
      update seats t set deadline = greatest(t.deadline, v_deadline), last_heartbeat_at = at, ttl_ms = p_ttl_ms,
        renewed = true
      from unnest(h_event, h_stream, h_session, h_user, h_request, h_key, h_hash)
        h(event, stream, session, usr, request, key, hash)
      where t.session_id = h.session and t.stream_id = h.stream and t.user_id = h.usr
        and h.stream = any (v_open) and h.event <> all (v_known)
      returning h.event, t.tenant_id, t.stream_id, t.session_id, t.user_id, t.hardware_id, h.request, h.key, h.hash
    ), keyed as (
      insert into idempotency_keys
      select tenant_id, user_id, key, hash, stream_id, session_id, at from moved where key is not null
      order by tenant_id, user_id, key
      on conflict do nothing
    )
    insert into events (class, event_id, tenant_id, stream_id, type, format, session_id, user_id, hardware_id,
                        occurred_at, request_id, data)
    select 'heartbeat', event, tenant_id, stream_id, 'seat_heartbeat', 1, session_id, user_id, hardware_id, at, request,
           v_data
    from moved;
    get diagnostics v_moved = row_count;

    -- A heartbeat that moved nothing: moved by another of this statement, without a seat, or not accepted (perhaps
    -- until a moment ago).
    if v_moved + cardinality(v_known) < cardinality(h_session) then
      select jsonb_agg(jsonb_build_object('session', h.session, 'why',
               case when t.session_id is null or t.user_id <> h.usr then 'missing'
                    else coalesce(nullif(standing(s, at), 'ok'), 'license_inactive') end))
      into v_found
      from unnest(h_event, h_stream, h_session, h_user) h(event, stream, session, usr)
      left join seats t on t.session_id = h.session and t.stream_id = h.stream
      left join streams s on s.stream_id = h.stream
      where h.event <> all (v_known)
        and not (t.session_id is not null and t.user_id = h.usr and t.last_heartbeat_at = at and standing(s, at) = 'ok');
      refused := refused || coalesce(v_found, '[]');
    end if;
  end if;
  at := coalesce(at, date_trunc('milliseconds', clock_timestamp()));
end $$;

grant execute on function append(
  boolean, integer, uuid[], uuid[], text[], bigint[], text[], uuid[], uuid[], text[], smallint[], uuid[], text[],
  text[], text[], jsonb[], text[], bytea[], boolean[], uuid[], text[], text[], boolean[], uuid[], uuid[], uuid[],
  text[], text[], text[], bytea[], boolean) to license_service;

-- Replicas of the version before call it without `p_resend`, until the last of them has gone. They never say whether they
-- repeat themselves, so it is always looked up, and they do not know the word `written`: what they are not told of is.
create or replace function append(
  p_whole boolean, p_ttl_ms integer,
  s_stream uuid[], s_tenant uuid[], s_product text[], s_expected bigint[], s_standing text[],
  d_stream uuid[], d_event uuid[], d_type text[], d_format smallint[], d_session uuid[], d_user text[],
  d_hardware text[], d_request text[], d_data jsonb[], d_key text[], d_hash bytea[], d_give_back boolean[],
  n_stream uuid[], n_scope text[], n_name text[], n_hold boolean[],
  h_event uuid[], h_stream uuid[], h_session uuid[], h_user text[], h_request text[], h_key text[], h_hash bytea[],
  out at timestamptz, out refused jsonb)
language sql security definer set search_path = public, pg_temp as $$
  select a.at, (select coalesce(jsonb_agg(one), '[]') from jsonb_array_elements(a.refused) one
                where one ->> 'why' <> 'written')
  from append(
    p_whole, p_ttl_ms, s_stream, s_tenant, s_product, s_expected, s_standing, d_stream, d_event, d_type, d_format,
    d_session, d_user, d_hardware, d_request, d_data, d_key, d_hash, d_give_back, n_stream, n_scope, n_name,
    n_hold, h_event, h_stream, h_session, h_user, h_request, h_key, h_hash, true) a
$$;

-- Which programs work with the schema: a program starts on a schema newer than its own only if it is among them, so that
-- a replica may start again in the middle of a rollout, and a rollout may be taken back. A migration that an earlier
-- program does not survive raises the number.
create table schema_support (
  singleton      boolean primary key default true check (singleton),
  oldest_program integer not null                        -- the schema version that the program knows
);
insert into schema_support values (true, 10);
comment on table schema_support is 'The oldest program that works with the schema';
