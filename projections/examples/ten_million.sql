-- A made log of :count events. Sessions first, then the events that they consist of, in the order of time.
-- Of 10 events: 6 heartbeats (of 1.5 sessions), 1.5 acquires, 1.5 ends, 1 denial.
create temporary table made_tenants as
  select n, ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid as tenant_id,
    ('00000000-0000-7000-9000-' || lpad(n::text, 12, '0'))::uuid as license_id
  from generate_series(1, 8) n;
insert into streams (stream_id, tenant_id, product, version, last_at)
  select tenant_id, tenant_id, null, 1, now() - interval '401 days' from made_tenants
  union all select license_id, tenant_id, 'coditect', 1, now() - interval '401 days' from made_tenants;
insert into events (class, event_id, tenant_id, stream_id, version, type, format, occurred_at, data)
  select 'decision', gen_random_uuid(), tenant_id, tenant_id, 1, 'tenant_created', 1,
    date_trunc('milliseconds', now() - interval '401 days'),
    jsonb_build_object('name', 'Tenant ' || n, 'subdomain', 't' || n, 'plan', 'team', 'max_seats', 100000, 'active', true)
  from made_tenants
  union all
  select 'decision', gen_random_uuid(), tenant_id, license_id, 1, 'license_issued', 1,
    date_trunc('milliseconds', now() - interval '401 days'),
    '{"product": "coditect", "plan": "team", "seats_total": 100000, "active": true, "features": [], "valid_from": null,
      "valid_until": null, "offline_grace_seconds": null}'
  from made_tenants;

create temporary table made_sessions as
  select gen_random_uuid() as session_id, t.tenant_id, t.license_id, 'user-' || (random() * 3000)::int as user_id,
    date_trunc('milliseconds', now() - random() * interval '400 days') as started_at,
    interval '20 minutes' + random() * interval '460 minutes' as length
  from generate_series(1, :count * 15 / 100) s
  join made_tenants t on t.n = case when random() < 0.25 then 1 else 1 + (s % 8) end;

create temporary table made_events as
  select session_id, tenant_id, license_id, user_id, 'seat_acquired' as type, started_at as at from made_sessions
  union all
  select session_id, tenant_id, license_id, user_id, 'seat_released', date_trunc('milliseconds', started_at + length)
  from made_sessions where started_at + length < now()
  union all
  select session_id, tenant_id, license_id, user_id, 'seat_heartbeat',
    date_trunc('milliseconds', started_at + length * n / 5.0)
  from made_sessions, generate_series(1, 4) n where started_at + length * n / 5.0 < now()
  union all
  select null, t.tenant_id, t.license_id, 'user-' || (random() * 3000)::int, 'seat_denied',
    date_trunc('milliseconds', now() - random() * interval '400 days')
  from generate_series(1, :count / 10) s join made_tenants t on t.n = 1 + (s % 8);

insert into events (class, event_id, tenant_id, stream_id, version, type, format, session_id, user_id, hardware_id,
                    occurred_at, request_id, data)
  select
    case type when 'seat_heartbeat' then 'heartbeat' when 'seat_denied' then 'denial' else 'decision' end,
    gen_random_uuid(), tenant_id, license_id,
    case when type in ('seat_acquired', 'seat_released')
      then 1 + row_number() over (partition by license_id, type in ('seat_acquired', 'seat_released') order by at) end,
    type, 1, session_id, user_id, 'machine-of-' || coalesce(session_id::text, user_id), at, null,
    case type
      when 'seat_acquired' then jsonb_build_object('seats_used',
        sum(case type when 'seat_acquired' then 1 when 'seat_released' then -1 else 0 end)
          over (partition by license_id order by at rows unbounded preceding), 'seats_total', 100000,
        'deadline', event_time(at + interval '360 seconds'), 'machine_name', 'desk')
      when 'seat_heartbeat' then jsonb_build_object('deadline', event_time(at + interval '360 seconds'))
      when 'seat_denied' then '{"reason": "no_seats_available", "seats_used": 100000, "seats_total": 100000}'
      else '{}' end
  from made_events order by at;
drop table made_events, made_sessions, made_tenants;

-- As `append` would have left it: streams where the log is, a seat for each live session.
update streams s set version = c.version, last_at = c.last_at
from (select stream_id, max(version) as version, max(occurred_at) as last_at from events_decision group by 1) c
where c.stream_id = s.stream_id;
insert into seats (session_id, stream_id, tenant_id, user_id, hardware_id, machine_name, started_at, last_heartbeat_at,
                   deadline, due, ttl_ms)
select session_id, stream_id, tenant_id, user_id, hardware_id, 'desk', occurred_at, now(), now() + interval '360 seconds',
  now() + interval '360 seconds', 360000
from events_decision e
where type = 'seat_acquired' and occurred_at > now() - interval '9 hours'
  and not exists (select from events_decision o where o.session_id = e.session_id and o.version > e.version)
on conflict do nothing;
