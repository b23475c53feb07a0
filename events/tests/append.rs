//! The one door: what it writes, what it refuses, and that a refusal leaves no trace.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

mod support;

use std::time::Duration;

use events::{
    Batch, Event, EventFilter, EventLog, LogError, NewEvent, Position, Refused, SessionEnd, Standing,
};
use futures_util::future::join_all;
use support::{
    Holder, Pool, TTL, World, acquired, batch, beats, connect, denied, expired, given_back, holder,
    license_terms, new_event, released, revoked, user, user_added, user_removed, whole, with_key,
};
use uuid::Uuid;

fn conflict(pool: Pool, version: i64) -> Refused {
    Refused::Conflict { stream: pool.license_id.0, version, standing: Standing::Ok }
}

#[tokio::test]
async fn a_batch_is_written_whole_and_in_order() {
    let world = World::new().await;
    let pool = world.pool().await;
    let (ada, bob) = (holder("ada"), holder("bob"));
    world.write(&batch([pool.writes(1, [acquired(&ada)])])).await;
    let appended = world.write(&batch([pool.writes(2, [acquired(&bob), released(&ada)])])).await;

    let log = world.log.decisions(pool.license_id.0).await.unwrap();
    assert_eq!(log.iter().map(|one| one.version.unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(
        log.iter().map(|one| one.event.name()).collect::<Vec<_>>(),
        ["license_issued", "seat_acquired", "seat_acquired", "seat_released"]
    );
    assert!(log.windows(2).all(|pair| pair[0].cursor < pair[1].cursor), "the global order is the stream's");
    let granted = &log[2];
    assert_eq!(granted.subject.session_id, Some(bob.session_id));
    assert_eq!(granted.subject.user_id, Some(bob.user_id.clone()));
    assert_eq!(granted.subject.hardware_id, Some(bob.hardware_id.clone()));
    assert_eq!(granted.request_id.as_deref(), Some("request"));
    assert_eq!(granted.occurred_at, appended.at);
    assert_eq!(granted.tenant_id, pool.tenant_id);
    assert_eq!(granted.license_id(), Some(pool.license_id));
    assert_eq!(world.deadline(pool, &ada).await, None);
    assert_eq!(world.deadline(pool, &bob).await, Some(appended.at.after(TTL)));
}

#[tokio::test]
async fn a_stale_version_is_refused_with_the_current_one_and_writes_nothing() {
    let world = World::new().await;
    let pool = world.pool().await;
    world.seat(pool, "ada").await;
    let before = world.everything().await;
    for stale in [0, 1, 3, 99] {
        let appended =
            world.append(&batch([pool.writes(stale, [with_key(acquired(&holder("bob")), "key")])])).await;
        assert_eq!(appended.refused, [conflict(pool, 2)], "expected {stale}");
    }
    assert_eq!(world.everything().await, before);
}

#[tokio::test]
async fn a_refused_pool_does_not_disturb_the_others() {
    let world = World::new().await;
    let first = world.pool().await;
    let (stale, last) = (world.another_pool(first).await, world.another_pool(first).await);
    let holders = [holder("ada"), holder("bob"), holder("eve")];
    let appended = world
        .append(&batch([
            first.writes(1, [acquired(&holders[0])]),
            stale.writes(7, [with_key(acquired(&holders[1]), "key")]),
            last.writes(1, [acquired(&holders[2])]),
        ]))
        .await;

    assert_eq!(appended.refused, [conflict(stale, 1)]);
    assert!(world.deadline(first, &holders[0]).await.is_some());
    assert!(world.deadline(last, &holders[2]).await.is_some());
    assert_eq!(world.log.count_seats().await.unwrap(), 2);
    assert_eq!(world.version(stale.license_id.0).await, 1);
    assert_eq!(world.log.find_key(stale.tenant_id, &user("bob"), "key").await.unwrap(), None);
}

#[tokio::test]
async fn every_refused_pool_is_named_with_its_own_reason() {
    let world = World::new().await;
    let first = world.pool().await;
    let (second, third) = (world.another_pool(first).await, world.another_pool(first).await);
    let (stranger, ada) = (holder("stranger"), world.seat(third, "ada").await);
    let mut refused = world
        .append(&batch([
            first.writes(9, [acquired(&holder("ada"))]),
            second.writes(1, [acquired(&stranger)]),
            third.writes(2, [expired(&ada)]),
        ]))
        .await
        .refused;
    refused.sort_by_key(|one| one.stream());
    let until = world.deadline(third, &ada).await.unwrap();
    let mut wanted = [
        conflict(first, 1),
        Refused::UserUnknown { stream: second.license_id.0, session: stranger.session_id },
        Refused::NotLapsed { stream: third.license_id.0, session: ada.session_id, until },
    ];
    wanted.sort_by_key(Refused::stream);
    assert_eq!(refused, wanted);
}

#[tokio::test]
async fn heartbeats_of_a_refused_pool_apply() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    world.lapse(&ada).await;
    let appended = world
        .append(&Batch {
            heartbeats: vec![pool.beat(&ada)],
            ..batch([pool.writes(1, [acquired(&holder("bob"))])])
        })
        .await;
    assert_eq!(appended.refused, [conflict(pool, 2)]);
    assert_eq!(world.deadline(pool, &ada).await, Some(appended.at.after(TTL)));
    assert_eq!(world.heartbeats(pool, &ada).await.len(), 1);
}

#[tokio::test]
async fn a_heartbeat_needs_no_version_and_moves_none() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let appended = world.write(&beats([pool.beat(&ada)])).await;
    assert_eq!(world.version(pool.license_id.0).await, 2);
    let logged = world.heartbeats(pool, &ada).await;
    assert_eq!(logged[0].event, Event::SeatHeartbeat { deadline: appended.at.after(TTL) });
    assert_eq!((logged[0].version, logged[0].occurred_at), (None, appended.at));
    assert_eq!(logged[0].subject.hardware_id, Some(ada.hardware_id));
}

#[tokio::test]
async fn a_heartbeat_does_not_wait_for_its_pool() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let busy = world.log.database().get().await.unwrap();
    busy.batch_execute("begin").await.unwrap();
    EventLog::append_on(&busy, &batch([pool.writes(2, [acquired(&holder("bob"))])])).await.unwrap();
    let alone = beats([pool.beat(&ada)]);
    tokio::time::timeout(Duration::from_secs(10), world.write(&alone)).await.unwrap();
    busy.batch_execute("commit").await.unwrap();
}

#[tokio::test]
async fn a_heartbeat_names_its_session_its_pool_and_its_user() {
    let world = World::new().await;
    let (pool, other) = (world.pool().await, world.pool().await);
    let (ada, gone) = (world.seat(pool, "ada").await, holder("ada"));
    let thief = Holder { user_id: user("bob"), ..ada.clone() };
    let before = world.everything().await;
    for wrong in [pool.beat(&thief), other.beat(&ada), pool.beat(&gone)] {
        let session = wrong.session_id;
        assert_eq!(world.append(&beats([wrong])).await.refused, [Refused::Missing { session }]);
    }
    assert_eq!(world.everything().await, before);
    let mixed = world.append(&beats([pool.beat(&ada), pool.beat(&gone)])).await;
    assert_eq!(mixed.refused, [Refused::Missing { session: gone.session_id }]);
    assert_eq!(world.heartbeats(pool, &ada).await.len(), 1);
}

#[tokio::test]
async fn a_denial_is_checked_against_the_version_and_does_not_move_it() {
    let world = World::new().await;
    let pool = world.pool().await;
    let refused = holder("bob");
    let stale = world.append(&batch([pool.writes(0, [denied(&refused)])])).await;
    assert_eq!(stale.refused, [conflict(pool, 1)]);
    assert_eq!(world.number("select count(*) from events_denial").await, 0);

    world.write(&batch([pool.writes(1, [denied(&refused)])])).await;
    world
        .write(&batch([pool.writes(1, [denied(&refused), acquired(&holder("ada")), denied(&refused)])]))
        .await;
    assert_eq!(world.version(pool.license_id.0).await, 2);
    assert_eq!(world.number("select count(*) from events_denial where version is null").await, 3);
    assert_eq!(world.names(pool.license_id.0).await, ["license_issued", "seat_acquired"]);
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
    world.write(&denial).await;
    assert_eq!(world.everything().await, before);

    world.seat(pool, "ada").await;
    let before = world.everything().await;
    let resent = world.append(&denial).await;
    assert_eq!(resent.refused, [Refused::Already { stream: pool.license_id.0, at: first.at }]);
    assert_eq!(world.everything().await, before);
}

#[tokio::test]
async fn a_resent_heartbeat_is_not_written_twice() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let beat = beats([pool.beat(&ada)]);
    world.write(&beat).await;
    world.write(&beat).await;
    assert_eq!(world.number("select count(*) from events_heartbeat").await, 1);

    // The session ended meanwhile: what was answered stays answered.
    world.write(&batch([pool.writes(2, [released(&ada)])])).await;
    let before = world.everything().await;
    world.write(&beat).await;
    assert_eq!(world.everything().await, before);
    let late = world.append(&beats([pool.beat(&ada)])).await;
    assert_eq!(late.refused, [Refused::Missing { session: ada.session_id }]);
}

/// Both were answered by the one that moved the deadline.
#[tokio::test]
async fn two_heartbeats_of_one_session_in_a_batch_are_one() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let twice = beats([pool.beat(&ada), pool.beat(&ada)]);
    let at = world.write(&twice).await.at;
    assert_eq!(world.deadline(pool, &ada).await, Some(at.after(TTL)));
    assert_eq!(world.heartbeats(pool, &ada).await.len(), 1);
}

/// One statement reads the standing and, after a wait for another session's row, reads it again.
#[tokio::test]
async fn a_pool_that_accepts_again_while_its_heartbeat_waits_breaks_no_answer() {
    let world = World::new().await;
    let (switched, other) = (world.pool().await, world.pool().await);
    let (ada, bob) = (world.seat(switched, "ada").await, world.seat(other, "bob").await);
    world.switch_tenant(switched, false).await;
    let busy = world.superuser().await;
    let lock = format!("begin; select from seats where session_id = '{}' for update", bob.session_id);
    busy.batch_execute(&lock).await.unwrap();
    let (log, both) = (world.log.clone(), beats([switched.beat(&ada), other.beat(&bob)]));
    let resend = both.clone();
    let sent = tokio::spawn(async move { log.append(&resend).await.unwrap().refused });
    world.somebody_waits().await;
    world.switch_tenant(switched, true).await;
    busy.batch_execute("commit").await.unwrap();
    let refused = sent.await.unwrap();
    assert_eq!(
        refused.iter().filter_map(|one| Some(one.heartbeat()?.0)).collect::<Vec<_>>(),
        [ada.session_id]
    );
    assert_eq!(world.heartbeats(other, &bob).await.len(), 1);
    world.write(&both).await;
}

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
    assert_eq!(world.append(&all).await.refused, [Refused::Already { stream: pool.license_id.0, at }]);
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
        let (one, two) = tokio::join!(world.append(&twice), world.append(&twice));
        let mut refused = [one.refused, two.refused].concat();
        let Some(Refused::Already { stream, .. }) = refused.pop() else { panic!("one of them came second") };
        assert_eq!((stream, refused.len()), (pool.license_id.0, 0));
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
    assert!(log.windows(2).all(|pair| pair[0].cursor < pair[1].cursor));
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

#[tokio::test]
async fn a_key_is_granted_once_across_pools() {
    let world = World::new().await;
    let pool = world.pool().await;
    let other = world.another_pool(pool).await;
    let (first, second) = (holder("ada"), holder("ada"));
    world.write(&batch([pool.writes(1, [with_key(acquired(&first), "key")])])).await;
    let before = world.everything().await;
    // Its pool's other keys are taken back with it.
    let (bob, eve) = (holder("bob"), holder("eve"));
    let batch_of_three = batch([other.writes(
        1,
        [
            with_key(acquired(&bob), "of bob"),
            with_key(acquired(&second), "key"),
            with_key(acquired(&eve), "of eve"),
        ],
    )]);
    let taken = Refused::KeyTaken { stream: other.license_id.0, session: second.session_id };
    assert_eq!(world.append(&batch_of_three).await.refused, [taken]);
    assert_eq!(world.everything().await, before);
    let known = world.log.find_key(pool.tenant_id, &user("ada"), "key").await.unwrap().unwrap();
    assert_eq!((known.session_id, known.license_id), (first.session_id, pool.license_id));
    assert_eq!(known.request_hash, vec![7; 32]);

    // Another user's key of the same name is another key, and so is another tenant's.
    let stranger = world.pool().await;
    world.write(&batch([other.writes(1, [with_key(acquired(&bob), "key")])])).await;
    world.write(&batch([stranger.writes(1, [with_key(acquired(&holder("ada")), "key")])])).await;
}

#[tokio::test]
async fn a_key_that_two_pools_of_one_batch_want_goes_to_one_of_them() {
    let world = World::new().await;
    let pool = world.pool().await;
    let other = world.another_pool(pool).await;
    let both = [(pool, holder("ada")), (other, holder("ada"))];
    let appended = world
        .append(&batch(both.iter().map(|(pool, ada)| pool.writes(1, [with_key(acquired(ada), "key")]))))
        .await;
    let [Refused::KeyTaken { stream, session }] = appended.refused[..] else { panic!("{appended:?}") };
    let winner = if stream == pool.license_id.0 { &both[1] } else { &both[0] };
    assert_ne!(session, winner.1.session_id);
    assert!(world.deadline(winner.0, &winner.1).await.is_some());
    assert_eq!(world.log.count_seats().await.unwrap(), 1);
    let known = world.log.find_key(pool.tenant_id, &user("ada"), "key").await.unwrap().unwrap();
    assert_eq!(known.session_id, winner.1.session_id);
}

#[tokio::test]
async fn a_key_of_an_acquire_that_renewed_is_stored_unless_another_session_has_it() {
    let world = World::new().await;
    let pool = world.pool().await;
    let (first, second) = (world.seat(pool, "ada").await, world.seat(pool, "ada").await);
    let key = |key: &str| with_key(released(&first), key).key;
    let with =
        |holder: &Holder, name: &str| beats([events::HeartbeatWrite { key: key(name), ..pool.beat(holder) }]);
    let found = async |name: &str| {
        let known = world.log.find_key(pool.tenant_id, &user("ada"), name).await.unwrap();
        known.map(|known| (known.session_id, known.license_id, known.request_hash))
    };
    let renewal = with(&first, "key");
    world.write(&renewal).await;
    let stored = Some((first.session_id, pool.license_id, vec![7; 32]));
    assert_eq!(found("key").await, stored);
    world.write(&renewal).await;
    world.write(&with(&second, "key")).await;
    assert_eq!(found("key").await, stored);

    // What is refused stores nothing, and neither does what is resent after the end.
    assert_eq!(world.append(&with(&holder("ada"), "of nobody")).await.refused.len(), 1);
    assert_eq!(found("of nobody").await, None);
    world.write(&batch([pool.writes(3, [with_key(released(&first), "key")])])).await;
    world.write(&renewal).await;
    assert_eq!(found("key").await, None);
}

#[tokio::test]
async fn a_key_waits_for_the_grant_that_is_about_to_take_it() {
    let world = World::new().await;
    let pool = world.pool().await;
    let other = world.another_pool(pool).await;
    let busy = world.log.database().get().await.unwrap();
    busy.batch_execute("begin").await.unwrap();
    let first = batch([pool.writes(1, [with_key(acquired(&holder("ada")), "key")])]);
    EventLog::append_on(&busy, &first).await.unwrap();
    let (log, second) = (world.log.clone(), holder("ada"));
    let late = batch([other.writes(1, [with_key(acquired(&second), "key")])]);
    let late = tokio::spawn(async move { log.append(&late).await.unwrap().refused });
    world.somebody_waits().await;
    busy.batch_execute("commit").await.unwrap();
    let taken = Refused::KeyTaken { stream: other.license_id.0, session: second.session_id };
    assert_eq!(late.await.unwrap(), [taken]);
}

#[tokio::test]
async fn a_release_forgets_the_key_and_other_ends_keep_it() {
    let world = World::new().await;
    let pool = world.pool().await;
    let all = ["ada", "bob", "eve"].map(holder);
    let [ada, bob, eve] = &all;
    world.write(&batch([pool.writes(1, all.iter().map(|one| with_key(acquired(one), "key")))])).await;
    world.lapse(bob).await;
    world.write(&batch([pool.writes(4, [with_key(released(ada), "key"), expired(bob), revoked(eve)])])).await;
    for (one, known, end) in [
        (ada, false, SessionEnd::Released),
        (bob, true, SessionEnd::Expired),
        (eve, true, SessionEnd::Revoked),
    ] {
        let key = world.log.find_key(pool.tenant_id, &one.user_id, "key").await.unwrap();
        assert_eq!(key.is_some(), known, "{}", one.user_id);
        assert_eq!(world.log.session_end(one.session_id).await.unwrap(), Some(end));
    }
    assert_eq!(world.log.count_seats().await.unwrap(), 0);
}

#[tokio::test]
async fn a_grant_that_could_not_be_answered_is_given_back_with_its_key() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = holder("ada");
    world.write(&batch([pool.writes(1, [with_key(acquired(&ada), "key")])])).await;
    world.write(&batch([pool.writes(2, [with_key(given_back(&ada), "key")])])).await;
    assert_eq!(world.deadline(pool, &ada).await, None);
    assert_eq!(world.log.find_key(pool.tenant_id, &user("ada"), "key").await.unwrap(), None);
}

#[tokio::test]
async fn a_grant_that_somebody_was_answered_with_since_is_not_given_back() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = holder("ada");
    world.write(&batch([pool.writes(1, [with_key(acquired(&ada), "key")])])).await;
    world.write(&beats([pool.beat(&ada)])).await;
    let before = world.everything().await;
    let give_back = with_key(given_back(&ada), "key");
    let refused = world.append(&batch([pool.writes(2, [give_back, acquired(&holder("bob"))])])).await.refused;
    assert_eq!(refused, [Refused::Renewed { stream: pool.license_id.0, session: ada.session_id }]);
    assert_eq!(world.everything().await, before);
    // Its holder may.
    world.write(&batch([pool.writes(2, [released(&ada)])])).await;
}

#[tokio::test]
async fn giving_back_waits_for_a_heartbeat_under_way() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let busy = world.log.database().get().await.unwrap();
    busy.batch_execute("begin").await.unwrap();
    EventLog::append_on(&busy, &beats([pool.beat(&ada)])).await.unwrap();
    let (log, back) = (world.log.clone(), batch([pool.writes(2, [given_back(&ada)])]));
    let back = tokio::spawn(async move { log.append(&back).await.unwrap().refused });
    world.somebody_waits().await;
    busy.batch_execute("commit").await.unwrap();
    let renewed = Refused::Renewed { stream: pool.license_id.0, session: ada.session_id };
    assert_eq!(back.await.unwrap(), [renewed]);
}

#[tokio::test]
async fn a_key_of_an_ended_session_is_forgotten_after_a_day() {
    let world = World::new().await;
    let pool = world.pool().await;
    let (live, ended, fresh) = (holder("ada"), holder("bob"), holder("eve"));
    world
        .write(&batch([pool.writes(1, [&live, &ended, &fresh].map(|one| with_key(acquired(one), "key")))]))
        .await;
    world.write(&batch([pool.writes(4, [revoked(&ended), revoked(&fresh)])])).await;
    world
        .as_superuser(
            "update idempotency_keys set created_at = now() - interval '25 hours' where user_id <> 'eve'",
        )
        .await;
    // A day at least, whatever is asked for.
    assert_eq!(world.log.forget_keys(0).await.unwrap(), 1);
    let bob = world.log.find_key(pool.tenant_id, &user("bob"), "key").await.unwrap();
    assert_eq!(bob, None);
    assert_eq!(world.number("select count(*) from idempotency_keys").await, 2);
}

#[tokio::test]
async fn a_grant_needs_a_user_of_the_tenant() {
    let world = World::new().await;
    let pool = world.pool().await;
    let (stream, tenant) = (pool.license_id.0, pool.tenant_id.0);
    let stranger = holder("stranger");
    let before = world.everything().await;
    let grant = batch([pool.writes(1, [with_key(acquired(&stranger), "key")])]);
    let unknown = Refused::UserUnknown { stream, session: stranger.session_id };
    assert_eq!(world.append(&grant).await.refused, [unknown]);
    assert_eq!(world.everything().await, before);

    world.write(&whole([pool.of_tenant(4, [user_added("stranger"), user_removed("ada")])])).await;
    world.write(&grant).await;
    let ada = holder("ada");
    let removed = world.append(&batch([pool.writes(2, [acquired(&ada)])])).await;
    assert_eq!(removed.refused, [Refused::UserRemoved { stream, session: ada.session_id }]);
    assert!(world.log.find_member(pool.tenant_id, &user("ada")).await.unwrap().unwrap().removed);

    world.write(&whole([pool.of_tenant(6, [user_added("ada")])])).await;
    world.write(&batch([pool.writes(2, [acquired(&ada)])])).await;
    assert_eq!(world.version(tenant).await, 7);
}

#[tokio::test]
async fn a_user_of_another_tenant_is_unknown() {
    let world = World::new().await;
    let (pool, other) = (world.pool().await, world.pool().await);
    world.write(&whole([other.of_tenant(4, [user_added("theirs")])])).await;
    let refused = world.append(&batch([pool.writes(1, [acquired(&holder("theirs"))])])).await.refused;
    assert!(matches!(refused[..], [Refused::UserUnknown { .. }]), "{refused:?}");
}

#[tokio::test]
async fn a_removal_waits_for_a_grant_under_way() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = holder("ada");
    let busy = world.log.database().get().await.unwrap();
    busy.batch_execute("begin").await.unwrap();
    EventLog::append_on(&busy, &batch([pool.writes(1, [acquired(&ada)])])).await.unwrap();
    let log = world.log.clone();
    let removal = whole([pool.of_tenant(4, [user_removed("ada")])]);
    let removal = tokio::spawn(async move { log.append(&removal).await.unwrap().refused });
    world.somebody_waits().await;
    busy.batch_execute("commit").await.unwrap();
    assert_eq!(removal.await.unwrap(), []);
    assert!(world.deadline(pool, &ada).await.is_some(), "whoever removed the user finds the seat");
}

#[tokio::test]
async fn a_grant_waits_for_a_removal_under_way() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = holder("ada");
    let busy = world.log.database().get().await.unwrap();
    busy.batch_execute("begin").await.unwrap();
    EventLog::append_on(&busy, &whole([pool.of_tenant(4, [user_removed("ada")])])).await.unwrap();
    let (log, grant) = (world.log.clone(), batch([pool.writes(1, [acquired(&ada)])]));
    let grant = tokio::spawn(async move { log.append(&grant).await.unwrap().refused });
    world.somebody_waits().await;
    busy.batch_execute("commit").await.unwrap();
    let removed = Refused::UserRemoved { stream: pool.license_id.0, session: ada.session_id };
    assert_eq!(grant.await.unwrap(), [removed]);
}

fn founding(name: &str) -> (Pool, Batch) {
    let pool = Pool { tenant_id: events::TenantId::mint(), license_id: events::LicenseId::mint() };
    let names =
        vec![pool.claims("identity_tenant", &pool.tenant_id.to_string()), pool.claims("subdomain", name)];
    (pool, Batch { names, ..whole([pool.creates_tenant(), pool.issues(license_terms())]) })
}

#[tokio::test]
async fn a_name_is_held_once_and_its_loser_leaves_no_trace() {
    let world = World::new().await;
    let (first, batch_of_first) = founding("acme");
    world.write(&batch_of_first).await;
    let before = world.everything().await;
    let (second, batch_of_second) = founding("acme");
    let taken = Refused::NameTaken {
        stream: second.tenant_id.0,
        scope: "subdomain".to_owned(),
        name: "acme".to_owned(),
    };
    assert_eq!(world.append(&batch_of_second).await.refused, [taken]);
    assert_eq!(world.everything().await, before);

    // Let go, it is free; a name of another scope never stood in the way.
    let let_go = events::NameClaim { hold: false, ..first.claims("subdomain", "acme") };
    let other_scope = first.claims("identity_tenant", "acme");
    let change = new_event(Event::TenantUpdated(events::TenantChange::default()));
    world.write(&Batch { names: vec![let_go, other_scope], ..whole([first.of_tenant(4, [change])]) }).await;
    world.write(&batch_of_second).await;
    let found = world.log.find_tenant("acme").await.unwrap();
    assert_eq!(found, Some(first.tenant_id), "by the identity provider's name, not by the subdomain");
}

#[tokio::test]
async fn of_two_that_claim_a_name_at_once_one_gets_it() {
    let world = World::new().await;
    let (first, batch_of_first) = founding("acme");
    let (second, batch_of_second) = founding("acme");
    let busy = world.log.database().get().await.unwrap();
    busy.batch_execute("begin").await.unwrap();
    EventLog::append_on(&busy, &batch_of_first).await.unwrap();
    let (log, resend) = (world.log.clone(), batch_of_second.clone());
    let late = tokio::spawn(async move { log.append(&resend).await });
    world.somebody_waits().await;
    busy.batch_execute("commit").await.unwrap();
    // The loser is rolled back, and told the reason when it comes again.
    let error = late.await.unwrap().unwrap_err();
    assert!(matches!(error, LogError::RolledBack(_)) && error.is_retryable(), "{error}");
    let refused = world.append(&batch_of_second).await.refused;
    assert!(matches!(&refused[..], [Refused::NameTaken { stream, .. }] if *stream == second.tenant_id.0));
    assert_eq!(world.version(first.tenant_id.0).await, 4);
    assert_eq!(world.log.stream_head(second.tenant_id.0).await.unwrap(), None);
}

#[tokio::test]
async fn a_whole_batch_falls_with_any_of_its_streams() {
    let world = World::new().await;
    let pool = world.pool().await;
    let before = world.everything().await;
    let new = Pool { license_id: events::LicenseId::mint(), ..pool };
    let refused = world
        .append(&Batch {
            names: vec![pool.claims("subdomain", "other")],
            ..whole([
                new.issues(license_terms()),
                pool.of_tenant(3, [user_added("new")]),
                pool.administers(1, [acquired(&holder("ada"))]),
            ])
        })
        .await
        .refused;
    let stale = Refused::Conflict { stream: pool.tenant_id.0, version: 4, standing: Standing::Ok };
    assert_eq!(refused, [stale]);
    assert_eq!(world.everything().await, before);
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
async fn deadlines_are_stamped_by_postgres() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = holder("ada");
    let earliest = world.now().await;
    let appended = world.write(&batch([pool.writes(1, [acquired(&ada)])])).await;
    let latest = world.now().await;
    assert!(earliest <= appended.at && appended.at <= latest);
    let log = world.log.decisions_after(pool.license_id.0, 1).await.unwrap();
    let Event::SeatAcquired { deadline, .. } = log[0].event else { panic!("{:?}", log[0]) };
    assert_eq!(deadline, appended.at.after(TTL), "not what the writer guessed");
    assert_eq!(world.deadline(pool, &ada).await, Some(deadline));
    // To the millisecond everywhere: a fold and the table never differ by rounding.
    let fractions = "select count(*) from seats where date_trunc('milliseconds', deadline) <> deadline";
    assert_eq!(world.number(fractions).await, 0);
}

#[tokio::test]
async fn a_streams_time_never_goes_back() {
    let world = World::new().await;
    let pool = world.pool().await;
    // As if the clock had been an hour ahead, and was set right.
    world
        .as_superuser("update streams set last_at = date_trunc('milliseconds', now()) + interval '1 hour'")
        .await;
    let ada = world.seat(pool, "ada").await;
    world.write(&batch([pool.writes(2, [denied(&holder("bob")), released(&ada)])])).await;
    let log = world.log.decisions(pool.license_id.0).await.unwrap();
    assert!(log[1].occurred_at > world.now().await.after(Duration::from_secs(3000)));
    assert_eq!(log[1].occurred_at, log[2].occurred_at);
    let ahead = "select count(*) from events_denial where occurred_at > now() + interval '50 minutes'";
    assert_eq!(world.number(ahead).await, 1);
}

#[tokio::test]
async fn one_machine_of_a_user_has_one_seat_of_a_pool() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let again = Holder { session_id: events::SessionId::mint(), ..ada.clone() };
    let before = world.everything().await;
    // No actor decides so; if one did, nothing would be granted.
    let error = world.log.append(&batch([pool.writes(2, [acquired(&again)])])).await.unwrap_err();
    assert!(matches!(error, LogError::Rejected(_)) && !error.is_retryable(), "{error}");
    assert_eq!(world.everything().await, before);

    // Its lapsed seat goes and its new one comes in one batch.
    world.lapse(&ada).await;
    world.write(&batch([pool.writes(2, [expired(&ada), acquired(&again)])])).await;
    assert!(world.deadline(pool, &again).await.is_some());
}

#[tokio::test]
async fn a_session_is_found_living_and_ended() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let place = world.log.find_session(ada.session_id).await.unwrap().unwrap();
    assert_eq!(
        (place.license_id, place.tenant_id, &place.user_id),
        (pool.license_id, pool.tenant_id, &ada.user_id)
    );
    assert_eq!(world.log.session_end(ada.session_id).await.unwrap(), None);
    world.write(&batch([pool.writes(2, [released(&ada)])])).await;
    assert_eq!(world.log.find_session(ada.session_id).await.unwrap(), Some(place));
    assert_eq!(world.log.find_session(holder("ada").session_id).await.unwrap(), None);
}

#[tokio::test]
async fn an_empty_batch_answers_the_time() {
    let world = World::new().await;
    let before = world.everything().await;
    let earliest = world.now().await;
    assert!(world.write(&batch([])).await.at >= earliest);
    assert_eq!(world.everything().await, before);
}

/// The answer was lost after the commit, and its connection with it.
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

#[tokio::test]
async fn ten_thousand_bytes_of_a_request_id_travel_unchanged() {
    let world = World::new().await;
    let pool = world.pool().await;
    let request_id = Some("ü'\"\\".repeat(2_000));
    let event = NewEvent { request_id: request_id.clone(), ..acquired(&holder("ada")) };
    world.write(&batch([pool.writes(1, [event])])).await;
    let log = world.log.decisions_after(pool.license_id.0, 1).await.unwrap();
    assert_eq!(log[0].request_id, request_id);
}

#[tokio::test]
async fn a_snapshot_is_replaced_by_a_later_one_only() {
    let world = World::new().await;
    let stream = Uuid::now_v7();
    let keep = async |version, format| {
        let state = serde_json::json!({ "of": version });
        world.log.save_snapshot(stream, &events::Snapshot { version, format, state }).await.unwrap();
        world.log.snapshot(stream).await.unwrap().unwrap()
    };
    assert!(world.log.snapshot(stream).await.unwrap().is_none());
    assert_eq!(keep(5, 1).await.version, 5);
    assert_eq!(keep(4, 2).await.version, 5);
    let later = keep(6, 2).await;
    assert_eq!((later.version, later.format, later.state), (6, 2, serde_json::json!({ "of": 6 })));
}

#[tokio::test]
async fn counts_are_told_by_license() {
    let world = World::new().await;
    let pool = world.pool().await;
    let empty = world.another_pool(pool).await;
    world.seat(world.pool().await, "ada").await;
    world.seat(pool, "ada").await;
    world.seat(pool, "bob").await;
    let mut counts = world.log.count_seats_by_license(pool.tenant_id).await.unwrap();
    counts.sort();
    let mut wanted = [(pool.license_id, 2), (empty.license_id, 0)];
    wanted.sort();
    assert_eq!(counts, wanted);
    assert_eq!(world.log.count_seats().await.unwrap(), 3);
    let none = EventFilter { event_type: Some("seat_stolen".to_owned()), ..EventFilter::default() };
    let found = world.log.read_tenant(pool.tenant_id, Position::default(), &none, 10).await.unwrap();
    assert_eq!(found, []);
}
