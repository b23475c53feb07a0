//! Pools on real engines: batches, heartbeats beside them, supervision, replicas of one pool, the reaper.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::time::Duration;

use actors::{Answer, Reason};
use events::{LicenseChange, Seats, SessionEnd, Standing};
use futures_util::future::join_all;
use support::{World, eventually, request};

#[tokio::test]
async fn a_repeat_of_an_acquire_whose_session_has_ended_takes_no_seat() {
    let world = World::new().await;
    let (one, two) = (world.replica().await, world.replica().await);
    let (tenant_id, license_id) = one.tenant(5).await;
    one.join(tenant_id, "ada").await;
    let granted = one.granted(license_id, "ada").await;
    // The other replica has loaded the pool while the session lived, and does not know that it has ended.
    let renewed = two.repeat(license_id, "ada", granted.session_id).await;
    assert!(
        matches!(&renewed, Answer::Renewed(grant) if grant.session_id == granted.session_id),
        "{renewed:?}"
    );
    assert!(matches!(one.release(license_id, granted.session_id, "ada").await, Answer::Released));
    for replica in [&two, &one] {
        let answer = replica.repeat(license_id, "ada", granted.session_id).await;
        assert!(matches!(answer, Answer::NotHeld { end: Some(SessionEnd::Released) }), "{answer:?}");
    }
    let client = world.superuser().await;
    let row =
        client.query_one("select count(*) from seats where stream_id = $1", &[&license_id.0]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0, "nobody got a seat for it");
}

#[tokio::test]
async fn what_waits_is_decided_as_one_batch() {
    let world = World::new().await;
    let replica = world.replica().await;
    let (tenant_id, license_id) = replica.tenant(40).await;
    let users: Vec<_> = (0..100).map(|n| format!("user-{n}")).collect();
    join_all(users.iter().map(|user| replica.join(tenant_id, user))).await;
    let answers = join_all(users.iter().map(|user| replica.acquire(license_id, user))).await;
    let granted = answers.iter().filter(|answer| matches!(answer, Ok(Answer::Granted(_)))).count();
    let denied = answers
        .iter()
        .filter(|answer| {
            matches!(answer, Ok(Answer::Denied { reason: Reason::NoSeatsAvailable, used: 40, .. }))
        })
        .count();
    assert_eq!((granted, denied), (40, 60));
    // Far fewer transactions than events: they travelled together.
    let client = world.superuser().await;
    let row = client
        .query_one("select count(distinct xid), count(*) from events where stream_id = $1", &[&license_id.0])
        .await
        .unwrap();
    let (transactions, events): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(events, 101);
    assert!(transactions <= 20, "{transactions} transactions for {events} events");
}

#[tokio::test]
async fn a_pool_that_panics_is_started_again_from_the_log() {
    let world = World::new().await;
    let replica = world.replica().await;
    let (tenant_id, license_id) = replica.tenant(2).await;
    replica.join(tenant_id, "alice").await;
    replica.join(tenant_id, "bob").await;
    let held = replica.granted(license_id, "alice").await;

    replica.pools.panic_pool(license_id).await.unwrap();
    let caller = replica.acquire(license_id, "bob").await;
    assert!(caller.is_err(), "whoever was in the failed batch is told to come back: {caller:?}");
    eventually("a new actor", async || replica.acquire(license_id, "bob").await.is_ok()).await;
    let again = replica.granted(license_id, "alice").await;
    assert_eq!(again.session_id, held.session_id, "what was answered before is there");
    assert_eq!(again.used, 2);
}

#[tokio::test]
async fn a_pool_that_fails_again_and_again_rests() {
    let world = World::new().await;
    let replica = world.replica().await;
    let (tenant_id, license_id) = replica.tenant(2).await;
    replica.join(tenant_id, "alice").await;
    // Longer than all its back-offs together: whoever comes during one of them makes nothing fail.
    for _ in 0..60 {
        if replica.pools.panic_pool(license_id).await.is_ok() {
            let _ = replica.acquire(license_id, "alice").await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(replica.acquire(license_id, "alice").await.is_err(), "it rests for its whole window");
}

#[tokio::test]
async fn a_stale_replica_catches_up_before_it_answers() {
    let world = World::new().await;
    let (one, two) = (world.replica().await, world.replica().await);
    let (tenant_id, license_id) = one.tenant(1).await;
    one.join(tenant_id, "alice").await;
    one.join(tenant_id, "bob").await;
    let alice = one.granted(license_id, "alice").await;
    assert!(matches!(two.acquire(license_id, "bob").await, Ok(Answer::Denied { .. })));
    // `two` has folded the pool. What `one` does next it has not seen.
    assert!(matches!(one.release(license_id, alice.session_id, "alice").await, Answer::Released));
    assert!(matches!(two.acquire(license_id, "bob").await, Ok(Answer::Granted(_))));
    assert!(matches!(one.acquire(license_id, "alice").await, Ok(Answer::Denied { .. })));
    assert!(matches!(
        two.release(license_id, alice.session_id, "alice").await,
        Answer::NotHeld { end: Some(SessionEnd::Released) }
    ));
    assert!(matches!(
        two.heartbeat(license_id, alice.session_id, "alice").await,
        Answer::NotHeld { end: Some(SessionEnd::Released) }
    ));
}

/// The pool's row is held by somebody else: a decision waits for it, and a heartbeat does not wait for the decision.
#[tokio::test]
async fn a_heartbeat_does_not_wait_for_the_pools_decisions() {
    let world = World::new().await;
    let replica = world.replica().await;
    let (tenant_id, license_id) = replica.tenant(2).await;
    for user in ["alice", "bob"] {
        replica.join(tenant_id, user).await;
    }
    let alice = replica.granted(license_id, "alice").await;
    let busy = world.superuser().await;
    let lock = format!("begin; select from streams where stream_id = '{license_id}' for update");
    busy.batch_execute(&lock).await.unwrap();
    let deciding = replica.acquire(license_id, "bob");
    tokio::pin!(deciding);
    for _ in 0..5 {
        tokio::select! {
            biased;
            decided = &mut deciding => panic!("decided although its row is held: {decided:?}"),
            answer = replica.heartbeat(license_id, alice.session_id, "alice") => {
                assert!(matches!(answer, Answer::Alive { .. }), "{answer:?}");
            }
        }
    }
    busy.batch_execute("commit").await.unwrap();
    assert!(matches!(deciding.await, Ok(Answer::Granted(_))));
}

/// One seat's row is held by somebody else: its heartbeat waits, and as many others as are worth a statement do not.
#[tokio::test]
async fn many_heartbeats_do_not_wait_for_those_under_way() {
    let world = World::new().await;
    let replica = world.replica().await;
    let (tenant_id, license_id) = replica.tenant(40).await;
    let users: Vec<_> = (0..25).map(|number| format!("user-{number}")).collect();
    let mut seats = Vec::new();
    for user in &users {
        replica.join(tenant_id, user).await;
        seats.push((replica.granted(license_id, user).await.session_id, user));
    }
    let (held, user) = seats.pop().unwrap();
    let busy = world.superuser().await;
    let lock = format!("begin; select from seats where session_id = '{held}' for update");
    busy.batch_execute(&lock).await.unwrap();

    let waits = replica.heartbeat(license_id, held, user);
    tokio::pin!(waits);
    let others = async {
        until_a_lock_is_waited_for(&world.superuser().await).await;
        join_all(seats.iter().map(|(seat, user)| replica.heartbeat(license_id, *seat, user))).await
    };
    let answers = tokio::select! {
        biased;
        answer = &mut waits => panic!("answered although its row is held: {answer:?}"),
        answers = others => answers,
    };
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Alive { .. })), "{answers:?}");
    busy.batch_execute("commit").await.unwrap();
    assert!(matches!(waits.await, Answer::Alive { .. }));
}

/// A statement moves a seat once: what it wrote for the first answers the others.
#[tokio::test]
async fn heartbeats_of_one_session_at_a_time_share_one() {
    let world = World::new().await;
    let replica = world.replica().await;
    let (tenant_id, license_id) = replica.tenant(1).await;
    replica.join(tenant_id, "alice").await;
    let alice = replica.granted(license_id, "alice").await.session_id;
    let answers = join_all((0..10).map(|_| replica.heartbeat(license_id, alice, "alice"))).await;
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Alive { .. })), "{answers:?}");
    let count = "select count(*) from events where type = 'seat_heartbeat'";
    let written: i64 = world.superuser().await.query_one(count, &[]).await.unwrap().get(0);
    assert!((1..10).contains(&written), "{written} were written");
}

async fn until_a_lock_is_waited_for(client: &tokio_postgres::Client) {
    const WAITING: &str = "select count(*) from pg_stat_activity
                           where datname = current_database() and wait_event_type = 'Lock'";
    while client.query_one(WAITING, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Another replica's: it has never loaded the pool, and is asked for heartbeats alone.
#[tokio::test]
async fn a_switch_and_a_limit_hold_on_the_other_replica_at_once() {
    let world = World::new().await;
    let (one, two) = (world.replica().await, world.replica().await);
    let (tenant_id, license_id) = one.tenant(2).await;
    for user in ["alice", "bob", "carol"] {
        one.join(tenant_id, user).await;
    }
    let alice = one.granted(license_id, "alice").await;
    two.granted(license_id, "bob").await;

    let limit = LicenseChange { seats_total: Some(Seats::new(3).unwrap()), ..Default::default() };
    one.pools.change_license(license_id, limit, None, &request()).await.unwrap();
    assert!(matches!(two.acquire(license_id, "carol").await, Ok(Answer::Granted(_))));
    let lower = LicenseChange { seats_total: Some(Seats::new(1).unwrap()), ..Default::default() };
    two.pools.change_license(license_id, lower, None, &request()).await.unwrap();
    assert!(
        matches!(one.heartbeat(license_id, alice.session_id, "alice").await, Answer::Alive { .. }),
        "nobody is thrown out"
    );
    one.join(tenant_id, "dave").await;
    assert!(matches!(one.acquire(license_id, "dave").await, Ok(Answer::Denied { used: 3, .. })));

    let off = LicenseChange { active: Some(false), ..Default::default() };
    one.pools.change_license(license_id, off, None, &request()).await.unwrap();
    let inactive = Standing::LicenseInactive;
    assert!(
        matches!(two.heartbeat(license_id, alice.session_id, "alice").await, Answer::NotAccepted(s) if s == inactive)
    );
    assert!(matches!(
        two.acquire(license_id, "alice").await,
        Ok(Answer::Denied { reason: Reason::Standing(Standing::LicenseInactive), .. })
    ));

    let on = LicenseChange { active: Some(true), ..Default::default() };
    two.pools.change_license(license_id, on, None, &request()).await.unwrap();
    let change = events::TenantChange { active: Some(false), ..Default::default() };
    one.tenants.change(tenant_id, change, None, None).await.unwrap().unwrap();
    assert!(matches!(
        two.heartbeat(license_id, alice.session_id, "alice").await,
        Answer::NotAccepted(Standing::TenantInactive)
    ));
    assert!(matches!(
        two.acquire(license_id, "alice").await,
        Ok(Answer::Denied { reason: Reason::Standing(Standing::TenantInactive), .. })
    ));
    assert!(
        matches!(two.release(license_id, alice.session_id, "alice").await, Answer::Released),
        "a release always goes"
    );
}

#[tokio::test]
async fn seats_change_while_users_arrive_and_the_tenant_says_the_same() {
    let world = World::new().await;
    let (one, two) = (world.replica().await, world.replica().await);
    let (tenant_id, license_id) = one.tenant(1).await;
    // Each user who arrives at the other replica moves the tenant's stream, on which the change is conditional too.
    let arrivals = async {
        for n in 0..300 {
            two.join(tenant_id, &format!("user-{n}")).await;
        }
    };
    let changes = async {
        for seats in 2..=50 {
            let change =
                LicenseChange { seats_total: Some(Seats::new(seats).unwrap()), ..Default::default() };
            let answer = one.pools.change_license(license_id, change, None, &request()).await.unwrap();
            assert!(matches!(answer, Answer::Changed { .. }), "{seats} seats: {answer:?}");
            let tenant = two.tenants.tenant(tenant_id).await.unwrap().unwrap();
            assert_eq!(i64::from(tenant.terms.max_seats.get()), seats);
        }
    };
    futures_util::join!(arrivals, changes);
}

#[tokio::test]
async fn lapsed_sessions_end_by_the_timer_and_by_the_reaper() {
    let world = World::new().await;
    let ttl = Duration::from_secs(1);
    let one = world.replica_with(&world.redis_url, ttl).await;
    let (tenant_id, license_id) = one.tenant(2).await;
    one.join(tenant_id, "alice").await;
    let alice = one.granted(license_id, "alice").await;
    eventually("the timer", async || {
        one.log.session_end(alice.session_id).await.unwrap() == Some(SessionEnd::Expired)
    })
    .await;

    let again = one.granted(license_id, "alice").await;
    one.pools.stop().await;
    // No actor of this pool lives any more; a replica that never heard of it reaps.
    let two = world.replica_with(&world.redis_url, ttl).await;
    let reaper = tokio::spawn(actors::reap(two.pools.clone()));
    eventually("the reaper", async || {
        two.log.session_end(again.session_id).await.unwrap() == Some(SessionEnd::Expired)
    })
    .await;
    reaper.abort();
}

#[tokio::test]
async fn a_replica_that_missed_a_grant_ends_it_for_the_reaper() {
    let world = World::new().await;
    let ttl = Duration::from_millis(900);
    let (one, two) =
        (world.replica_with(&world.redis_url, ttl).await, world.replica_with(&world.redis_url, ttl).await);
    let (tenant_id, license_id) = one.tenant(2).await;
    one.join(tenant_id, "alice").await;
    one.granted(license_id, "alice").await;
    // `two` has folded the pool; then `one` grants again and dies, with its timer.
    assert!(matches!(two.acquire(license_id, "alice").await, Ok(Answer::Renewed(_))));
    one.join(tenant_id, "bob").await;
    one.granted(license_id, "bob").await;
    one.pools.stop().await;
    one.pools.writer().stop();

    let reaper = tokio::spawn(actors::reap(two.pools.clone()));
    eventually("nobody's seat to be free", async || two.log.count_seats().await.unwrap() == 0).await;
    reaper.abort();
}

#[tokio::test]
async fn a_snapshot_shortens_loading_and_changes_nothing() {
    let world = World::new().await;
    let replica = world.replica().await;
    let (tenant_id, license_id) = replica.tenant(5).await;
    let users: Vec<_> = (0..5).map(|n| format!("user-{n}")).collect();
    for user in &users {
        replica.join(tenant_id, user).await;
    }
    for _ in 0..120 {
        let grants = join_all(users.iter().map(|user| replica.granted(license_id, user))).await;
        let release = async |grant: &actors::Grant| {
            replica.release(license_id, grant.session_id, grant.user_id.as_str()).await
        };
        join_all(grants.iter().map(release)).await;
    }
    let held = replica.granted(license_id, "user-0").await;
    eventually("a snapshot", async || replica.log.snapshot(license_id.0).await.unwrap().is_some()).await;
    let snapshot = replica.log.snapshot(license_id.0).await.unwrap().unwrap();
    assert!(snapshot.version >= 1_000);
    let other = world.replica().await;
    assert_eq!(other.granted(license_id, "user-0").await.session_id, held.session_id);
    let mut from_events = actors::PoolState::new(license_id, tenant_id);
    for recorded in replica.log.decisions(license_id.0).await.unwrap() {
        from_events.apply(&recorded.subject, &recorded.event, recorded.occurred_at);
    }
    assert_eq!(from_events.used(), 1);
}

#[tokio::test]
async fn many_new_users_join_at_once_through_two_replicas() {
    let world = World::new().await;
    let (one, two) = (world.replica().await, world.replica().await);
    let (tenant_id, _) = one.tenant(1).await;
    join_all((0..200).map(|n| {
        let replica = if n % 2 == 0 { &one } else { &two };
        async move { replica.join(tenant_id, &format!("user-{}", n / 4)).await }
    }))
    .await;
    let added = one.log.decisions(tenant_id.0).await.unwrap();
    let added = added.iter().filter(|recorded| recorded.event.name() == "user_added").count();
    assert_eq!(added, 50, "each once");
}

/// A log that was restored without its snapshots, say.
#[tokio::test]
async fn a_long_log_without_a_snapshot_is_loaded_as_a_fold_would_give_it() {
    let world = World::new().await;
    let replica = world.replica().await;
    let (tenant_id, license_id) = replica.tenant(5).await;
    for user in ["ada", "bob", "eve"] {
        replica.join(tenant_id, user).await;
    }
    let (early, ended) = (replica.granted(license_id, "ada").await, replica.granted(license_id, "bob").await);
    replica.release(license_id, ended.session_id, "bob").await;
    let version = replica.log.stream_head(license_id.0).await.unwrap().unwrap().version;
    let superuser = world.superuser().await;
    superuser
        .batch_execute(&format!(
            "with made as (
               select n, gen_random_uuid() as session_id from generate_series(1, 6000) n
             ), told as (
               select session_id, {version} + 2 * n - 1 as version, 'seat_acquired' as type,
                 jsonb_build_object('seats_used', 2, 'seats_total', 5, 'deadline', event_time(now()), 'machine_name', null) as data
               from made
               union all select session_id, {version} + 2 * n, 'seat_released', '{{}}' from made
             )
             insert into events (class, event_id, tenant_id, stream_id, version, type, format, session_id, user_id, hardware_id,
                                 occurred_at, data)
             select 'decision', gen_random_uuid(), '{tenant_id}', '{license_id}', version, type, 1, session_id, 'bob',
               'machine-of-bob', date_trunc('milliseconds', clock_timestamp()), data
             from told order by version;
             update streams set version = version + 12000, last_at = date_trunc('milliseconds', clock_timestamp())
             where stream_id = '{license_id}';
             delete from snapshots",
        ))
        .await
        .unwrap();

    let other = world.replica().await;
    let late = other.granted(license_id, "eve").await;
    assert_eq!((late.used, late.total.get()), (2, 5));
    assert_eq!(
        other.granted(license_id, "ada").await.session_id,
        early.session_id,
        "it holds its seat still"
    );
    assert!(matches!(other.heartbeat(license_id, early.session_id, "ada").await, Answer::Alive { .. }));
    other.release(license_id, early.session_id, "ada").await;
    let mut folded = actors::PoolState::new(license_id, tenant_id);
    for recorded in other.log.decisions(license_id.0).await.unwrap() {
        folded.apply(&recorded.subject, &recorded.event, recorded.occurred_at);
    }
    let head = other.log.stream_head(license_id.0).await.unwrap().unwrap().version;
    assert_eq!((folded.version, folded.used()), (head, 1), "what was written fits what a fold gives");
}
