//! A pool as it was, with sessions that began long before: found by the read model, believed by the log.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::time::Duration;

use events::{SessionId, Time};
use support::{Pool, World, time};

/// Sessions that come and go, one at a time, while others last.
const CHURN: i64 = 12_000;

/// `CHURN` sessions of a second each from `from` on, beside `beside` others.
async fn churn(world: &World, pool: Pool, from: Time, beside: i64) {
    let (tenant, license) = (pool.tenant_id, pool.license_id);
    let sql = format!(
        "with head as (select version from streams where stream_id = '{license}'),
         made as (select n, gen_random_uuid() as session_id, '{from}'::timestamptz + n * interval '1 s' as at
                  from generate_series(1, {CHURN}) n),
         told as (
           select session_id, version + 2 * n - 1 as version, 'seat_acquired' as type, at,
             jsonb_build_object('seats_used', {beside} + 1, 'seats_total', 9, 'deadline', event_time(at), 'machine_name', null) as data
           from made, head
           union all select session_id, version + 2 * n, 'seat_released', at + interval '0.5 s', '{{}}' from made, head)
         insert into events (class, event_id, tenant_id, stream_id, version, type, format, session_id, user_id, hardware_id,
                             occurred_at, data)
         select 'decision', gen_random_uuid(), '{tenant}', '{license}', version, type, 1, session_id, 'mel', 'machine-of-mel', at, data
         from told order by version;
         update streams set version = version + 2 * {CHURN} where stream_id = '{license}'"
    );
    world.superuser().await.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn sessions_from_long_ago_are_part_of_it() {
    let world = World::new().await;
    let pool = world.pool(9, time("2026-03-01T08:00:00Z")).await;
    let long = |user: &str, used: i64| {
        let at = time("2026-03-01T08:30:00Z").after(Duration::from_secs(used.unsigned_abs()));
        let mut told = pool.acquired(SessionId::mint(), user, at);
        told.data["seats_used"] = used.into();
        told
    };
    let all = ["ada", "bob", "eve"].map(str::to_owned);
    let held: Vec<_> = all.iter().zip(1..).map(|(user, used)| long(user, used)).collect();
    world.tell(&held).await;
    churn(&world, pool, time("2026-03-01T09:00:00Z"), 3).await;
    let eve = SessionId(held[2].session_id.unwrap());
    world.tell(&[pool.released(eve, "eve", time("2026-03-01T13:00:00Z"))]).await;
    churn(&world, pool, time("2026-03-01T14:00:00Z"), 2).await;

    let who = async |at: &str| -> Vec<String> {
        let was = world.log.pool_at(pool.license_id, time(at)).await.unwrap().unwrap();
        was.sessions.iter().map(|session| session.user_id.as_str().to_owned()).collect()
    };
    let right = async || {
        assert_eq!(who("2026-03-01T12:59:59Z").await, all);
        assert_eq!(who("2026-03-01T13:00:00Z").await, all[..2]);
        assert_eq!(who("2026-03-01T18:00:00Z").await, all[..2]);
    };
    right().await;
    world.fold(20_000).await;
    right().await;
    // What the read model says is a hint and no more.
    for damage in [
        "update sessions_view set ended_at = started_at where user_id = 'ada'",
        "update sessions_view set ended_at = null where user_id in ('ada', 'eve', 'mel')",
        "delete from sessions_view",
    ] {
        world.superuser().await.batch_execute(damage).await.unwrap();
        right().await;
    }
}
