//! The log is append-only: this tries to break it, as the service and as the owner.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where something is wrong")]

mod support;

use events::EventLog;
use support::{Pool, World, acquired, batch, beats, denied, holder};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// What only the append function writes.
const GUARDED: [&str; 6] = ["events", "streams", "seats", "users", "names", "idempotency_keys"];

/// A log with a row of every class.
async fn filled() -> (World, Pool) {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    world.write(&beats([pool.beat(&ada)])).await;
    world.write(&batch([pool.writes(2, [denied(&holder("bob"))])])).await;
    (world, pool)
}

/// Every table below `events`, at any depth.
async fn partitions(client: &Client) -> Vec<String> {
    let sql = "select relid::text from pg_partition_tree('events') where level > 0 order by 1";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn column(client: &Client, table: &str) -> String {
    let sql = "select attname::text from pg_attribute where attrelid = $1::text::regclass and attnum = 1";
    client.query_one(sql, &[&table]).await.unwrap().get(0)
}

/// The statement fails for want of a right; answers what Postgres says.
async fn refused(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let error = error.as_db_error().unwrap();
    assert_eq!(*error.code(), SqlState::INSUFFICIENT_PRIVILEGE, "{sql}: {error}");
    error.message().to_owned()
}

#[tokio::test]
async fn the_service_cannot_write_around_the_append_function() {
    let (world, _) = filled().await;
    let service = world.service().await;
    let before = world.everything().await;
    let mut tables = partitions(&service).await;
    assert!(tables.len() > 14, "{tables:?}");
    tables.extend(GUARDED.map(str::to_owned));
    tables.extend(["beacon", "log_epoch", "schema_history"].map(str::to_owned));
    for table in tables {
        let column = column(&service, &table).await;
        for sql in [
            format!("insert into {table} select * from {table}"),
            format!("insert into {table} default values"),
            format!("update {table} set {column} = {column}"),
            format!("delete from {table}"),
            format!("delete from {table} where false"),
            format!("truncate {table} cascade"),
            format!("copy {table} from stdin"),
            format!("do $$ begin lock table {table} in access exclusive mode; end $$"),
            format!("select from {table} for update"),
        ] {
            let said = refused(&service, &sql).await;
            assert!(said.starts_with("permission denied for table"), "{sql}: {said}");
        }
        let said = refused(&service, &format!("alter table {table} disable trigger all")).await;
        assert!(said.starts_with("must be owner"), "{said}");
        refused(&service, &format!("drop table {table} cascade")).await;
    }
    assert_eq!(world.everything().await, before);
}

#[tokio::test]
async fn the_service_reads_everything_and_writes_what_is_its_own() {
    let (world, _) = filled().await;
    let service = world.service().await;
    for table in GUARDED {
        let count: i64 =
            service.query_one(&format!("select count(*) from {table}"), &[]).await.unwrap().get(0);
        assert!(count > 0 || ["names", "idempotency_keys"].contains(&table), "{table}");
    }
    world.log.publish_key("kid", "pem").await.unwrap();
    world.log.touch_key("kid").await.unwrap();
    let keys = world.log.published_keys(std::time::Duration::from_secs(60)).await.unwrap();
    assert_eq!((keys.len(), keys[0].kid.as_str(), keys[0].public_key.as_str()), (1, "kid", "pem"));
    service
        .batch_execute("insert into projection_cursors (projection) values ('x'); truncate tenants_view")
        .await
        .unwrap();
}

#[tokio::test]
async fn the_service_makes_nothing_and_calls_only_what_it_may() {
    let (world, _) = filled().await;
    let service = world.service().await;
    for sql in [
        "create table public.mine (n int)",
        "create function public.mine() returns int language sql as 'select 1'",
        "create or replace function public.uuid_floor(at timestamptz) returns uuid language sql as 'select null::uuid'",
        "create view public.mine as select 1",
        "create schema mine",
        "create trigger mine before insert on events for each row execute function refuse_change()",
        "select nextval('event_position')",
        "select setval('event_position', 1)",
        "select make_append_only('events')",
        "select append_effects(now(), '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
        "set session_replication_role = replica",
        "alter table events owner to license_service",
    ] {
        refused(&service, sql).await;
    }
    // Postgres only warns here: what one may not grant is granted to nobody.
    service.batch_execute("grant all on events, streams to public").await.unwrap();
    let granted = "select count(*) from pg_class, aclexplode(relacl) where relname in ('events', 'streams') and grantee = 0";
    assert_eq!(world.number(granted).await, 0);
}

#[tokio::test]
async fn nobody_but_the_service_and_the_owner_may_call_or_read() {
    let (world, _) = filled().await;
    let stranger = world.superuser().await;
    let name = engines::TestEngines::unique_name();
    // The schema is closed to everybody, too; what the tables and functions say themselves shows behind that door.
    let inside = format!("create role {name}; grant usage on schema public to {name}; set role {name}");
    stranger.batch_execute(&inside).await.unwrap();
    for sql in [
        "select from events",
        "select from seats",
        "select tick_beacon(1)",
        "select ensure_heartbeat_partitions(1)",
        "select forget_idempotency_keys(24)",
        "select event_time(now())",
    ] {
        refused(&stranger, sql).await;
    }
    stranger.batch_execute(&format!("reset role; drop owned by {name}; drop role {name}")).await.unwrap();
}

#[tokio::test]
async fn the_owner_cannot_change_or_empty_the_log() {
    let (world, _) = filled().await;
    let owner = world.owner().await;
    let before = world.everything().await;
    let mut tables = partitions(&owner).await;
    tables.push("events".to_owned());
    for table in tables {
        let count: i64 = owner.query_one(&format!("select count(*) from {table}"), &[]).await.unwrap().get(0);
        let mut attempts = vec![format!("truncate {table}"), format!("truncate {table} cascade")];
        if count > 0 {
            // A row trigger needs a row.
            attempts.push(format!("update {table} set data = '{{}}'"));
            attempts.push(format!("update {table} set class = 'heartbeat', version = null"));
            attempts.push(format!("delete from {table}"));
        }
        for sql in attempts {
            let said = refused(&owner, &sql).await;
            assert!(said.contains("the log is append-only"), "{sql}: {said}");
        }
    }
    assert_eq!(world.everything().await, before);
    for class in ["decision", "denial", "heartbeat"] {
        let count = format!("select count(*) from events where class = '{class}'");
        assert!(world.number(&count).await > 0, "{class} was tried");
    }
}

/// Every partition has both triggers, also the ones without rows.
#[tokio::test]
async fn every_partition_refuses_change_and_truncation() {
    let (world, _) = filled().await;
    world.log.ensure_partitions(20).await.unwrap();
    let without = "select count(*) from pg_partition_tree('events') p where not (
        exists (select from pg_trigger where tgrelid = p.relid and tgfoid = 'refuse_change'::regproc
                and tgtype & 1 = 1 and tgtype & 8 = 8 and tgtype & 16 = 16 and tgenabled = 'O')
        and exists (select from pg_trigger where tgrelid = p.relid and tgfoid = 'refuse_change'::regproc
                and tgtype & 32 = 32 and tgenabled = 'O'))";
    assert_eq!(world.number(without).await, 0);
}

#[tokio::test]
async fn the_owner_may_drop_a_day_of_heartbeats() {
    let (world, pool) = filled().await;
    let owner = world.owner().await;
    let today = "select tableoid::regclass::text from events where class = 'heartbeat' limit 1";
    let today: String = owner.query_one(today, &[]).await.unwrap().get(0);
    let decisions = "select count(*) from events where class <> 'heartbeat'";
    let before = world.number(decisions).await;
    owner
        .batch_execute(&format!("alter table events_heartbeat detach partition {today}; drop table {today}"))
        .await
        .unwrap();
    assert_eq!(world.number("select count(*) from events where class = 'heartbeat'").await, 0);
    assert_eq!(world.number(decisions).await, before);
    let bob = world.seat(pool, "bob").await;
    world.write(&beats([pool.beat(&bob)])).await;
    assert_eq!(world.number("select count(*) from events_heartbeat_rest").await, 1);
}

/// A session's own temporary objects are found before those of `public`, except by a function that says otherwise.
#[tokio::test]
async fn temporary_objects_do_not_stand_in_for_ours() {
    let (world, pool) = filled().await;
    let attacker = world.log.database().get().await.unwrap();
    for table in ["events", "streams", "seats", "users", "names", "idempotency_keys", "beacon"] {
        attacker.batch_execute(&format!("create temp table {table} (like public.{table})")).await.unwrap();
    }
    attacker
        .batch_execute(
            "create function pg_temp.standing(public.streams, timestamptz) returns text language sql as $$ select 'ok' $$;
             create function pg_temp.event_time(timestamptz) returns text language sql as $$ select 'never' $$;
             create function pg_temp.clock_timestamp() returns timestamptz language sql as $$ select 'epoch'::timestamptz $$;
             create function pg_temp.append_effects() returns void language sql as $$ select $$;
             insert into pg_temp.beacon values (true, now(), now(), 0);
             set search_path = pg_temp, public, pg_catalog",
        )
        .await
        .unwrap();
    let ada = holder("ada");
    let appended = EventLog::append_on(&attacker, &batch([pool.writes(2, [acquired(&ada)])])).await.unwrap();
    assert_eq!(appended.refused, []);
    let at = EventLog::tick_beacon_on(&attacker, std::time::Duration::from_secs(15)).await.unwrap();
    assert!(at >= appended.at);
    let rows = "select (select count(*) from pg_temp.events) + (select count(*) from pg_temp.streams)
                     + (select count(*) from pg_temp.seats)";
    assert_eq!(attacker.query_one(rows, &[]).await.unwrap().get::<_, i64>(0), 0);
    assert!(world.deadline(pool, &ada).await.unwrap() > appended.at);
    assert_eq!(world.version(pool.license_id.0).await, 3);

    // The pool refuses, whatever the attacker's `standing` says.
    world.switch_tenant(pool, false).await;
    let refused = EventLog::append_on(&attacker, &beats([pool.beat(&ada)])).await.unwrap().refused;
    assert!(matches!(refused[..], [events::Refused::TenantInactive { .. }]), "{refused:?}");
}

/// Each of them pins its path: one that forgot would be the way around.
#[tokio::test]
async fn every_function_with_the_owners_rights_pins_its_search_path() {
    let (world, _) = filled().await;
    let definers = "select count(*) from pg_proc where pronamespace = 'public'::regnamespace and prosecdef";
    assert!(world.number(definers).await >= 4, "they are found at all");
    let loose =
        format!("{definers} and not coalesce(proconfig @> '{{\"search_path=public, pg_temp\"}}', false)");
    assert_eq!(world.number(&loose).await, 0);
}
