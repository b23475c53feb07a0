-- What the referee must know to refuse: written only by `append`, in the transaction of the events.

-- One row per live session. A heartbeat moves `deadline`; release, expiry and revocation delete the row.
create table seats (
  session_id        uuid primary key,
  stream_id         uuid not null references streams,
  tenant_id         uuid not null,
  user_id           text not null,
  hardware_id       text not null,
  machine_name      text,
  started_at        timestamptz not null,
  last_heartbeat_at timestamptz not null,
  deadline          timestamptz not null,               -- Postgres's clock; only grows
  ttl_ms            integer not null check (ttl_ms > 0),
  renewed           boolean not null default false,     -- somebody was answered again since the grant
  unique (stream_id, user_id, hardware_id)
) with (fillfactor = 80);
create index seats_by_deadline on seats (deadline);

-- Outages: every replica ticks this row. An expiry needs a recent tick, and a whole TTL since the last outage.
create table beacon (
  singleton    boolean primary key default true check (singleton),
  last_seen    timestamptz not null,
  recovered_at timestamptz not null,
  gap_ms       integer not null                         -- a silence longer than this is an outage
);
insert into beacon values (true, now(), now(), 15000);

-- Who belongs to a tenant: a removed user's row stays, and its acquires are refused.
create table users (
  tenant_id    uuid not null,
  user_id      text not null,
  email        text,
  roles        text[] not null,
  removed      boolean not null default false,
  created_at   timestamptz not null,
  updated_at   timestamptz not null,
  primary key (tenant_id, user_id)
);

-- Names that may be held once: (`subdomain`, name), (`identity_tenant`, name), (`product/<tenant>`, product).
create table names (
  scope     text not null,
  name      text not null,
  stream_id uuid not null,
  primary key (scope, name)
);
create index names_by_stream on names (stream_id);

-- What an Idempotency-Key was granted. A refusal stores nothing.
create table idempotency_keys (
  tenant_id    uuid not null,
  user_id      text not null,
  key          text not null,
  request_hash bytea not null,                          -- SHA-256 of the request's fields
  stream_id    uuid not null,
  session_id   uuid not null,
  created_at   timestamptz not null,
  primary key (tenant_id, user_id, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);

-- Public halves of every key that signs or has signed: what the JWK set shows.
create table signing_keys (
  kid          text primary key,
  public_key   text not null,                           -- SubjectPublicKeyInfo, PEM
  published_at timestamptz not null default now(),
  last_used_at timestamptz
);
