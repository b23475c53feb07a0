-- A log as the programs of schema version 5 wrote it, for the tests of upgrades: loaded into a database of that version,
-- it must be read the same by every later one. Frozen. Transaction ids and positions are this database's own.
--
-- Tenant Acme: 3 seats of coditect. Ada holds one on two machines; Bob's was released, Cyd's revoked; Dan's lapsed; Eve was
-- refused while the limit was 2, and holds the third seat since it was raised. A second product is suspended.

create function pg_temp.put(p_stream uuid, p_type text, p_session uuid, p_user text, p_hardware text, p_data jsonb, p_ago interval)
returns void language plpgsql as $$
declare
  v_class text := case p_type when 'seat_denied' then 'denial' when 'seat_heartbeat' then 'heartbeat' else 'decision' end;
  v_at timestamptz := date_trunc('milliseconds', now() - p_ago);
begin
  if v_class = 'decision' then
    update streams set version = version + 1, last_at = v_at where stream_id = p_stream;
  end if;
  insert into events (class, event_id, tenant_id, stream_id, version, type, format, session_id, user_id, hardware_id, occurred_at, request_id, data)
  select v_class, overlay(gen_random_uuid()::text placing '7' from 15 for 1)::uuid, tenant_id, stream_id,
    case v_class when 'decision' then version end, p_type, 1, p_session, p_user, p_hardware, v_at, 'log-of-version-5', p_data
  from streams where stream_id = p_stream;
end $$;

insert into streams (stream_id, tenant_id, product, version, last_at, license_active) values
  ('01900000-0000-7000-8000-00000000000a', '01900000-0000-7000-8000-00000000000a', null, 0, now() - interval '9 hours', true),
  ('01900000-0000-7000-8000-0000000000c1', '01900000-0000-7000-8000-00000000000a', 'coditect', 0, now() - interval '9 hours', true),
  ('01900000-0000-7000-8000-0000000000c2', '01900000-0000-7000-8000-00000000000a', 'atelier', 0, now() - interval '9 hours', false);
insert into names (scope, name, stream_id) values
  ('subdomain', 'acme', '01900000-0000-7000-8000-00000000000a'),
  ('identity_tenant', 'org_acme', '01900000-0000-7000-8000-00000000000a'),
  ('product/01900000-0000-7000-8000-00000000000a', 'coditect', '01900000-0000-7000-8000-0000000000c1');
insert into users (tenant_id, user_id, email, roles, removed, created_at, updated_at) values
  ('01900000-0000-7000-8000-00000000000a', 'ada', 'ada@acme.example', '{tenant_admin}', false, now() - interval '8 hours', now() - interval '8 hours'),
  ('01900000-0000-7000-8000-00000000000a', 'bob', null, '{}', false, now() - interval '8 hours', now() - interval '8 hours'),
  ('01900000-0000-7000-8000-00000000000a', 'cyd', null, '{}', true, now() - interval '8 hours', now() - interval '5 hours'),
  ('01900000-0000-7000-8000-00000000000a', 'dan', null, '{}', false, now() - interval '8 hours', now() - interval '8 hours'),
  ('01900000-0000-7000-8000-00000000000a', 'eve', null, '{}', false, now() - interval '8 hours', now() - interval '8 hours');

do $$
declare
  acme uuid := '01900000-0000-7000-8000-00000000000a';
  pool uuid := '01900000-0000-7000-8000-0000000000c1';
  other uuid := '01900000-0000-7000-8000-0000000000c2';
  s text := '01900000-0000-7000-8000-0000000000e';
  license jsonb := '{"plan":"team","active":true,"features":["export"],"valid_from":null,"valid_until":null,"offline_grace_seconds":3600}';
begin
  perform pg_temp.put(acme, 'tenant_created', null, null, null, '{"name":"Acme","subdomain":"acme","plan":"team","max_seats":2,"active":true,"identity_tenant":"org_acme"}', '9 hours');
  perform pg_temp.put(pool, 'license_issued', null, null, null, license || '{"product":"coditect","seats_total":2}', '9 hours');
  perform pg_temp.put(other, 'license_issued', null, null, null, license || '{"product":"atelier","seats_total":7}', '9 hours');
  perform pg_temp.put(acme, 'user_added', null, 'ada', null, '{"email":"ada@acme.example","roles":["tenant_admin"],"reason":"admin"}', '8 hours');
  perform pg_temp.put(acme, 'user_added', null, u, null, '{"email":null,"roles":[],"reason":"first_acquire"}', '8 hours')
    from unnest(array['bob', 'cyd', 'dan', 'eve']) u;
  perform pg_temp.put(pool, 'seat_acquired', (s || '1')::uuid, 'bob', 'machine-bob', '{"seats_used":1,"seats_total":2,"deadline":"2026-01-02T03:04:05.678Z","machine_name":"Bob''s"}', '8 hours');
  perform pg_temp.put(pool, 'seat_acquired', (s || '2')::uuid, 'cyd', 'machine-cyd', '{"seats_used":2,"seats_total":2,"deadline":"2026-01-02T03:04:05.678Z","machine_name":null}', '7 hours');
  perform pg_temp.put(pool, 'seat_denied', null, 'eve', 'machine-eve', '{"reason":"no_seats_available","seats_used":2,"seats_total":2}', '7 hours');
  perform pg_temp.put(pool, 'seat_heartbeat', (s || '2')::uuid, 'cyd', 'machine-cyd', '{"deadline":"2026-01-02T03:04:05.678Z"}', '7 hours');
  perform pg_temp.put(pool, 'seat_released', (s || '1')::uuid, 'bob', 'machine-bob', '{}', '6 hours');
  perform pg_temp.put(pool, 'seat_revoked', (s || '2')::uuid, 'cyd', 'machine-cyd', '{"by":"ada","reason":"left"}', '5 hours');
  perform pg_temp.put(acme, 'user_removed', null, 'cyd', null, '{}', '5 hours');
  perform pg_temp.put(pool, 'seat_acquired', (s || '3')::uuid, 'dan', 'machine-dan', '{"seats_used":1,"seats_total":2,"deadline":"2026-01-02T03:04:05.678Z","machine_name":null}', '4 hours');
  perform pg_temp.put(pool, 'seat_expired', (s || '3')::uuid, 'dan', 'machine-dan', '{"deadline":"2026-01-02T03:04:05.678Z"}', '3 hours');
  perform pg_temp.put(pool, 'seat_acquired', (s || '4')::uuid, 'ada', 'machine-one', '{"seats_used":1,"seats_total":2,"deadline":"2026-01-02T03:04:05.678Z","machine_name":"one"}', '2 hours');
  perform pg_temp.put(pool, 'seat_acquired', (s || '5')::uuid, 'ada', 'machine-two', '{"seats_used":2,"seats_total":2,"deadline":"2026-01-02T03:04:05.678Z","machine_name":"two"}', '2 hours');
  perform pg_temp.put(acme, 'tenant_updated', null, null, null, '{"max_seats":3}', '1 hour');
  perform pg_temp.put(pool, 'license_updated', null, null, null, '{"seats_total":3}', '1 hour');
  perform pg_temp.put(other, 'license_updated', null, null, null, '{"active":false}', '1 hour');
  perform pg_temp.put(pool, 'seat_acquired', (s || '6')::uuid, 'eve', 'machine-eve', '{"seats_used":3,"seats_total":3,"deadline":"2026-01-02T03:04:05.678Z","machine_name":null}', '30 minutes');
end $$;

-- Whoever holds a seat holds it for another hour, so that the test has time.
insert into seats (session_id, stream_id, tenant_id, user_id, hardware_id, machine_name, started_at, last_heartbeat_at, deadline, ttl_ms)
select session_id, stream_id, tenant_id, user_id, hardware_id, data ->> 'machine_name', occurred_at, occurred_at, now() + interval '1 hour', 3600000
from events where type = 'seat_acquired' and user_id in ('ada', 'eve');
insert into idempotency_keys (tenant_id, user_id, key, request_hash, stream_id, session_id, created_at)
values ('01900000-0000-7000-8000-00000000000a', 'dan', 'dans-key', '\x00', '01900000-0000-7000-8000-0000000000c1', '01900000-0000-7000-8000-0000000000e3', now() - interval '4 hours');
