-- The same `append`: a grant looks up its own user, and a heartbeat goes straight to the heartbeats.
--
-- The users of a statement's grants were joined by tenant and by id, and these come from two tables. Planned while `users`
-- was small, the join went by the tenant alone and passed over the rest: each grant read all users of its tenant, until the
-- table was analysed and the plan made anew (1,000 users of one tenant: 5 ms for 32 grants). Now both come from one subquery,
-- which is not merged into the rest (it locks, or says `offset 0`): so the look-up is by both, whatever the statistics say
-- (0.3 ms). The same holds for the keys of grants that are given back.
-- A row of `events` is led through two levels of partitions to its day; heartbeats, by far the most, skip the first (32 of
-- them: 8 % of the statement).

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
create or replace function append(
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
  v_known uuid[] := '{}';      -- denials, then heartbeats, that an earlier sending wrote
  v_closed uuid[];             -- pools that do not accept
  v_members uuid[];            -- sessions whose user may hold a seat
  v_moved integer;
  -- What the batch has: a statement with nothing to do still costs Postgres a good part of a heartbeat.
  v_grants boolean := 'seat_acquired' = any (d_type);
  v_ends boolean := d_type && array['seat_released', 'seat_expired', 'seat_revoked'];
  v_keys boolean := num_nonnulls(variadic d_key) > 0;
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
    if v_ends then
      v_ended := array(select d.session from unnest(d_type, d_session) d(type, session)
                       where d.type in ('seat_released', 'seat_expired', 'seat_revoked'));
      perform from seats where session_id = any (v_ended || h_session) order by session_id for update;
      if 'seat_expired' = any (d_type) then
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
      end if;
      if true = any (d_give_back) then
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
    end if;

    if v_grants then
      -- A removal that runs at the same time waits for this grant, and then finds its seat.
      v_members := array(
        select d.session
        from (select s.tenant_id, d.usr, d.session
              from unnest(d_stream, d_type, d_user, d_session) d(stream, type, usr, session)
              join streams s on s.stream_id = d.stream
              where d.type = 'seat_acquired'
              order by s.tenant_id, d.usr) d
        cross join lateral (
          select from users u where u.tenant_id = d.tenant_id and u.user_id = d.usr and not u.removed for share) u);
      if cardinality(v_members) < cardinality(array_positions(d_type, 'seat_acquired')) then
        select jsonb_agg(jsonb_build_object('stream', d.stream, 'session', d.session,
                 'why', case when u.removed then 'user_removed' else 'user_unknown' end)),
               array_agg(d.stream)
        into v_found, v_ended
        from (select s.tenant_id, d.usr, d.stream, d.session
              from unnest(d_stream, d_type, d_user, d_session) d(stream, type, usr, session)
              join streams s on s.stream_id = d.stream
              where d.type = 'seat_acquired' and d.stream <> all (v_bad) and d.session <> all (v_members)
              offset 0) d
        left join users u on u.tenant_id = d.tenant_id and u.user_id = d.usr;
        refused := refused || coalesce(v_found, '[]');
        v_bad := v_bad || coalesce(v_ended, '{}');
      end if;

      if v_keys then
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
          using (select s.tenant_id, d.usr, d.key, d.session
                 from unnest(d_stream, d_type, d_user, d_session, d_key) d(stream, type, usr, session, key)
                 join streams s on s.stream_id = d.stream
                 where d.type = 'seat_acquired' and d.key is not null and d.stream = any (v_bad)
                 offset 0) d
          where k.tenant_id = d.tenant_id and k.user_id = d.usr and k.key = d.key and k.session_id = d.session
            and k.created_at = at;
        end if;
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

    -- A denial moves no version: that it was written before is looked up. An earlier sending that is still under way held
    -- the streams until now.
    if p_resend then
      v_known := array(select e.event_id from events e where e.class = 'denial' and e.event_id = any (d_event));
    end if;

    -- Write. No `on conflict`: a first sending that arrives after its repetition fails as a whole; nobody waits for it any
    -- more.
    v_deadline := at + v_ttl;
    v_data := jsonb_build_object('deadline', to_char(v_deadline at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));
    insert into events (class, event_id, tenant_id, stream_id, version, type, format, session_id, user_id,
                        hardware_id, occurred_at, request_id, data)
    select d.class, d.event, s.tenant_id, d.stream,
      case when d.class = 'decision' then s.version + row_number() over (partition by d.stream, d.class order by d.n) end,
      d.type, d.format, d.session, d.usr, d.hardware, greatest(at, s.last_at), d.request,
      case d.type
        when 'seat_acquired' then d.data || v_data
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
    where d.stream <> all (v_bad) and d.event <> all (v_known)
    order by d.n;

    -- With `p_whole`, `append_effects` has done it.
    if not p_whole and 'user_added' = any (d_type) then
      insert into users (tenant_id, user_id, email, roles, created_at, updated_at)
      select d.stream, d.usr, d.data ->> 'email', array(select jsonb_array_elements_text(d.data -> 'roles')), at, at
      from unnest(d_stream, d_type, d_user, d_data) d(stream, type, usr, data)
      where d.type = 'user_added' and d.stream <> all (v_bad)
      order by d.stream, d.usr
      on conflict (tenant_id, user_id) do update
        set email = excluded.email, roles = excluded.roles, removed = false, updated_at = at;
    end if;

    update streams s set version = s.version + c.n, last_at = greatest(s.last_at, at)
    from (select d.stream, count(*) as n from unnest(d_stream, d_type) d(stream, type)
          where d.type <> 'seat_denied' and d.stream <> all (v_bad) group by d.stream) c
    where s.stream_id = c.stream;

    if v_ends then
      delete from seats t
      using unnest(d_stream, d_type, d_session) d(stream, type, session)
      where d.type in ('seat_released', 'seat_expired', 'seat_revoked') and d.stream <> all (v_bad)
        and t.session_id = d.session and t.stream_id = d.stream;
    end if;
    if v_grants then
      insert into seats (session_id, stream_id, tenant_id, user_id, hardware_id, machine_name, started_at,
                         last_heartbeat_at, deadline, due, ttl_ms)
      select d.session, d.stream, s.tenant_id, d.usr, d.hardware, d.data ->> 'machine_name', at, at, v_deadline, v_deadline, p_ttl_ms
      from unnest(d_stream, d_type, d_session, d_user, d_hardware, d_data) d(stream, type, session, usr, hardware, data)
      join streams s on s.stream_id = d.stream
      where d.type = 'seat_acquired' and d.stream <> all (v_bad);
    end if;
    if v_ends and v_keys then
      delete from idempotency_keys k
      using (select s.tenant_id, d.usr, d.key
             from unnest(d_stream, d_type, d_user, d_key) d(stream, type, usr, key)
             join streams s on s.stream_id = d.stream
             where d.type = 'seat_released' and d.key is not null and d.stream <> all (v_bad)
             offset 0) d
      where k.tenant_id = d.tenant_id and k.user_id = d.usr and k.key = d.key;
    end if;
  end if;

  if cardinality(h_session) > 0 then
    at := coalesce(at, date_trunc('milliseconds', clock_timestamp()));
    v_deadline := at + v_ttl;
    v_data := jsonb_build_object('deadline', to_char(v_deadline at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));

    -- A sending that is still under way holds the seats that it moves; once they are ours, its events can be seen.
    v_known := '{}';
    if p_resend then
      perform from seats where session_id = any (h_session) order by session_id for update;
      select coalesce(jsonb_agg(jsonb_build_object('session', h.session, 'why', 'written', 'at', e.occurred_at)), '[]'),
             coalesce(array_agg(h.event), '{}')
      into v_found, v_known
      from unnest(h_event, h_session) h(event, session)
      join events e on e.class = 'heartbeat' and e.event_id = h.event;
      refused := refused || v_found;
    end if;

    -- Which pools do not accept is looked up first: joined below, it would mislead the planner about how many rows there are.
    v_closed := array(select s.stream_id from streams s where s.stream_id = any (h_stream) and standing(s, at) <> 'ok');

    with moved as (
      update seats t set deadline = greatest(t.deadline, v_deadline), last_heartbeat_at = at, ttl_ms = p_ttl_ms,
        due = case when t.due < at + v_ttl / 2 then greatest(t.deadline, v_deadline) else t.due end, renewed = true
      from unnest(h_event, h_stream, h_session, h_user, h_request) h(event, stream, session, usr, request)
      where t.session_id = h.session and t.stream_id = h.stream and t.user_id = h.usr
        and h.stream <> all (v_closed) and h.event <> all (v_known)
      returning h.event, t.tenant_id, t.stream_id, t.session_id, t.user_id, t.hardware_id, h.request
    )
    insert into events_heartbeat (class, event_id, tenant_id, stream_id, type, format, session_id, user_id, hardware_id,
                                  occurred_at, request_id, data)
    select 'heartbeat', event, tenant_id, stream_id, 'seat_heartbeat', 1, session_id, user_id, hardware_id, at, request,
           v_data
    from moved;
    get diagnostics v_moved = row_count;

    if num_nonnulls(variadic h_key) > 0 then
      insert into idempotency_keys
      select t.tenant_id, t.user_id, h.key, h.hash, t.stream_id, t.session_id, at
      from unnest(h_event, h_stream, h_session, h_user, h_key, h_hash) h(event, stream, session, usr, key, hash)
      join seats t on t.session_id = h.session and t.stream_id = h.stream and t.user_id = h.usr
      where h.key is not null and t.last_heartbeat_at = at
        and h.stream <> all (v_closed) and h.event <> all (v_known)
      order by t.tenant_id, t.user_id, h.key
      on conflict do nothing;
    end if;

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
