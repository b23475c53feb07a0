//! When a session may be ended for its deadline: Postgres's clock, a living beacon, a whole TTL after an outage.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

mod support;

use std::time::Duration;

use events::{Batch, Event, EventLog, Refused, SessionEnd, Time};
use support::{
    Holder, Pool, TTL, World, acquired, batch, beats, expired, holder, released, revoked, with_key,
};

const GAP: Duration = Duration::from_secs(15);

fn not_lapsed(pool: Pool, holder: &Holder, until: Time) -> Refused {
    Refused::NotLapsed { stream: pool.license_id.0, session: holder.session_id, until }
}

async fn tick(world: &World) -> Time {
    let connection = world.log.database().get().await.unwrap();
    EventLog::tick_beacon_on(&connection, GAP).await.unwrap()
}

/// Milliseconds since the epoch.
async fn beacon(world: &World, column: &str) -> i64 {
    world.number(&format!("select (extract(epoch from {column}) * 1000)::bigint from beacon")).await
}

#[tokio::test]
async fn an_expiry_before_the_deadline_is_refused_and_told_the_deadline() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let before = world.everything().await;
    let until = world.deadline(pool, &ada).await.unwrap();
    let refused = world.append(&batch([pool.writes(2, [expired(&ada)])])).await.refused;
    assert_eq!(refused, [not_lapsed(pool, &ada, until)]);
    assert_eq!(world.everything().await, before);
}

#[tokio::test]
async fn an_expiry_after_the_deadline_ends_the_session_and_says_which_deadline_passed() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    world.lapse(&ada).await;
    let deadline = world.deadline(pool, &ada).await.unwrap();
    world.write(&batch([pool.writes(2, [expired(&ada)])])).await;
    assert_eq!(world.deadline(pool, &ada).await, None);
    assert_eq!(world.log.session_end(ada.session_id).await.unwrap(), Some(SessionEnd::Expired));
    let log = world.log.decisions_after(pool.license_id.0, 2).await.unwrap();
    assert_eq!(log[0].event, Event::SeatExpired { deadline }, "the table's, not the actor's guess");
    let late = world.append(&beats([pool.beat(&ada)])).await.refused;
    assert_eq!(late, [Refused::Missing { session: ada.session_id }]);
}

/// No fate here: a seat of a fifth of a second, and Postgres's own clock.
#[tokio::test]
async fn an_expiry_goes_as_soon_as_the_deadline_it_was_told_has_passed() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = holder("ada");
    let ttl = Duration::from_millis(200);
    let at = world.write(&Batch { ttl, ..batch([pool.writes(1, [acquired(&ada)])]) }).await.at;
    let expiry = batch([pool.writes(2, [expired(&ada)])]);
    let done = loop {
        let appended = world.append(&expiry).await;
        match appended.refused.as_slice() {
            [] => break appended.at,
            [Refused::NotLapsed { until, .. }] => {
                assert!((appended.at..=at.after(ttl)).contains(until), "{until} at {}", appended.at);
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(done > at.after(ttl));
}

#[tokio::test]
async fn a_silent_session_that_nobody_ended_may_go_on() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    world.lapse(&ada).await;
    let at = world.write(&beats([pool.beat(&ada)])).await.at;
    let refused = world.append(&batch([pool.writes(2, [expired(&ada)])])).await.refused;
    assert_eq!(refused, [not_lapsed(pool, &ada, at.after(TTL))]);
}

#[tokio::test]
async fn a_heartbeat_that_got_in_first_wins() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    world.lapse(&ada).await;
    let busy = world.log.database().get().await.unwrap();
    busy.batch_execute("begin").await.unwrap();
    let at = EventLog::append_on(&busy, &beats([pool.beat(&ada)])).await.unwrap().at;
    let (log, expiry) = (world.log.clone(), batch([pool.writes(2, [expired(&ada)])]));
    let expiry = tokio::spawn(async move { log.append(&expiry).await.unwrap().refused });
    world.somebody_waits().await;
    busy.batch_execute("commit").await.unwrap();
    assert_eq!(expiry.await.unwrap(), [not_lapsed(pool, &ada, at.after(TTL))]);
    assert_eq!(world.deadline(pool, &ada).await, Some(at.after(TTL)));
}

#[tokio::test]
async fn a_heartbeat_that_came_second_is_refused() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    world.lapse(&ada).await;
    let busy = world.log.database().get().await.unwrap();
    busy.batch_execute("begin").await.unwrap();
    let expiry = EventLog::append_on(&busy, &batch([pool.writes(2, [expired(&ada)])])).await.unwrap();
    assert_eq!(expiry.refused, []);
    let (log, beat) = (world.log.clone(), beats([pool.beat(&ada)]));
    let beat = tokio::spawn(async move { log.append(&beat).await.unwrap().refused });
    world.somebody_waits().await;
    busy.batch_execute("commit").await.unwrap();
    assert_eq!(beat.await.unwrap(), [Refused::Missing { session: ada.session_id }]);
    assert_eq!(world.number("select count(*) from events_heartbeat").await, 0);
}

#[tokio::test]
async fn one_refused_expiry_refuses_its_pools_whole_batch_and_no_other() {
    let world = World::new().await;
    let pool = world.pool().await;
    let other = world.another_pool(pool).await;
    let [lapsed, live, holds] =
        [world.seat(pool, "ada").await, world.seat(pool, "bob").await, world.seat(other, "eve").await];
    world.lapse(&lapsed).await;
    world.lapse(&holds).await;
    let next = with_key(acquired(&holder("eve")), "key");
    let until = world.deadline(pool, &live).await.unwrap();
    let appended = world
        .append(&Batch {
            heartbeats: vec![pool.beat(&live)],
            ..batch([
                pool.writes(3, [expired(&lapsed), expired(&live), next]),
                other.writes(2, [expired(&holds)]),
            ])
        })
        .await;
    assert_eq!(appended.refused, [not_lapsed(pool, &live, until)]);
    assert!(world.deadline(pool, &lapsed).await.is_some(), "refused with its pool");
    assert_eq!(world.deadline(other, &holds).await, None);
    assert_eq!(world.deadline(pool, &live).await, Some(appended.at.after(TTL)), "the heartbeat applied");
    assert_eq!(world.version(pool.license_id.0).await, 3);
    assert_eq!(world.number("select count(*) from idempotency_keys").await, 0);

    // Without the one that lives, the rest goes.
    world.write(&batch([pool.writes(3, [expired(&lapsed)])])).await;
}

#[tokio::test]
async fn every_session_that_has_not_lapsed_is_named() {
    let world = World::new().await;
    let pool = world.pool().await;
    let (ada, bob) = (world.seat(pool, "ada").await, world.seat(pool, "bob").await);
    let refused = world.append(&batch([pool.writes(3, [expired(&ada), expired(&bob)])])).await.refused;
    assert_eq!(refused.len(), 2);
    for one in [&ada, &bob] {
        let until = world.deadline(pool, one).await.unwrap();
        assert!(refused.contains(&not_lapsed(pool, one, until)));
    }
}

#[tokio::test]
async fn an_expiry_of_a_stale_version_is_a_conflict() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let refused = world.append(&batch([pool.writes(1, [expired(&ada)])])).await.refused;
    assert!(matches!(refused[..], [Refused::Conflict { version: 2, .. }]), "{refused:?}");
}

#[tokio::test]
async fn a_resent_expiry_is_known() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    world.lapse(&ada).await;
    let expiry = batch([pool.writes(2, [expired(&ada)])]);
    let at = world.write(&expiry).await.at;
    let before = world.everything().await;
    let refused = world.append(&expiry).await.refused;
    assert_eq!(refused, [Refused::Already { stream: pool.license_id.0, at }]);
    assert_eq!(world.everything().await, before);
}

#[tokio::test]
async fn an_expiry_under_a_stale_beacon_is_refused_for_a_whole_ttl() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    world.lapse(&ada).await;
    world.as_superuser("update beacon set gap_ms = 15000, last_seen = now() - interval '16 seconds'").await;
    let appended = world.append(&batch([pool.writes(2, [expired(&ada)])])).await;
    assert_eq!(appended.refused, [not_lapsed(pool, &ada, appended.at.after(TTL))]);
    assert!(world.deadline(pool, &ada).await.is_some());
}

#[tokio::test]
async fn after_an_outage_a_session_has_a_whole_ttl_to_come_back() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    world.lapse(&ada).await;
    world.as_superuser("update beacon set last_seen = now() - interval '1 minute'").await;
    let recovered_at = tick(&world).await;
    assert_eq!(beacon(&world, "recovered_at").await, recovered_at.millis());
    let expiry = batch([pool.writes(2, [expired(&ada)])]);
    let refused = world.append(&expiry).await.refused;
    assert_eq!(refused, [not_lapsed(pool, &ada, recovered_at.after(TTL))]);

    // A later tick does not begin the wait again.
    tick(&world).await;
    assert_eq!(beacon(&world, "recovered_at").await, recovered_at.millis());
    assert_eq!(world.append(&expiry).await.refused, refused);

    let almost =
        format!("update beacon set recovered_at = now() - interval '{} ms'", TTL.as_millis() - 9_000);
    world.as_superuser(&almost).await;
    assert!(matches!(world.append(&expiry).await.refused[..], [Refused::NotLapsed { .. }]));
    let over = format!("update beacon set recovered_at = now() - interval '{} ms'", TTL.as_millis() + 1);
    world.as_superuser(&over).await;
    world.write(&expiry).await;
}

#[tokio::test]
async fn the_wait_after_an_outage_is_the_sessions_own_ttl() {
    let world = World::new().await;
    let pool = world.pool().await;
    let (short, long) = (holder("ada"), world.seat(pool, "bob").await);
    let ttl = Duration::from_secs(10);
    world.write(&Batch { ttl, ..batch([pool.writes(2, [acquired(&short)])]) }).await;
    for one in [&short, &long] {
        world.lapse(one).await;
    }
    world.as_superuser("update beacon set recovered_at = now() - interval '20 seconds'").await;
    // The batch's TTL is that of the writer today; the seats were granted under theirs.
    let refused = world.append(&Batch { ttl, ..batch([pool.writes(3, [expired(&long)])]) }).await.refused;
    assert!(matches!(refused[..], [Refused::NotLapsed { .. }]), "{refused:?}");
    world.write(&batch([pool.writes(3, [expired(&short)])])).await;
}

#[tokio::test]
async fn a_silence_shorter_than_the_gap_is_no_outage() {
    let world = World::new().await;
    let before = beacon(&world, "recovered_at").await;
    world.as_superuser("update beacon set last_seen = now() - interval '5 seconds'").await;
    let at = tick(&world).await;
    assert_eq!(beacon(&world, "recovered_at").await, before);
    assert_eq!(beacon(&world, "last_seen").await, at.millis());
    assert_eq!(beacon(&world, "gap_ms * interval '1 ms' + 'epoch'::timestamptz").await, 15_000);
}

#[tokio::test]
async fn a_beacon_that_was_seen_later_stays() {
    let world = World::new().await;
    world.as_superuser("update beacon set last_seen = now() + interval '1 hour'").await;
    let before = (beacon(&world, "last_seen").await, beacon(&world, "recovered_at").await);
    tick(&world).await;
    assert_eq!((beacon(&world, "last_seen").await, beacon(&world, "recovered_at").await), before);
}

/// A new database counts as just recovered.
#[tokio::test]
async fn ticks_at_once_see_one_outage() {
    let world = World::new().await;
    world.as_superuser("update beacon set last_seen = now() - interval '1 minute'").await;
    let (one, two, three) = tokio::join!(tick(&world), tick(&world), tick(&world));
    let first = one.min(two).min(three);
    assert_eq!(beacon(&world, "recovered_at").await, first.millis());
    assert_eq!(beacon(&world, "last_seen").await, one.max(two).max(three).millis());
}

#[tokio::test]
async fn deadlines_only_grow() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let mut latest = world.deadline(pool, &ada).await.unwrap();
    for seconds in [60, 1, 90, 30, 90, 5] {
        let ttl = Duration::from_secs(seconds);
        let at = world.write(&Batch { ttl, ..beats([pool.beat(&ada)]) }).await.at;
        let deadline = world.deadline(pool, &ada).await.unwrap();
        assert_eq!(deadline, latest.max(at.after(ttl)));
        latest = deadline;
    }
    // A fold that takes the latest deadline of the log comes to the same.
    let heartbeats = world.heartbeats(pool, &ada).await;
    let folded = heartbeats.iter().map(|one| match one.event {
        Event::SeatHeartbeat { deadline } => deadline,
        ref other => panic!("{other:?}"),
    });
    assert_eq!(folded.max(), Some(latest));
}

#[tokio::test]
async fn release_and_revocation_wait_for_no_deadline() {
    let world = World::new().await;
    let pool = world.pool().await;
    let (ada, bob) = (world.seat(pool, "ada").await, world.seat(pool, "bob").await);
    world.as_superuser("update beacon set gap_ms = 1, last_seen = now() - interval '1 hour'").await;
    world.write(&batch([pool.administers(3, [released(&ada), revoked(&bob)])])).await;
    assert_eq!(world.log.count_seats().await.unwrap(), 0);
    assert_eq!(world.log.session_end(bob.session_id).await.unwrap(), Some(SessionEnd::Revoked));
    let refused = world.append(&beats([pool.beat(&bob)])).await.refused;
    assert_eq!(refused, [Refused::Missing { session: bob.session_id }]);
}

#[tokio::test]
async fn the_reaper_finds_the_pools_of_lapsed_seats() {
    let world = World::new().await;
    let (pool, other, idle) = (world.pool().await, world.pool().await, world.pool().await);
    let seats = [(pool, 10), (pool, 12), (other, 30), (idle, -60)];
    for (pool, overdue) in seats {
        let ada = world.seat(pool, "ada").await;
        world
            .as_superuser(&format!(
                "update seats set deadline = now() - interval '{overdue} s', due = now() - interval '{overdue} s'
                 where session_id = '{}'",
                ada.session_id
            ))
            .await;
    }
    let mut found = world.log.lapsed_pools(0, 10).await.unwrap();
    found.sort();
    assert_eq!(found, [pool.license_id, other.license_id]);
    assert_eq!(world.log.lapsed_pools(0, 1).await.unwrap().len(), 1);
    assert_eq!(world.log.lapsed_pools(20_000, 10).await.unwrap(), [other.license_id]);
    assert_eq!(world.log.lapsed_pools(60_000, 10).await.unwrap(), []);
}

/// A heartbeat that left the index alone must not hide its seat from the reaper, nor show one that lives.
#[tokio::test]
async fn most_heartbeats_leave_the_reapers_index_alone() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let due = async |share: &str| {
        let sql = format!(
            "select (due = deadline)::int::bigint from seats where session_id = '{}' and due <= deadline {share}",
            ada.session_id
        );
        world.number(&sql).await
    };
    world
        .as_superuser(
            "update seats set deadline = deadline - interval '1 second', due = due - interval '1 second'",
        )
        .await;
    world.write(&beats([pool.beat(&ada)])).await;
    assert_eq!(due("and deadline - due < interval '1 minute'").await, 0);
    let aged = "update seats set due = now() + make_interval(secs => ttl_ms / 2000.0 - 1)";
    world.as_superuser(aged).await;
    world.write(&beats([pool.beat(&ada)])).await;
    assert_eq!(due("").await, 1);

    // As after a silence of most of the TTL: due, and alive.
    world.as_superuser("update seats set due = now() - interval '1 second'").await;
    assert_eq!(world.log.lapsed_pools(0, 10).await.unwrap(), []);
}
