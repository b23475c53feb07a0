//! Schema `analytics`: an analyst sees its own tenant, and nothing of anybody else's by any way that we could think of.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

mod support;

use events::{SessionId, TenantId};
use projections::{NewLogin, create_login, drop_login, list_logins, rotate_login};
use support::{Pool, World, at, connect};
use tokio_postgres::Client;

const VIEWS: [&str; 8] = [
    "tenant",
    "licenses",
    "license_limits",
    "sessions",
    "denials",
    "usage_minute",
    "usage_hour",
    "usage_day",
];

struct Two {
    world: World,
    own: Pool,
    other: Pool,
    login: NewLogin,
}

/// Two tenants with a history each, and a login of the first.
async fn two() -> Two {
    let world = World::new().await;
    let now = chrono::Utc::now().timestamp_millis();
    let minutes_ago = |minutes: i64| at(now - minutes * 60_000);
    let start = minutes_ago(4_000);
    let (own, other) = (world.pool(2, start).await, world.pool(2, start).await);
    for (pool, user) in [(own, "ada"), (other, "secret-user")] {
        let (one, two) = (SessionId::mint(), SessionId::mint());
        world
            .tell(&[
                pool.acquired(one, user, minutes_ago(3_000)),
                pool.denied(user, minutes_ago(2_999)),
                pool.released(one, user, minutes_ago(2_970)),
                pool.acquired(two, user, minutes_ago(1_500)),
            ])
            .await;
    }
    world.fold(100).await;
    let login = create_login(&mut world.owner().await, own.tenant_id).await.unwrap();
    Two { world, own, other, login }
}

impl Two {
    /// The test's unix socket asks nobody for a password.
    async fn analyst(&self) -> Client {
        connect(&self.world.database.url().replace("coditect@", &format!("{}@", self.login.login))).await
    }
}

impl Drop for Two {
    /// Roles belong to the whole cluster, and outlive the test's database.
    fn drop(&mut self) {
        let (url, login) = (self.world.database.superuser_url(), self.login.login.clone());
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let _ = connect(&url).await.batch_execute(&format!("drop role if exists {login}")).await;
            });
        });
        let _ = ended.join();
    }
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
}

#[tokio::test]
async fn every_view_shows_the_own_tenant_and_nobody_elses() {
    let two = two().await;
    let analyst = two.analyst().await;
    for view in VIEWS {
        let rows =
            text(&analyst, &format!("select string_agg(to_jsonb(v)::text, ' ') from analytics.{view} v"))
                .await;
        assert!(!rows.is_empty(), "{view} shows something");
        for secret in ["secret-user", &two.other.tenant_id.to_string(), &two.other.license_id.to_string()] {
            assert!(!rows.contains(secret), "{view} shows {secret}");
        }
        let all: i64 = two
            .world
            .superuser()
            .await
            .query_one(&format!("select count(*) from analytics.{view}"), &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(all, 0, "a login that is nobody's is shown nothing of {view}");
    }
}

/// What must fail, whatever the wording: tables, functions, roles, settings.
#[tokio::test]
async fn no_way_around_the_views() {
    let two = two().await;
    let analyst = two.analyst().await;
    let other = two.other.tenant_id;
    let forbidden = [
        "select * from public.events".to_owned(),
        "select * from public.sessions_view".to_owned(),
        "select * from public.seats".to_owned(),
        "select * from public.users".to_owned(),
        "select * from public.analyst_logins".to_owned(),
        "select * from pg_authid".to_owned(),
        "select pg_read_file('/etc/passwd')".to_owned(),
        "set role license_service".to_owned(),
        "set role coditect".to_owned(),
        "set session authorization coditect".to_owned(),
        format!("update analytics.tenant set name = 'x' where tenant_id = '{other}'"),
        "insert into analytics.denials (event_id) values (gen_random_uuid())".to_owned(),
        "create table analytics.mine (n int)".to_owned(),
        "create table public.mine (n int)".to_owned(),
        "create temporary table mine (n int)".to_owned(),
        "create or replace view analytics.tenant as select 1".to_owned(),
        "create function analytics.tenant_id(int) returns uuid language sql as 'select null::uuid'"
            .to_owned(),
        format!(
            "select public.append_effects(now(), '{{{other}}}', null, null, null, null, null, null, null, null, null, null)"
        ),
        "select public.switch_rebuild('activity')".to_owned(),
        "select public.forget_idempotency_keys(24)".to_owned(),
        "select public.ensure_heartbeat_partitions(3)".to_owned(),
        "copy (select 1) to program 'id'".to_owned(),
        "create extension dblink".to_owned(),
        "alter role current_user superuser".to_owned(),
    ];
    // A session may turn its own read-only setting off: rights do not rest on it.
    analyst.batch_execute("set default_transaction_read_only = off").await.unwrap();
    for sql in forbidden {
        let refused = analyst.batch_execute(&sql).await;
        assert!(refused.is_err(), "allowed: {sql}");
    }
    // A search path of one's own redirects nothing in the views or in their function.
    analyst.batch_execute("set search_path = pg_temp, pg_catalog, public").await.unwrap();
    let seen = text(&analyst, "select string_agg(user_id, ',') from analytics.sessions").await;
    assert_eq!(seen, "ada,ada");
    let me = text(&analyst, "select analytics.tenant_id()::text").await;
    assert_eq!(me, two.own.tenant_id.to_string());
    // Statistics and other people's statements stay hidden.
    for sql in [
        "select string_agg(most_common_vals::text || histogram_bounds::text, ' ') from pg_stats where schemaname = 'public'",
        "select string_agg(query, ' ') from pg_stat_activity where usename <> session_user and query not like '<insufficient%'",
    ] {
        assert_eq!(text(&analyst, sql).await, "", "{sql}");
    }
}

/// A cheap function in a condition would be called before the view's own condition, were the view no barrier.
#[tokio::test]
async fn a_leaky_condition_is_shown_no_foreign_row() {
    let two = two().await;
    // An analyst cannot make a function; an operator might make one for them.
    two.world
        .superuser()
        .await
        .batch_execute(
            "create function analytics.tell(t text) returns boolean language plpgsql cost 0.0000001 as $$
             begin raise exception 'told: %', t; end $$;
             grant execute on function analytics.tell to public",
        )
        .await
        .unwrap();
    let analyst = two.analyst().await;
    for sql in [
        "select * from analytics.sessions where user_id <> 'ada' and analytics.tell(user_id)",
        "select * from analytics.denials where user_id <> 'ada' and analytics.tell(user_id)",
        "select * from analytics.sessions where user_id <> 'ada' and 1 / (length(user_id) - 11) = 0",
        "explain (analyze, verbose) select * from analytics.sessions where user_id <> 'ada' and user_id::int = 1",
    ] {
        analyst.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

#[tokio::test]
async fn every_view_and_column_says_what_it_is() {
    let world = World::new().await;
    let silent = "select string_agg(c.relname || '.' || a.attname, ', ') from pg_class c
                  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
                  where c.relnamespace = 'analytics'::regnamespace
                    and (col_description(c.oid, a.attnum) is null or obj_description(c.oid) is null)";
    assert_eq!(text(&world.superuser().await, silent).await, "");
    let loose =
        "select string_agg(relname, ', ') from pg_class where relnamespace = 'analytics'::regnamespace
                 and not coalesce(reloptions @> '{security_barrier=true}', false)";
    assert_eq!(text(&world.superuser().await, loose).await, "");
}

/// The documentation's examples, as they stand there.
#[tokio::test]
async fn the_example_queries_run() {
    let two = two().await;
    let analyst = two.analyst().await;
    let document = include_str!("../../docs/analytics.md");
    let queries: Vec<_> =
        document.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(queries.len() >= 4);
    for query in queries {
        let rows = analyst.query(query, &[]).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
        if query.contains("never_used") {
            assert_eq!(rows[0].get::<_, i64>("never_used"), 1, "two seats, one ever used");
        }
        if query.contains("count(distinct user_id) as users") {
            assert_eq!(rows.len(), 1);
        }
    }
}

#[tokio::test]
async fn logins_are_rotated_listed_and_end() {
    let two = two().await;
    let mut owner = two.world.owner().await;
    let stored = format!("select rolpassword from pg_authid where rolname = '{}'", two.login.login);
    let superuser = two.world.superuser().await;
    let first = text(&superuser, &stored).await;
    assert!(first.starts_with("SCRAM-SHA-256$") && two.login.password.len() >= 40);
    let rotated = rotate_login(&mut owner, &two.login.login).await.unwrap();
    assert_ne!(rotated.password, two.login.password);
    assert_ne!(text(&superuser, &stored).await, first);
    let listed = list_logins(&owner, Some(two.own.tenant_id)).await.unwrap();
    assert!(listed.len() == 1 && listed[0].rotated_at.is_some(), "{listed:?}");
    assert_eq!(list_logins(&owner, Some(two.other.tenant_id)).await.unwrap(), []);

    let analyst = two.analyst().await;
    drop_login(&mut owner, &two.login.login).await.unwrap();
    // A connection that is still open is shown nothing any more.
    assert!(
        analyst.query("select * from analytics.sessions", &[]).await.map_or(true, |rows| rows.is_empty())
    );
    for unknown in [two.login.login.as_str(), "coditect", "analyst_x; drop table events"] {
        assert!(rotate_login(&mut owner, unknown).await.is_err());
        assert!(drop_login(&mut owner, unknown).await.is_err());
    }
    assert!(create_login(&mut owner, TenantId::mint()).await.is_err());
}

/// Postgres lets every login take a transaction's id, and readers of the log wait for all that have one.
#[tokio::test]
async fn an_analyst_holds_nobody_up() {
    let two = two().await;
    let analyst = two.analyst().await;
    let take_an_id = "set idle_in_transaction_session_timeout = 0; begin; select pg_current_xact_id()";
    analyst.batch_execute(take_an_id).await.unwrap();
    let running = tokio::spawn(projections::run(two.world.log.clone()));
    let session = SessionId::mint();
    let now = at(chrono::Utc::now().timestamp_millis());
    two.world.tell(&[two.other.acquired(session, "secret-user", now)]).await;
    assert!(two.world.models.caught_up(std::time::Duration::from_secs(10)).await.unwrap());
    running.abort();
    assert!(analyst.simple_query("select 1").await.is_err(), "its connection was ended");
    assert_eq!(text(&two.analyst().await, "select count(*)::text from analytics.tenant").await, "1");
}
