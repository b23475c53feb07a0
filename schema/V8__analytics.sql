-- What a tenant's analysts may ask in SQL: documented views, one read-only login per tenant.
--
-- A login sees the rows of the tenant that `analyst_logins` names for it, and no others. The views ask for
-- `session_user`, which no SET ROLE and no setting changes; they are security barriers, so a function in a query's
-- condition is not shown a row before the view has let it pass. Tables and the log itself are out of a login's reach.

-- Which login is whose. Written by `coditect-license analyst-login` alone, as the owner.
create table analyst_logins (
  login      name primary key,
  tenant_id  uuid not null,
  created_at timestamptz not null default now(),
  rotated_at timestamptz
);
comment on table analyst_logins is 'Which database login shows which tenant in schema analytics';

create schema analytics;
comment on schema analytics is 'Read-only views of one tenant''s seats: the tenant is the one of the login';

create function analytics.tenant_id() returns uuid
language sql stable parallel safe security definer set search_path = public, pg_temp as $$
  select tenant_id from analyst_logins where login = session_user
$$;
comment on function analytics.tenant_id() is 'The tenant of the login that asks; null for a login of nobody''s';

create view analytics.tenant with (security_barrier = true) as
  select tenant_id, name, plan, active, created_at, updated_at
  from tenants_view where tenant_id = (select analytics.tenant_id());

create view analytics.licenses with (security_barrier = true) as
  select license_id, product, plan, seats_total, active, valid_from, valid_until, created_at, updated_at
  from licenses_view where tenant_id = (select analytics.tenant_id());

create view analytics.license_limits with (security_barrier = true) as
  select license_id, since, version, seats_total, active
  from license_limits where tenant_id = (select analytics.tenant_id());

create view analytics.sessions with (security_barrier = true) as
  select v.session_id, v.license_id, v.product, v.user_id, v.hardware_id, v.machine_name,
    coalesce(v.ended, 'active') as state, v.started_at,
    coalesce(t.last_heartbeat_at, v.last_heartbeat_at) as last_heartbeat_at,
    coalesce(t.deadline, v.expires_at) as expires_at, v.ended_at,
    extract(epoch from coalesce(v.ended_at, now()) - v.started_at)::double precision as held_seconds
  from sessions_view v left join seats t using (session_id)
  where v.tenant_id = (select analytics.tenant_id()) and v.started_at is not null;

create view analytics.denials with (security_barrier = true) as
  select event_id, license_id, product, user_id, hardware_id, denied_at, reason, seats_used, seats_total, granted_at,
    extract(epoch from granted_at - denied_at)::double precision as granted_after_seconds
  from denials_view where tenant_id = (select analytics.tenant_id());

create view analytics.usage_minute with (security_barrier = true) as
  select nullif(scope_id, tenant_id) as license_id, bucket as begins_at, bucket + interval '1 minute' as ends_at,
    peak, seat_ms / 60000.0 as average, seat_ms / 1000.0 as seat_seconds, acquired, denied, released, expired, revoked,
    unique_users, used_after, users_after
  from usage_buckets where tenant_id = (select analytics.tenant_id()) and seconds = 60;

create view analytics.usage_hour with (security_barrier = true) as
  select nullif(scope_id, tenant_id) as license_id, bucket as begins_at, bucket + interval '1 hour' as ends_at,
    peak, seat_ms / 3600000.0 as average, seat_ms / 1000.0 as seat_seconds, acquired, denied, released, expired, revoked,
    unique_users, used_after, users_after
  from usage_buckets where tenant_id = (select analytics.tenant_id()) and seconds = 3600;

create view analytics.usage_day with (security_barrier = true) as
  select nullif(scope_id, tenant_id) as license_id, bucket as begins_at, bucket + interval '24 hours' as ends_at,
    peak, seat_ms / 86400000.0 as average, seat_ms / 1000.0 as seat_seconds, acquired, denied, released, expired, revoked,
    unique_users, used_after, users_after
  from usage_buckets where tenant_id = (select analytics.tenant_id()) and seconds = 86400;

comment on view analytics.tenant is 'The tenant itself: one row';
comment on column analytics.tenant.tenant_id is 'Id';
comment on column analytics.tenant.name is 'Name, for people';
comment on column analytics.tenant.plan is 'Plan, for people and billing';
comment on column analytics.tenant.active is 'False: every acquire and heartbeat is refused';
comment on column analytics.tenant.created_at is 'When the tenant was made';
comment on column analytics.tenant.updated_at is 'When its terms last changed';

comment on view analytics.licenses is 'Each license with the terms in force';
comment on column analytics.licenses.license_id is 'Id';
comment on column analytics.licenses.product is 'What it is for';
comment on column analytics.licenses.plan is 'Plan, for people and billing';
comment on column analytics.licenses.seats_total is 'How many sessions may live at a time';
comment on column analytics.licenses.active is 'False: acquires and heartbeats are refused';
comment on column analytics.licenses.valid_from is 'Refused before; null: no bound';
comment on column analytics.licenses.valid_until is 'Refused from here on; null: no bound';
comment on column analytics.licenses.created_at is 'When it was issued';
comment on column analytics.licenses.updated_at is 'When its terms last changed';

comment on view analytics.license_limits is 'From when on which limit was in force: a row for each change';
comment on column analytics.license_limits.license_id is 'The license';
comment on column analytics.license_limits.since is 'In force from this time, until the license''s next row';
comment on column analytics.license_limits.version is 'Orders changes of the same time';
comment on column analytics.license_limits.seats_total is 'The limit';
comment on column analytics.license_limits.active is 'Whether the license was switched on';

comment on view analytics.sessions is 'Each session: one user on one machine with one seat, from acquire to its end';
comment on column analytics.sessions.session_id is 'Id; later sessions have greater ones, nearly always';
comment on column analytics.sessions.license_id is 'Whose seat it held or holds';
comment on column analytics.sessions.product is 'The license''s product';
comment on column analytics.sessions.user_id is 'Who';
comment on column analytics.sessions.hardware_id is 'On which machine, as the client named it';
comment on column analytics.sessions.machine_name is 'The machine''s name for people, if the client told one';
comment on column analytics.sessions.state is 'active, released, expired or revoked';
comment on column analytics.sessions.started_at is 'When it took its seat';
comment on column analytics.sessions.last_heartbeat_at is 'Its last sign of life';
comment on column analytics.sessions.expires_at is 'When it ends, or would have ended, without a further heartbeat';
comment on column analytics.sessions.ended_at is 'When its seat was free again; null while it lives';
comment on column analytics.sessions.held_seconds is 'How long it held its seat, until now while it lives';

comment on view analytics.denials is 'Each refused acquire, and what came of it';
comment on column analytics.denials.event_id is 'Id';
comment on column analytics.denials.license_id is 'The license that refused';
comment on column analytics.denials.product is 'The product asked for';
comment on column analytics.denials.user_id is 'Who was refused';
comment on column analytics.denials.hardware_id is 'On which machine';
comment on column analytics.denials.denied_at is 'When';
comment on column analytics.denials.reason is 'no_seats_available, license_inactive, license_expired or tenant_inactive';
comment on column analytics.denials.seats_used is 'Seats in use then';
comment on column analytics.denials.seats_total is 'The limit in force then';
comment on column analytics.denials.granted_at is 'The same user''s next grant of the same product; null: none so far';
comment on column analytics.denials.granted_after_seconds is 'How long after the refusal that was';

do $$
declare
  v_view text;
begin
  foreach v_view in array array['minute', 'hour', 'day'] loop
    execute format('comment on view analytics.usage_%s is %L', v_view,
      'Seats held per ' || v_view || ' (UTC). Only those in which something happened have a row: until the next row of the '
      'same license, used_after seats are held by users_after users');
    execute format('comment on column analytics.usage_%s.license_id is %L', v_view, 'The license; null: all of the tenant''s together');
    execute format('comment on column analytics.usage_%s.begins_at is %L', v_view, 'First instant');
    execute format('comment on column analytics.usage_%s.ends_at is %L', v_view, 'First instant after it');
    execute format('comment on column analytics.usage_%s.peak is %L', v_view, 'Most seats held at a time, those held over from before included');
    execute format('comment on column analytics.usage_%s.average is %L', v_view, 'Seats held, weighted by time; while it is not over, as if used_after were held to its end');
    execute format('comment on column analytics.usage_%s.seat_seconds is %L', v_view, 'Seats times seconds held: what can be added up');
    execute format('comment on column analytics.usage_%s.acquired is %L', v_view, 'Sessions that began');
    execute format('comment on column analytics.usage_%s.denied is %L', v_view, 'Acquires refused');
    execute format('comment on column analytics.usage_%s.released is %L', v_view, 'Sessions given back');
    execute format('comment on column analytics.usage_%s.expired is %L', v_view, 'Sessions that ended for want of a heartbeat');
    execute format('comment on column analytics.usage_%s.revoked is %L', v_view, 'Sessions that an admin ended');
    execute format('comment on column analytics.usage_%s.unique_users is %L', v_view, 'Users who held a seat at some time of it');
    execute format('comment on column analytics.usage_%s.used_after is %L', v_view, 'Seats held after its last event');
    execute format('comment on column analytics.usage_%s.users_after is %L', v_view, 'Users who hold a seat after its last event');
  end loop;
end $$;

-- A login has nothing to look for among the tables, not even their names, and no place to put anything.
revoke all on schema public from public;
do $$
begin
  execute format('revoke temporary on database %I from public', current_database());
  execute format('grant temporary on database %I to license_service', current_database());
end $$;
revoke all on schema analytics from public;
revoke execute on all functions in schema analytics from public;
