-- Read models: what lists and reports show. All of it can be folded from the log again.
--
-- Two projections write here, each with one cursor, so that the tables of one projection always agree:
--   directory   tenants_view, licenses_view, license_limits
--   activity    sessions_view, denials_view, usage_buckets, usage_scopes, usage_users

-- What is left of a seat when it goes: its last sign of life. Heartbeats may be dropped, this stays.
create table seat_ends (
  session_id        uuid primary key,
  last_heartbeat_at timestamptz not null,
  deadline          timestamptz not null
);

create function remember_seat_ends() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  insert into seat_ends select session_id, last_heartbeat_at, deadline from gone on conflict do nothing;
  return null;
end $$;

create trigger remember_seat_ends after delete on seats
  referencing old table as gone for each statement execute function remember_seat_ends();

-- Facts about terms are few among many: the directory finds them by these.
create index events_decision_terms on events_decision (xid, position)
  where type in ('tenant_created', 'tenant_updated', 'license_issued', 'license_updated');
create index events_decision_terms_of on events_decision (stream_id, version)
  where type in ('tenant_created', 'tenant_updated', 'license_issued', 'license_updated');

-- The only runner that folds, and until when the others leave it alone. Rows and cursors are safe without it.
create table projection_lease (
  singleton boolean primary key default true check (singleton),
  holder    uuid not null,
  until     timestamptz not null
);

-- Read model `licenses`: the terms in force.
create table licenses_view (
  license_id            uuid primary key,
  tenant_id             uuid not null,
  version               bigint not null,                 -- of the stream when the terms last changed
  product               text not null,
  plan                  text not null,
  seats_total           bigint not null,
  active                boolean not null,
  features              jsonb not null,
  valid_from            timestamptz,
  valid_until           timestamptz,
  offline_grace_seconds bigint,
  created_at            timestamptz not null,
  updated_at            timestamptz not null
);
create index licenses_view_by_tenant on licenses_view (tenant_id, license_id);

-- From when on which limit was in force.
create table license_limits (
  license_id  uuid not null,
  version     bigint not null,
  tenant_id   uuid not null,
  since       timestamptz not null,
  seats_total bigint not null,
  active      boolean not null,
  primary key (license_id, version)
);
create index license_limits_by_tenant on license_limits (tenant_id, since);

-- Read model `sessions`: whole lives. `started_at` is null until the acquire is folded (another page may bring it).
create table sessions_view (
  session_id        uuid primary key,
  tenant_id         uuid not null,
  license_id        uuid not null,
  product           text not null,
  user_id           text not null,
  hardware_id       text not null,
  machine_name      text,
  started_at        timestamptz,
  started_position  bigint,
  last_heartbeat_at timestamptz,                         -- of a live session: see `seats`
  expires_at        timestamptz,                         -- of a live session: see `seats`
  ended_at          timestamptz,
  ended_position    bigint,
  ended             text check (ended in ('released', 'expired', 'revoked')),
  ended_by          text,
  ended_reason      text
);
create index sessions_view_by_tenant on sessions_view (tenant_id, session_id);
create index sessions_view_by_end on sessions_view (tenant_id, ended_at, session_id);
create index sessions_view_by_user on sessions_view (tenant_id, user_id, started_at);

-- Read model `denials`: each refusal, and what came of it.
create table denials_view (
  event_id         uuid primary key,
  position         bigint not null,
  tenant_id        uuid not null,
  license_id       uuid not null,
  product          text not null,
  user_id          text not null,
  hardware_id      text,
  denied_at        timestamptz not null,
  reason           text not null,
  seats_used       bigint not null,
  seats_total      bigint not null,
  granted_at       timestamptz,                          -- the same user's next grant of the same product
  granted_position bigint,
  granted_session  uuid
);
create index denials_view_by_time on denials_view (tenant_id, denied_at, position);
create index denials_view_waiting on denials_view (tenant_id, user_id, product) where granted_at is null;

-- Read model `usage`. A scope is a license, or a tenant as a whole; its id is the stream's. Only buckets in which
-- something happened have a row: until the next row, `used_after` seats are held by `users_after` users.
create table usage_buckets (
  scope_id     uuid not null,
  seconds      integer not null check (seconds in (60, 3600, 86400)),
  bucket       timestamptz not null,                     -- its beginning, UTC
  tenant_id    uuid not null,
  used_before  integer not null,                         -- seats held when it began
  used_after   integer not null,                         -- seats held after its latest event
  peak         integer not null,                         -- most seats held at a time
  seat_ms      bigint not null,                          -- seats times milliseconds, `used_after` held to its end
  acquired     integer not null,
  denied       integer not null,
  released     integer not null,
  expired      integer not null,
  revoked      integer not null,
  users_before integer not null,                         -- users who held a seat when it began
  users_after  integer not null,                         -- users who hold one after its latest event
  unique_users integer not null,                         -- users who held one at any time of it
  primary key (scope_id, seconds, bucket)
);
create index usage_buckets_by_tenant on usage_buckets (tenant_id, seconds, bucket);

-- Where the fold of a scope stands.
create table usage_scopes (
  scope_id      uuid primary key,
  tenant_id     uuid not null,
  used          integer not null,
  users         integer not null,
  last_at       timestamptz not null,
  last_position bigint not null
);

-- How many seats a user holds in a scope; since when it holds, or last held, any; when it last gave up the last of them.
create table usage_users (
  scope_id  uuid not null,
  user_id   text not null,
  live      integer not null,
  since     timestamptz,
  left_at   timestamptz,
  primary key (scope_id, user_id)
);

alter table tenants_view drop column license_id;         -- the first of `licenses_view`

grant insert, update, delete, truncate on projection_lease, licenses_view, license_limits, sessions_view, denials_view,
  usage_buckets, usage_scopes, usage_users to license_service;

-- The read models start anew with these projections.
truncate tenants_view, projection_cursors;
