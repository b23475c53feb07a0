//! What is sent again, or by many at once, is written once.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

mod support;

use events::{Batch, EventLog, LogError, Refused};
use futures_util::future::join_all;
use support::{
    Pool, World, acquired, again, batch, beats, connect, denied, holder, license_terms, released, whole,
    with_key,
};

fn founding(name: &str) -> (Pool, Batch) {
    let pool = Pool { tenant_id: events::TenantId::mint(), license_id: events::LicenseId::mint() };
    let names =
        vec![pool.claims("identity_tenant", &pool.tenant_id.to_string()), pool.claims("subdomain", name)];
    (pool, Batch { names, ..whole([pool.creates_tenant(), pool.issues(license_terms())]) })
}

#[tokio::test]
async fn a_resent_decision_is_known_and_writes_nothing_twice() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = holder("ada");
    let grant = batch([pool.writes(1, [with_key(acquired(&ada), "key")])]);
    let already = Refused::Already { stream: pool.license_id.0, at: world.write(&grant).await.at };

    let before = world.everything().await;
    assert_eq!(world.append(&grant).await.refused, std::slice::from_ref(&already));
    assert_eq!(world.everything().await, before);

    // The session ended meanwhile: the resend must not raise it.
    let release = batch([pool.writes(2, [with_key(released(&ada), "key")])]);
    let gone = Refused::Already { stream: pool.license_id.0, at: world.write(&release).await.at };
    let before = world.everything().await;
    assert_eq!(world.append(&grant).await.refused, [already]);
    assert_eq!(world.append(&release).await.refused, [gone]);
    assert_eq!(world.everything().await, before);
    assert_eq!(world.deadline(pool, &ada).await, None);
}

#[tokio::test]
async fn a_resent_denial_is_not_written_twice() {
    let world = World::new().await;
    let pool = world.pool().await;
    let denial = batch([pool.writes(1, [denied(&holder("bob"))])]);
    let first = world.write(&denial).await;
    let before = world.everything().await;
    world.write(&again(&denial)).await;
    assert_eq!(world.everything().await, before);

    world.seat(pool, "ada").await;
    let before = world.everything().await;
    let resent = world.append(&again(&denial)).await;
    assert_eq!(resent.refused, [Refused::Already { stream: pool.license_id.0, at: first.at }]);
    assert_eq!(world.everything().await, before);
}

#[tokio::test]
async fn a_resent_heartbeat_is_not_written_twice() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let beat = beats([pool.beat(&ada)]);
    let at = world.write(&beat).await.at;
    let known = [Refused::Written { session: ada.session_id, at }];
    // It is answered with its own time, and the seat stays as it was.
    let before = world.everything().await;
    assert_eq!(world.append(&again(&beat)).await.refused, known);
    assert_eq!(world.everything().await, before);

    // The session ended meanwhile: what was answered stays answered.
    world.write(&batch([pool.writes(2, [released(&ada)])])).await;
    let before = world.everything().await;
    let resent = world.append(&again(&beat)).await;
    assert_eq!(resent.refused, known);
    assert_eq!(resent.heartbeat(ada.session_id), Ok(at));
    assert_eq!(world.everything().await, before);
    let late = world.append(&beats([pool.beat(&ada)])).await;
    assert_eq!(late.refused, [Refused::Missing { session: ada.session_id }]);
}

#[tokio::test]
async fn a_first_heartbeat_that_arrives_after_its_repetition_moves_nothing() {
    let world = World::new().await;
    let pool = world.pool().await;
    let (ada, bob) = (world.seat(pool, "ada").await, world.seat(pool, "bob").await);
    let beat = beats([pool.beat(&ada), pool.beat(&bob)]);
    assert_eq!(world.append(&again(&beat)).await.refused, []);
    let before = world.everything().await;
    assert!(world.log.append(&beat).await.is_err(), "nobody waits for it any more");
    assert_eq!(world.everything().await, before);
}

/// A replica of schema version 9 sends the same twice in a rollout: it is told what it understands.
#[tokio::test]
async fn a_program_of_the_version_before_repeats_a_heartbeat_and_understands_the_answer() {
    let world = World::new().await;
    let pool = world.pool().await;
    let (ada, beat) = (world.seat(pool, "ada").await, uuid::Uuid::now_v7());
    let empty = [
        ("uuid", 2),
        ("text", 1),
        ("bigint", 1),
        ("text", 1),
        ("uuid", 2),
        ("text", 1),
        ("smallint", 1),
        ("uuid", 1),
        ("text", 3),
        ("jsonb", 1),
        ("text", 1),
        ("bytea", 1),
        ("boolean", 1),
        ("uuid", 1),
        ("text", 2),
        ("boolean", 1),
    ];
    let empty: String = empty.map(|(kind, count)| format!("'{{}}'::{kind}[], ").repeat(count)).concat();
    let (pool_id, session, gone) = (pool.license_id, ada.session_id, uuid::Uuid::now_v7());
    let sql = format!(
        "select refused from append(false, 60000, {empty} array['{beat}'::uuid, '{gone}'],
           array['{pool_id}'::uuid, '{pool_id}'], array['{session}'::uuid, '{gone}'], array['{user}', '{user}'],
           array['r', 'r'], array[null, null]::text[], array[null, null]::bytea[])",
        user = ada.user_id
    );
    let client = world.service().await;
    for _ in 0..2 {
        let refused: serde_json::Value = client.query_one(&sql, &[]).await.unwrap().get(0);
        let whys: Vec<_> =
            refused.as_array().unwrap().iter().map(|one| one["why"].as_str().unwrap()).collect();
        assert_eq!(whys, ["missing"], "of the session that is not there, and nothing of the other");
    }
    assert_eq!(world.number("select count(*) from events_heartbeat").await, 1);
}

/// The first sending holds the seat while its repetition arrives.
#[tokio::test]
async fn a_repetition_waits_for_the_sending_that_is_under_way() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let beat = beats([pool.beat(&ada)]);
    let first = world.log.database().get().await.unwrap();
    first.batch_execute("begin").await.unwrap();
    let at = EventLog::append_on(&first, &beat).await.unwrap().at;
    let (log, resend) = (world.log.clone(), again(&beat));
    let sent = tokio::spawn(async move { log.append(&resend).await.unwrap() });
    world.somebody_waits().await;
    first.batch_execute("commit").await.unwrap();
    assert_eq!(sent.await.unwrap().refused, [Refused::Written { session: ada.session_id, at }]);
    assert_eq!(world.number("select count(*) from events_heartbeat").await, 1);
    assert_eq!(world.deadline(pool, &ada).await, Some(at.after(beat.ttl)));
}

/// Both were answered by the one that moved the deadline.
#[tokio::test]
async fn a_resent_batch_of_everything_is_known() {
    let world = World::new().await;
    let pool = world.pool().await;
    let other = world.another_pool(pool).await;
    let (ada, bob) = (world.seat(pool, "ada").await, holder("bob"));
    let all = Batch {
        heartbeats: vec![pool.beat(&ada)],
        ..batch([
            pool.writes(2, [acquired(&bob), denied(&holder("eve"))]),
            other.writes(1, [denied(&holder("eve"))]),
        ])
    };
    let at = world.write(&all).await.at;
    let count = world.number("select count(*) from events").await;
    let known = [
        Refused::Already { stream: pool.license_id.0, at },
        Refused::Written { session: ada.session_id, at },
    ];
    assert_eq!(world.append(&again(&all)).await.refused, known);
    assert_eq!(world.number("select count(*) from events").await, count);
    assert_eq!(world.version(pool.license_id.0).await, 3);
}

#[tokio::test]
async fn a_batch_sent_twice_at_once_is_written_once() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    for version in 2..12 {
        let bob = holder("bob");
        let twice = Batch {
            heartbeats: vec![pool.beat(&ada)],
            ..batch([pool.writes(version, [acquired(&bob), denied(&bob)])])
        };
        let resend = again(&twice);
        let (first, repetition) = tokio::join!(world.log.append(&twice), world.append(&resend));
        match (first, &repetition.refused[..]) {
            (Ok(first), [Refused::Already { at, .. }, Refused::Written { at: beat, .. }]) => {
                assert_eq!((*at, *beat), (first.at, first.at));
            }
            (Err(_), []) => {}
            other => panic!("one of them came second: {other:?}"),
        }
        assert_eq!(world.version(pool.license_id.0).await, version + 1);
    }
    assert_eq!(world.number("select count(*) from events_denial").await, 10);
    assert_eq!(world.number("select count(*) from events_heartbeat").await, 10);
}

/// Eight writers take seats of one pool, and each tries again whenever another was faster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_writers_leave_the_versions_without_a_gap() {
    const EACH: usize = 10;
    let world = World::new().await;
    let pool = world.pool().await;
    let writers = (0..8).map(|_| async {
        let mut conflicts = 0;
        for _ in 0..EACH {
            let events = [acquired(&holder("ada")), acquired(&holder("bob"))];
            let mut version = world.version(pool.license_id.0).await;
            loop {
                match world.append(&batch([pool.writes(version, events.clone())])).await.refused.as_slice() {
                    [] => break,
                    [Refused::Conflict { version: now, .. }] => version = *now,
                    other => panic!("{other:?}"),
                }
                conflicts += 1;
            }
        }
        conflicts
    });
    let conflicts: u32 = join_all(writers).await.into_iter().sum();
    assert!(conflicts > 0, "they never met: this run shows nothing");

    let log = world.log.decisions(pool.license_id.0).await.unwrap();
    let versions: Vec<_> = log.iter().map(|one| one.version.unwrap()).collect();
    assert_eq!(versions, (1..=1 + 8 * 2 * EACH as i64).collect::<Vec<_>>());
    assert!(log.windows(2).all(|pair| pair[0].occurred_at <= pair[1].occurred_at));
    assert!(log.windows(2).all(|pair| pair[0].cursor.position < pair[1].cursor.position));
    assert_eq!(world.log.count_seats().await.unwrap(), 8 * 2 * EACH as i64);
}

/// Rows are locked in id order, in whatever order a batch names them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_share_pools_in_any_order_never_deadlock() {
    let world = World::new().await;
    let first = world.pool().await;
    let mut pools = vec![first];
    for _ in 0..5 {
        pools.push(world.another_pool(first).await);
    }
    let reversed: Vec<_> = pools.iter().rev().copied().collect();
    let loops = [pools, reversed].map(|pools| {
        let log = world.log.clone();
        async move {
            for _ in 0..30 {
                // Version 0 is stale: locked, refused, and the next round is the same.
                let all = batch(pools.iter().map(|pool| pool.writes(0, [denied(&holder("ada"))])));
                assert_eq!(log.append(&all).await.unwrap().refused.len(), 6);
            }
        }
    });
    join_all(loops).await;
}

/// A stream that is not there yet has no row to lock.
#[tokio::test]
async fn two_that_make_the_same_stream_meet() {
    let world = World::new().await;
    let (pool, founding) = founding("acme");
    let first = world.log.database().get().await.unwrap();
    first.batch_execute("begin").await.unwrap();
    let at = EventLog::append_on(&first, &founding).await.unwrap().at;
    let (log, other) = (world.log.clone(), founding.clone());
    let sent = tokio::spawn(async move { log.append(&other).await.unwrap().refused });
    world.somebody_waits().await;
    first.batch_execute("commit").await.unwrap();
    let refused = sent.await.unwrap();
    assert!(refused.contains(&Refused::Already { stream: pool.license_id.0, at }), "{refused:?}");
}

#[tokio::test]
async fn a_resent_whole_batch_is_known() {
    let world = World::new().await;
    let (pool, founding) = founding("acme");
    let at = world.write(&founding).await.at;
    let before = world.everything().await;
    let mut refused = world.append(&founding).await.refused;
    refused.sort_by_key(Refused::stream);
    let mut wanted = [pool.tenant_id.0, pool.license_id.0].map(|stream| Refused::Already { stream, at });
    wanted.sort_by_key(Refused::stream);
    assert_eq!(refused, wanted);
    assert_eq!(world.everything().await, before);
}

#[tokio::test]
async fn a_lost_connection_is_an_unknown_outcome_and_the_resend_tells() {
    let world = World::new().await;
    let pool = world.pool().await;
    let grant = batch([pool.writes(1, [acquired(&holder("ada"))])]);
    let cut = world.log.database().get().await.unwrap();
    let pid: i32 = cut.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let busy = connect(&world.database.superuser_url()).await;
    let lock = format!("begin; select from streams where stream_id = '{}' for update", pool.license_id);
    busy.batch_execute(&lock).await.unwrap();
    let resend = grant.clone();
    let sent = tokio::spawn(async move { EventLog::append_on(&cut, &resend).await.map(|one| one.at) });
    world.somebody_waits().await;
    world.as_superuser(&format!("select pg_terminate_backend({pid})")).await;
    let error = sent.await.unwrap().unwrap_err();
    assert!(matches!(error, LogError::Unknown(_)) && error.is_retryable(), "{error}");
    busy.batch_execute("commit").await.unwrap();
    world.write(&grant).await;
    assert!(matches!(world.append(&grant).await.refused[..], [Refused::Already { .. }]));
}
