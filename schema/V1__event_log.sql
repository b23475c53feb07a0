-- The log: every fact that ever happened, in one partitioned table.
--
-- `streams` has one row per pool (its id is the license's) and one per tenant. Its version is what a
-- writer compares and sets. The row also says whether the pool accepts, because every append checks that.

create table streams (
  stream_id      uuid primary key,
  tenant_id      uuid not null,
  product        text,                                   -- null on a tenant's own stream
  version        bigint not null check (version >= 0),   -- of the stream's latest decision
  last_at        timestamptz not null,                   -- time of that decision; never goes back
  tenant_active  boolean not null default true,
  license_active boolean not null default true,
  valid_from     timestamptz,
  valid_until    timestamptz,
  check ((product is null) = (stream_id = tenant_id))
);
create index streams_by_tenant on streams (tenant_id);

-- Why a pool does not accept, or `ok`. The words are the codes that a client gets.
create function standing(s streams, at timestamptz) returns text
language sql immutable parallel safe as $$
  select case
    when not s.tenant_active then 'tenant_inactive'
    when not s.license_active or s.valid_from > at then 'license_inactive'
    when s.valid_until <= at then 'license_expired'
    else 'ok'
  end
$$;

create sequence event_position;

-- `class` says what may ever be dropped: decisions and denials stay, heartbeats may go by partition.
-- Readers page by (xid, position): a position alone becomes visible out of commit order.
create table events (
  class       text not null check (class in ('decision', 'denial', 'heartbeat')),
  event_id    uuid not null,                             -- UUIDv7, minted by the writer: makes a resend recognisable
  xid         xid8 not null default pg_current_xact_id(),
  position    bigint not null default nextval('event_position'),
  tenant_id   uuid not null,
  stream_id   uuid not null,
  version     bigint check ((class = 'decision') = (version is not null)),
  type        text not null,
  format      smallint not null,                         -- of `data`, for readers of old events
  session_id  uuid,
  user_id     text,
  hardware_id text,
  occurred_at timestamptz not null,                      -- Postgres's clock
  request_id  text,
  data        jsonb not null,
  primary key (class, event_id)
) partition by list (class);

create table events_decision partition of events for values in ('decision');
create table events_denial partition of events for values in ('denial');
create table events_heartbeat partition of events for values in ('heartbeat') partition by range (event_id);
-- Takes what no day's partition holds, so that an append never fails for want of one.
create table events_heartbeat_rest partition of events_heartbeat default;

create index events_global on events (xid, position);
create index events_by_tenant on events (tenant_id, xid, position);
create unique index events_decision_version on events_decision (stream_id, version);
create index events_decision_session on events_decision (session_id, version) where session_id is not null;

-- The smallest UUIDv7 of an instant (RFC 9562: 48 bits of Unix milliseconds come first).
create function uuid_floor(at timestamptz) returns uuid
language sql immutable parallel safe as $$
  select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid
$$;

-- Makes the heartbeat partitions of the days from today to `days` ahead; repeating it does nothing.
-- Two at once wait for each other. Answers how many it made.
-- A new partition needs the table for itself for a moment: it gives up soon, rather than have everybody queue behind
-- it while it waits for a long reader. Days are made well ahead, so the next try is soon enough.
create function ensure_heartbeat_partitions(days integer) returns integer
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '250ms' as $$
declare
  v_day date;
  v_name text;
  v_made integer := 0;
begin
  perform pg_advisory_xact_lock(hashtext('ensure_heartbeat_partitions'));
  for v_day in select ((now() at time zone 'UTC')::date + n) from generate_series(0, least(days, 90)) n loop
    v_name := 'events_heartbeat_' || to_char(v_day, 'YYYYMMDD');
    continue when to_regclass('public.' || v_name) is not null;
    -- A row that waits in the rest partition (a writer's clock ran ahead) keeps its day there.
    continue when exists (
      select from events_heartbeat_rest
      where event_id >= uuid_floor(v_day::timestamp at time zone 'UTC')
        and event_id < uuid_floor((v_day + 1)::timestamp at time zone 'UTC'));
    execute format('create table %I partition of events_heartbeat for values from (%L) to (%L)', v_name,
      uuid_floor(v_day::timestamp at time zone 'UTC'), uuid_floor((v_day + 1)::timestamp at time zone 'UTC'));
    perform make_append_only(v_name::regclass);
    v_made := v_made + 1;
  end loop;
  return v_made;
end $$;

-- A folded stream at one of its versions: where loading starts. Losing it costs time only.
create table snapshots (
  stream_id uuid primary key,
  version   bigint not null,
  format    smallint not null,
  state     jsonb not null,
  taken_at  timestamptz not null default now()
);

-- A stored time as it stands in an event's data: RFC 3339, UTC, milliseconds.
create function event_time(at timestamptz) returns text
language sql immutable parallel safe as $$
  select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

-- What cursors begin with. A restore into another cluster moves it on: transaction ids mean nothing there.
create table log_epoch (
  singleton boolean primary key default true check (singleton),
  epoch integer not null
);
insert into log_epoch values (true, 1);
