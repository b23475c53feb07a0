//! A rebuild: what is read stays readable, what comes of it is the same, and being killed only makes it begin where it was.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::time::Duration;

use events::SessionId;
use projections::{Rebuilt, SessionFilter, rebuild};
use serde_json::json;
use support::{Pool, World, at, time};

const TABLES: [&str; 7] = [
    "tenants_view",
    "licenses_view",
    "license_limits",
    "sessions_view",
    "denials_view",
    "usage_buckets",
    "usage_users",
];

/// Every row of the read models, as text.
async fn everything(world: &World) -> String {
    let selects =
        TABLES.map(|table| format!("select '{table} ' || to_jsonb(t)::text as line from {table} t"));
    let sql =
        format!("select string_agg(line, E'\\n' order by line) from ({}) rows", selects.join(" union all "));
    world.superuser().await.query_one(&sql, &[]).await.unwrap().get(0)
}

async fn sessions(world: &World, pool: Pool, count: i64, start: i64) {
    for n in 0..count {
        let session = SessionId::mint();
        let begin = start + n * 61_000;
        let acquired = pool.acquired(session, "ada", at(begin));
        let denied = pool.denied("bob", at(begin + 1));
        world.tell(&[acquired, denied, pool.released(session, "ada", at(begin + 40_000))]).await;
    }
}

#[tokio::test]
async fn damaged_tables_come_back_as_they_were() {
    let world = World::new().await;
    let pool = world.pool(3, time("2026-03-01T08:00:00Z")).await;
    sessions(&world, pool, 20, time("2026-03-01T09:00:00Z").millis()).await;
    world.fold(7).await;
    let before = everything(&world).await;
    let owner = world.owner().await;
    owner.batch_execute("create view watched as select count(*) as n from sessions_view").await.unwrap();
    owner
        .batch_execute(
            "delete from sessions_view where ended is not null; update usage_buckets set peak = 99;
             truncate usage_users, denials_view; delete from licenses_view; update tenants_view set name = 'wrong'",
        )
        .await
        .unwrap();
    for name in ["usage", "tenants"] {
        let rebuilt = rebuild(&world.log, name, false).await.unwrap();
        assert!(matches!(rebuilt, Rebuilt::Switched { resumed: false, pages: 1.., .. }), "{rebuilt:?}");
    }
    assert_eq!(everything(&world).await, before);
    // A view over a table shows the new one.
    assert_eq!(owner.query_one("select n from watched", &[]).await.unwrap().get::<_, i64>(0), 20);
    // And the fold goes on from there.
    sessions(&world, pool, 3, time("2026-03-02T09:00:00Z").millis()).await;
    world.fold(100).await;
    let rows = world.models.sessions(pool.tenant_id, &SessionFilter::default(), None, 100).await.unwrap();
    assert_eq!(rows.items.len(), 23);
    let left: i64 = owner
        .query_one("select count(*) from pg_class where relname ~ '_(next|old)$'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 0, "no table is left over");
    assert!(rebuild(&world.log, "users; drop table events", false).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_while_the_log_grows_it_ends_with_the_same_rows() {
    let world = World::new().await;
    let pool = world.pool(3, time("2026-03-01T08:00:00Z")).await;
    sessions(&world, pool, 30, time("2026-03-01T09:00:00Z").millis()).await;
    let runner = tokio::spawn(projections::run(world.log.clone()));
    let grows = sessions(&world, pool, 40, time("2026-03-02T09:00:00Z").millis());
    let rebuilds = async {
        let mut patience = Duration::from_millis(3);
        let mut killed = 0;
        while tokio::time::timeout(patience, rebuild(&world.log, "activity", false)).await.is_err() {
            patience *= 2;
            killed += 1;
        }
        killed
    };
    let ((), killed) = tokio::join!(grows, rebuilds);
    assert!(killed > 0, "it was killed at least once");
    assert!(world.models.caught_up(Duration::from_secs(20)).await.unwrap());
    runner.abort();
    let live = everything(&world).await;
    rebuild(&world.log, "activity", true).await.unwrap();
    assert_eq!(everything(&world).await, live);
}

#[tokio::test]
async fn users_come_back_as_the_log_has_them() {
    let world = World::new().await;
    let pool = world.pool(3, time("2026-03-01T08:00:00Z")).await;
    let at = |n: i64| at(time("2026-03-01T09:00:00Z").millis() + n);
    let (add, change) = ("user_added", "user_updated");
    world
        .tell(&[
            pool.user(add, "ada", at(0), json!({"email": "ada@example.com", "roles": [], "reason": "admin"})),
            pool.user(add, "bob", at(1), json!({"email": null, "roles": ["analyst"], "reason": "admin"})),
            pool.user(add, "eve", at(2), json!({"email": null, "roles": [], "reason": "first_acquire"})),
            pool.user(change, "ada", at(3), json!({"roles": ["tenant_admin", "auditor"]})),
            pool.user(change, "bob", at(4), json!({"email": "bob@example.com"})),
            pool.user("user_removed", "eve", at(5), json!({})),
            pool.user("user_removed", "bob", at(6), json!({})),
            pool.user(add, "bob", at(7), json!({"email": null, "roles": [], "reason": "admin"})),
        ])
        .await;
    let all = async || -> Vec<String> {
        let sql = "select concat_ws(' ', user_id, coalesce(email, '-'), roles::text, removed) from users order by user_id";
        world.superuser().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let mended = |users| Rebuilt::Mended { tenants: 1, users };
    let expected = ["ada ada@example.com {tenant_admin,auditor} f", "bob - {} f", "eve - {} t"];
    assert_eq!(rebuild(&world.log, "users", false).await.unwrap(), mended(3));
    assert_eq!(all().await, expected);
    assert_eq!(rebuild(&world.log, "users", false).await.unwrap(), mended(0));
    world
        .superuser()
        .await
        .batch_execute(
            "update users set roles = '{}' where user_id = 'ada'; delete from users where user_id = 'bob';
             insert into users select tenant_id, 'mallory', null, '{}', false, now(), now() from users where user_id = 'ada'",
        )
        .await
        .unwrap();
    assert_eq!(rebuild(&world.log, "users", false).await.unwrap(), mended(3));
    assert_eq!(all().await, expected);
}
