//! The one door: what it writes, what it refuses, and that a refusal leaves no trace.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

mod support;

use std::time::Duration;

use events::{Batch, Event, EventFilter, EventLog, LogError, NewEvent, Position, Refused, Standing};
use support::{
    Holder, Pool, TTL, World, acquired, again, batch, beats, denied, expired, holder, released, user,
    user_added, with_key,
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
    assert!(
        log.windows(2).all(|pair| pair[0].cursor.position < pair[1].cursor.position),
        "the global order is the stream's"
    );
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
async fn users_are_added_beside_other_pools_decisions() {
    let world = World::new().await;
    let (pool, other) = (world.pool().await, world.pool().await);
    let expected = world.version(pool.tenant_id.0).await;
    let added = pool.of_tenant(expected, [user_added("new")]);
    let together = batch([added, other.writes(1, [denied(&holder("eve"))])]);
    world.write(&together).await;
    assert_eq!(world.version(pool.tenant_id.0).await, expected + 1);
    let bob = holder("new");
    world.write(&batch([pool.writes(1, [acquired(&bob)])])).await;

    // Somebody was faster: nobody is added, and the other pool does not care.
    let stale = pool.of_tenant(expected, [user_added("late")]);
    let refused = world.append(&batch([stale, other.writes(1, [denied(&holder("eve"))])])).await.refused;
    assert!(matches!(refused[..], [Refused::Conflict { .. }]), "{refused:?}");
    assert_eq!(world.number("select count(*) from users where user_id = 'late'").await, 0);
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
    let known = world.append(&again(&both)).await;
    assert!(known.heartbeat(ada.session_id).is_ok() && known.heartbeat(bob.session_id).is_ok());
    assert_eq!(world.heartbeats(other, &bob).await.len(), 1);
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
