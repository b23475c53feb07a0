//! What-if against histories that were worked out by hand.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use events::SessionId;
use projections::{QueryError, WhatIf, WhatIfQuestion};
use support::{Pool, World, time};

/// Ada holds the only seat from 9:00 to 10:00; Bob is refused at 9:10 and 9:30, gets it at 10:00 and keeps it until 11:00;
/// Eve is refused at 9:40 and gives up.
async fn morning() -> (World, Pool) {
    let world = World::new().await;
    let pool = world.pool(1, time("2026-03-01T08:00:00Z")).await;
    let (ada, bob) = (SessionId::mint(), SessionId::mint());
    let at = |clock: &str| time(&format!("2026-03-02T{clock}:00Z"));
    world
        .tell(&[
            pool.acquired(ada, "ada", at("09:00")),
            pool.denied("bob", at("09:10")),
            pool.denied("bob", at("09:30")),
            pool.denied("eve", at("09:40")),
            pool.released(ada, "ada", at("10:00")),
            pool.acquired(bob, "bob", at("10:00")),
            pool.released(bob, "bob", at("11:00")),
        ])
        .await;
    world.fold(100).await;
    (world, pool)
}

async fn ask(
    world: &World,
    pool: Pool,
    seats: Option<i64>,
    ttl_seconds: Option<i64>,
) -> Result<WhatIf, QueryError> {
    let question = WhatIfQuestion {
        license_id: None,
        from: time("2026-03-02T00:00:00Z"),
        to: time("2026-03-03T00:00:00Z"),
        seats,
        ttl_seconds,
    };
    world.models.what_if(pool.tenant_id, &question).await
}

#[tokio::test]
async fn more_seats_and_fewer() {
    let (world, pool) = morning().await;
    let one_more = ask(&world, pool, Some(2), None).await.unwrap();
    assert_eq!(one_more.wishes, 3);
    let was = &one_more.as_it_was;
    assert_eq!((was.peak, was.peak_demand, was.denied, was.never_granted), (1, 3, 2, 1));
    // Bob waits from 9:10 to 10:00; Eve asks once and goes.
    assert!((was.denial_minutes - 50.0).abs() < 0.01, "{was:?}");
    assert_eq!(was.users[0].user_id, "bob");
    let then = &one_more.what_if;
    assert_eq!((then.peak, then.peak_demand, then.denied, then.never_granted), (2, 3, 1, 1));
    let three = ask(&world, pool, Some(3), None).await.unwrap().what_if;
    assert_eq!((three.peak, three.denied, three.denial_minutes), (3, 0, 0.0));
    assert_eq!(three.users, []);
    // With no seat at all, everybody waits until their time is over: 60 and 110 minutes, and an instant.
    let none = ask(&world, pool, Some(0), None).await.unwrap().what_if;
    assert_eq!((none.peak, none.denied, none.never_granted), (0, 3, 3));
    assert!((none.denial_minutes - 170.0).abs() < 0.01, "{none:?}");
    // As many as there were changes nothing.
    let same = ask(&world, pool, Some(1), None).await.unwrap();
    assert_eq!(same.as_it_was, same.what_if);
}

/// A holder that fell silent at 9:00 kept the seat until 9:06; with a TTL of a minute it is free at 9:01.
#[tokio::test]
async fn another_ttl() {
    let world = World::new().await;
    let pool = world.pool(1, time("2026-03-01T08:00:00Z")).await;
    let (ada, bob) = (SessionId::mint(), SessionId::mint());
    let at = |clock: &str| time(&format!("2026-03-02T{clock}Z"));
    world
        .tell(&[
            pool.acquired(ada, "ada", at("09:00:00")),
            pool.denied("bob", at("09:02:00")),
            pool.expired(ada, "ada", at("09:06:00")),
            pool.acquired(bob, "bob", at("09:06:00")),
            pool.released(bob, "bob", at("10:00:00")),
        ])
        .await;
    world.fold(100).await;
    let answer = ask(&world, pool, None, Some(60)).await.unwrap();
    assert_eq!((answer.as_it_was.denied, answer.what_if.denied), (1, 0));
    assert!((answer.as_it_was.denial_minutes - 4.0).abs() < 0.01);
}

#[tokio::test]
async fn what_cannot_be_asked() {
    let (world, pool) = morning().await;
    for (seats, ttl) in
        [(None, None), (Some(-1), None), (Some(1_000_001), None), (None, Some(0)), (None, Some(700_000))]
    {
        let refused = ask(&world, pool, seats, ttl).await;
        assert!(matches!(refused, Err(QueryError::Invalid { .. })), "{seats:?} {ttl:?}");
    }
    let nobody = Pool { tenant_id: events::TenantId::mint(), ..pool };
    assert!(matches!(ask(&world, nobody, Some(1), None).await, Err(QueryError::Invalid { .. })));
}
