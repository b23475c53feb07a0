//! Heartbeats lie in partitions by day, and an append never fails for want of one.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use chrono::{DateTime, Days, Utc};
use events::{HeartbeatWrite, Refused};
use support::{World, beats};
use uuid::{NoContext, Timestamp, Uuid};

/// The days that have a partition, as in its name.
async fn days(world: &World) -> Vec<String> {
    let sql = "select right(relid::text, 8) from pg_partition_tree('events_heartbeat')
               where isleaf and relid::text <> 'events_heartbeat_rest' order by 1";
    world.superuser().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

fn day(after: u64) -> String {
    (Utc::now() + Days::new(after)).format("%Y%m%d").to_string()
}

/// An id that a writer's clock would have minted then.
fn id_of(at: DateTime<Utc>) -> Uuid {
    let seconds = u64::try_from(at.timestamp()).unwrap();
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, at.timestamp_subsec_nanos()))
}

async fn partition_of(world: &World, event_id: Uuid) -> String {
    let sql = "select tableoid::regclass::text from events where class = 'heartbeat' and event_id = $1";
    world.superuser().await.query_one(sql, &[&event_id]).await.unwrap().get(0)
}

#[tokio::test]
async fn migration_makes_two_weeks() {
    let world = World::new().await;
    assert_eq!(days(&world).await, (0..=14).map(day).collect::<Vec<_>>());
}

#[tokio::test]
async fn more_days_are_made_once() {
    let world = World::new().await;
    assert_eq!(world.log.ensure_partitions(14).await.unwrap(), 0);
    assert_eq!(world.log.ensure_partitions(17).await.unwrap(), 3);
    assert_eq!(world.log.ensure_partitions(17).await.unwrap(), 0);
    assert_eq!(days(&world).await, (0..=17).map(day).collect::<Vec<_>>());
    for nothing in [0, -1, i32::MIN] {
        assert_eq!(world.log.ensure_partitions(nothing).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn ninety_days_are_the_most() {
    let world = World::new().await;
    assert_eq!(world.log.ensure_partitions(i32::MAX).await.unwrap(), 76);
    assert_eq!(days(&world).await.last(), Some(&day(90)));
}

#[tokio::test]
async fn two_at_once_make_them_once() {
    let world = World::new().await;
    let (one, two) = tokio::join!(world.log.ensure_partitions(20), world.log.ensure_partitions(20));
    assert_eq!(one.unwrap() + two.unwrap(), 6);
}

#[tokio::test]
async fn a_heartbeat_lies_in_the_day_of_its_id() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let midnight =
        |after| (Utc::now() + Days::new(after)).date_naive().and_hms_opt(0, 0, 0).unwrap().and_utc();
    for (at, name) in [
        (Utc::now(), day(0)),
        (midnight(3), day(3)),
        (midnight(4) - chrono::Duration::milliseconds(1), day(3)),
    ] {
        let beat = HeartbeatWrite { event_id: id_of(at), ..pool.beat(&ada) };
        let event_id = beat.event_id;
        world.write(&beats([beat])).await;
        assert_eq!(partition_of(&world, event_id).await, format!("events_heartbeat_{name}"));
    }
}

#[tokio::test]
async fn an_id_of_no_day_lands_in_the_rest_and_works_like_any_other() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let strange = [
        id_of(Utc::now() + Days::new(20)),
        id_of(Utc::now() + Days::new(40_000)),
        id_of(Utc::now() - Days::new(2)),
        Uuid::max(),
        Uuid::nil(),
    ];
    for event_id in strange {
        let beat = beats([HeartbeatWrite { event_id, ..pool.beat(&ada) }]);
        let at = world.write(&beat).await.at;
        assert_eq!(
            world.append(&support::again(&beat)).await.refused,
            [Refused::Written { session: ada.session_id, at }]
        );
        assert_eq!(partition_of(&world, event_id).await, "events_heartbeat_rest");
    }
    assert_eq!(world.heartbeats(pool, &ada).await.len(), strange.len());

    // The day that waits in the rest stays there; the days around it are made, and a resend still finds it.
    assert_eq!(world.log.ensure_partitions(22).await.unwrap(), 7);
    let made = days(&world).await;
    assert!(made.contains(&day(19)) && !made.contains(&day(20)) && made.contains(&day(21)));
    let again = HeartbeatWrite { event_id: strange[0], ..pool.beat(&ada) };
    let next = HeartbeatWrite { event_id: id_of(Utc::now() + Days::new(20)), ..pool.beat(&ada) };
    let event_id = next.event_id;
    let known = world.append(&support::again(&beats([again]))).await.refused;
    assert!(matches!(known[..], [Refused::Written { .. }]), "{known:?}");
    world.write(&beats([next])).await;
    assert_eq!(partition_of(&world, event_id).await, "events_heartbeat_rest");
    assert_eq!(world.heartbeats(pool, &ada).await.len(), strange.len() + 1);
}

#[tokio::test]
async fn the_floor_of_an_instant_is_below_every_id_of_it() {
    let world = World::new().await;
    let sql = "select uuid_floor($1)";
    let client = world.superuser().await;
    for at in ["2026-01-01T00:00:00Z", "2031-12-31T23:59:59.999Z", "1970-01-01T00:00:00.001Z"] {
        let at: DateTime<Utc> = at.parse().unwrap();
        let floor: Uuid = client.query_one(sql, &[&at]).await.unwrap().get(0);
        assert!(floor < id_of(at) && id_of(at - chrono::Duration::milliseconds(1)) < floor, "{at}");
    }
}
