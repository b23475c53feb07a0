//! A reader by (transaction, position) never skips, whatever order writers commit in.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use events::{EventFilter, EventLog, Position, Recorded, TenantId, Time};
use futures_util::future::join_all;
use support::{Pool, World, acquired, batch, beats, denied, eventually, holder, new_event, released, user};
use uuid::Uuid;

fn ids(events: &[Recorded]) -> Vec<Uuid> {
    events.iter().map(|one| one.event_id).collect()
}

async fn count(world: &World) -> usize {
    usize::try_from(world.number("select count(*) from events").await).unwrap()
}

/// Everything, once no transaction of another test holds the reader back.
async fn everything(world: &World) -> Vec<Recorded> {
    let count = count(world).await;
    let mut all = Vec::new();
    eventually("all events are shown", async || {
        all = world.log.read_all(Position::default(), 10_000).await.unwrap();
        all.len() == count
    })
    .await;
    all
}

async fn all_of(world: &World, tenant_id: TenantId, filter: &EventFilter) -> Vec<Recorded> {
    everything(world).await;
    world.log.read_tenant(tenant_id, Position::default(), filter, 10_000).await.unwrap()
}

#[tokio::test]
async fn what_took_its_position_early_and_commits_late_is_not_skipped() {
    let world = World::new().await;
    let (early, late) = (world.pool().await, world.pool().await);
    let start = everything(&world).await.last().unwrap().cursor.position;

    let slow = world.log.database().get().await.unwrap();
    slow.batch_execute("begin").await.unwrap();
    EventLog::append_on(&slow, &batch([early.writes(1, [acquired(&holder("ada"))])])).await.unwrap();
    world.write(&batch([late.writes(1, [acquired(&holder("bob"))])])).await;

    // The later one is committed, and not shown before the earlier one is decided.
    let shown = world.log.read_all(start, 100).await.unwrap();
    assert_eq!(ids(&shown), [] as [Uuid; 0]);
    let of_tenant = world.log.read_tenant(late.tenant_id, start, &EventFilter::default(), 100).await.unwrap();
    assert_eq!(ids(&of_tenant), [] as [Uuid; 0]);
    assert_eq!(world.names(late.license_id.0).await.len(), 2, "a stream's own reader does not wait");

    slow.batch_execute("commit").await.unwrap();
    let mut shown = Vec::new();
    eventually("both are shown", async || {
        shown = world.log.read_all(start, 100).await.unwrap();
        shown.len() == 2
    })
    .await;
    assert_eq!(shown[0].stream_id, early.license_id.0);
    assert_eq!(shown[1].stream_id, late.license_id.0);
    assert!(shown[0].cursor.position < shown[1].cursor.position);
}

/// What a lag is measured by: it must not be blind to what readers may not see yet.
#[tokio::test]
async fn the_oldest_unread_event_is_told_before_it_may_be_read() {
    let world = World::new().await;
    let (busy, pool) = (world.pool().await, world.pool().await);
    let start = everything(&world).await.last().unwrap().cursor.position;
    assert_eq!(world.log.oldest_after(start).await.unwrap(), None);
    let slow = world.log.database().get().await.unwrap();
    slow.batch_execute("begin").await.unwrap();
    EventLog::append_on(&slow, &batch([busy.writes(1, [acquired(&holder("ada"))])])).await.unwrap();
    let at = world.write(&batch([pool.writes(1, [acquired(&holder("ada"))])])).await.at;
    world.write(&batch([pool.writes(2, [acquired(&holder("bob"))])])).await;
    assert_eq!(ids(&world.log.read_all(start, 10).await.unwrap()), [] as [Uuid; 0]);
    assert_eq!(world.log.oldest_after(start).await.unwrap(), Some(at));
    slow.batch_execute("commit").await.unwrap();
}

#[tokio::test]
async fn what_is_rolled_back_holds_nobody_back() {
    let world = World::new().await;
    let (gone, stays) = (world.pool().await, world.pool().await);
    let start = everything(&world).await.last().unwrap().cursor.position;
    let slow = world.log.database().get().await.unwrap();
    slow.batch_execute("begin").await.unwrap();
    EventLog::append_on(&slow, &batch([gone.writes(1, [acquired(&holder("ada"))])])).await.unwrap();
    world.write(&batch([stays.writes(1, [acquired(&holder("bob"))])])).await;
    slow.batch_execute("rollback").await.unwrap();
    let mut shown = Vec::new();
    eventually("the other is shown", async || {
        shown = world.log.read_all(start, 100).await.unwrap();
        !shown.is_empty()
    })
    .await;
    assert_eq!((shown.len(), shown[0].stream_id), (1, stays.license_id.0));
}

/// Writers that commit in any order, and a reader that goes on from where it stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_beside_writers_sees_everything_once() {
    const WRITERS: usize = 6;
    const EACH: i64 = 25;
    let world = World::new().await;
    let mut pools = Vec::new();
    for _ in 0..WRITERS {
        pools.push(world.pool().await);
    }
    let done = AtomicBool::new(false);
    let write = async {
        join_all(pools.iter().enumerate().map(|(n, pool)| {
            let log = world.log.clone();
            async move {
                let connection = log.database().get().await.unwrap();
                for version in 1..=EACH {
                    // Every other writer takes its positions well before it commits.
                    connection.batch_execute("begin").await.unwrap();
                    let grant = batch([pool.writes(version, [acquired(&holder("ada"))])]);
                    EventLog::append_on(&connection, &grant).await.unwrap();
                    if n % 2 == 0 {
                        connection.batch_execute("select pg_sleep(0.01)").await.unwrap();
                    }
                    connection.batch_execute("commit").await.unwrap();
                }
            }
        }))
        .await;
        done.store(true, Ordering::SeqCst);
    };
    let read = async {
        let mut seen = Vec::new();
        let mut at = Position::default();
        for _ in 0..20_000 {
            let writing = !done.load(Ordering::SeqCst);
            let page = world.log.read_all(at, 7).await.unwrap();
            at = page.last().map_or(at, |last| last.cursor.position);
            let idle = page.is_empty();
            seen.extend(page);
            if !writing && seen.len() == count(&world).await {
                break;
            }
            if idle {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        seen
    };
    let ((), seen) = tokio::join!(write, read);
    let unique: HashSet<_> = ids(&seen).into_iter().collect();
    assert_eq!((seen.len(), unique.len()), (count(&world).await, count(&world).await));
    assert!(seen.windows(2).all(|pair| pair[0].cursor.position < pair[1].cursor.position));
    for pool in &pools {
        let versions = seen.iter().filter(|one| one.stream_id == pool.license_id.0).map(|one| one.version);
        assert_eq!(versions.collect::<Vec<_>>(), (1..=EACH + 1).map(Some).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn pages_of_any_size_are_the_same_list() {
    let world = World::new().await;
    let (pool, other) = (world.pool().await, world.pool().await);
    for n in 0..5 {
        let ada = world.seat(pool, "ada").await;
        world.write(&batch([other.writes(1, [denied(&holder("bob")), denied(&holder("bob"))])])).await;
        if n % 2 == 0 {
            world.write(&beats([pool.beat(&ada)])).await;
        }
    }
    let all = everything(&world).await;
    let of_tenant = all_of(&world, other.tenant_id, &EventFilter::default()).await;
    assert!(!of_tenant.is_empty() && of_tenant.len() < all.len());
    for size in [1, 2, 3, 1000] {
        let (mut paged, mut of_one) = (Vec::new(), Vec::new());
        while let Some(page) = next(&paged, async |at| world.log.read_all(at, size).await.unwrap()).await {
            paged.extend(page);
        }
        assert_eq!(paged, all);
        let filter = EventFilter::default();
        while let Some(page) =
            next(&of_one, async |at| world.log.read_tenant(other.tenant_id, at, &filter, size).await.unwrap())
                .await
        {
            of_one.extend(page);
        }
        assert_eq!(of_one, of_tenant);
    }
}

async fn next(
    seen: &[Recorded],
    mut read: impl AsyncFnMut(Position) -> Vec<Recorded>,
) -> Option<Vec<Recorded>> {
    let page = read(seen.last().map_or(Position::default(), |last| last.cursor.position)).await;
    (!page.is_empty()).then_some(page)
}

#[tokio::test]
async fn a_tenants_reader_shows_its_own_events_only() {
    let world = World::new().await;
    let (pool, other) = (world.pool().await, world.pool().await);
    let second = world.another_pool(pool).await;
    world.seat(pool, "ada").await;
    world.seat(second, "bob").await;
    world.seat(other, "eve").await;
    let own = all_of(&world, pool.tenant_id, &EventFilter::default()).await;
    assert!(own.iter().all(|one| one.tenant_id == pool.tenant_id));
    // The tenant and its users, two licenses, two seats.
    assert_eq!(own.len(), 4 + 2 + 2);
    let nobody = TenantId::mint();
    assert_eq!(all_of(&world, nobody, &EventFilter::default()).await, []);
}

/// A history to pick from, its middle cut by a time.
async fn history(world: &World) -> (Pool, support::Holder, Time) {
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    world.seat(pool, "bob").await;
    world.write(&beats([pool.beat(&ada)])).await;
    let first = world.now().await;
    // Times are whole milliseconds: what follows is later.
    eventually("a millisecond has passed", async || world.now().await > first).await;
    let cut = world.now().await;
    world.write(&batch([pool.writes(3, [released(&ada), denied(&holder("ada"))])])).await;
    (pool, ada, cut)
}

#[tokio::test]
async fn filters_pick_and_combine() {
    let world = World::new().await;
    let (pool, ada, cut) = history(&world).await;
    let all = all_of(&world, pool.tenant_id, &EventFilter::default()).await;
    let none = EventFilter::default();
    let by_type = |name: &str| EventFilter { event_type: Some(name.to_owned()), ..EventFilter::default() };
    let by_user = EventFilter { user_id: Some(user("ada")), ..EventFilter::default() };
    let by_session = EventFilter { session_id: Some(ada.session_id), ..EventFilter::default() };
    type Keeps = fn(&Recorded, Time) -> bool;
    let cases: [(&str, EventFilter, Keeps); 7] = [
        ("none", none.clone(), |_, _| true),
        ("type", by_type("seat_acquired"), |one, _| one.event.name() == "seat_acquired"),
        ("unknown type", by_type("' or true --"), |_, _| false),
        ("user", by_user.clone(), |one, _| {
            one.subject.user_id.as_ref().is_some_and(|id| id.as_str() == "ada")
        }),
        ("from", EventFilter { from: Some(cut), ..none.clone() }, |one, cut| one.occurred_at >= cut),
        ("to", EventFilter { to: Some(cut), ..none.clone() }, |one, cut| one.occurred_at < cut),
        ("user and type", EventFilter { user_id: Some(user("ada")), ..by_type("seat_denied") }, |one, _| {
            one.event.name() == "seat_denied"
        }),
    ];
    for (name, filter, keeps) in cases {
        let found = all_of(&world, pool.tenant_id, &filter).await;
        let wanted: Vec<_> = all.iter().filter(|one| keeps(one, cut)).cloned().collect();
        assert_eq!(found, wanted, "{name}");
    }
    let of_session = all_of(&world, pool.tenant_id, &by_session).await;
    let names: Vec<_> = of_session.iter().map(|one| one.event.name()).collect();
    assert_eq!(names, ["seat_acquired", "seat_heartbeat", "seat_released"]);
    let both = EventFilter { from: Some(cut), to: Some(cut), ..none };
    assert_eq!(all_of(&world, pool.tenant_id, &both).await, []);
    let before_and_about = EventFilter { to: Some(cut), ..by_user };
    assert_eq!(all_of(&world, pool.tenant_id, &before_and_about).await.len(), 3);
}

#[tokio::test]
async fn a_cursor_as_text_goes_on_from_its_event() {
    let world = World::new().await;
    let (pool, ..) = history(&world).await;
    let all = all_of(&world, pool.tenant_id, &EventFilter::default()).await;
    let seal = world.log.cursors().await.unwrap();
    for (n, one) in all.iter().enumerate() {
        let place = seal.open(&one.cursor.to_string()).unwrap();
        assert_eq!(place, one.cursor.position);
        let rest = world.log.read_tenant(pool.tenant_id, place, &EventFilter::default(), 100).await.unwrap();
        assert_eq!(rest, all[n + 1..]);
    }
    world.as_superuser("update log_epoch set epoch = 2").await;
    let restored = world.log.cursors().await.unwrap();
    let before = all[0].cursor.to_string();
    assert!(restored.open(&before).is_err() && seal.open(&before).is_ok());
    let again = everything(&world).await[0].cursor;
    assert_eq!(restored.open(&again.to_string()), Ok(again.position));
}

#[tokio::test]
async fn a_stream_longer_than_a_page_is_read_whole() {
    let world = World::new().await;
    let pool = world.pool().await;
    let change = || new_event(events::Event::LicenseUpdated(events::LicenseChange::default()));
    for n in 0..3 {
        let many = (0..2_000).map(|_| change());
        world.write(&support::whole([pool.administers(1 + n * 2_000, many)])).await;
    }
    let log = world.log.decisions(pool.license_id.0).await.unwrap();
    let versions: Vec<_> = log.iter().map(|one| one.version.unwrap()).collect();
    assert_eq!(versions, (1..=6_001).collect::<Vec<_>>());
    assert_eq!(world.log.decisions_after(pool.license_id.0, 6_001).await.unwrap(), []);
    assert_eq!(world.log.decisions(Uuid::now_v7()).await.unwrap(), []);
}
