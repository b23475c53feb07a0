//! One replica folds; when it dies, is frozen or hangs, another goes on; and whoever folds, nothing is folded twice.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::time::Duration;

use events::SessionId;
use projections::{Bucket, UsageRange};
use support::{Pool, World, at, time};

const PATIENCE: Duration = Duration::from_secs(30);

async fn acquires(world: &World, pool: Pool, count: i64, start: i64) {
    for n in 0..count {
        world.tell(&[pool.acquired(SessionId::mint(), "ada", at(start + n))]).await;
    }
}

async fn acquired(world: &World, pool: Pool) -> i64 {
    let range = UsageRange {
        bucket: Bucket::Day,
        from: time("2026-03-01T00:00:00Z"),
        to: time("2026-03-02T00:00:00Z"),
        license_id: Some(pool.license_id),
    };
    world.models.settled().await.unwrap();
    world.models.usage(pool.tenant_id, &range).await.unwrap().items().map(|one| one.acquired).sum()
}

/// What a runner leaves behind that is stopped in the middle of a page: the lease, and a transaction with the cursors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_runner_holds_nobody_up() {
    let world = World::new().await;
    let pool = world.pool(100, time("2026-03-01T08:00:00Z")).await;
    world.fold(100).await;
    let frozen = world.owner().await;
    frozen
        .batch_execute(
            "set role license_service;
             insert into projection_lease (holder, until) values (gen_random_uuid(), clock_timestamp() + interval '2.5 s');
             begin;
             set local idle_in_transaction_session_timeout = 2000;
             select from projection_cursors for update;",
        )
        .await
        .unwrap();
    acquires(&world, pool, 5, time("2026-03-01T09:00:00Z").millis()).await;
    let other = tokio::spawn(projections::run(world.log.clone()));
    assert!(world.models.caught_up(PATIENCE).await.unwrap(), "another goes on");
    assert_eq!(acquired(&world, pool).await, 5);
    assert!(frozen.batch_execute("commit").await.is_err(), "Postgres has ended the frozen one");
    other.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runners_that_are_killed_and_race_fold_everything_once() {
    let world = World::new().await;
    let pool = world.pool(1_000, time("2026-03-01T08:00:00Z")).await;
    let grows = acquires(&world, pool, 150, time("2026-03-01T09:00:00Z").millis());
    let races = async {
        // Without a lease, several at once: the cursor alone decides.
        for size in [1, 3, 50].into_iter().cycle().take(40) {
            let two = [projections::fold_all(&world.log, size), projections::fold_all(&world.log, 7)];
            let [one, two] = two.map(|fold| tokio::time::timeout(Duration::from_millis(9), fold));
            let _ = tokio::join!(one, two);
        }
    };
    tokio::join!(grows, races);
    world.fold(100).await;
    assert_eq!(acquired(&world, pool).await, 150);
}
