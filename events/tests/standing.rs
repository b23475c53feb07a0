//! Whether a pool accepts stands on its row, so a switch holds from the moment it is answered.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use std::time::Duration;

use events::{
    Event, EventLog, LicenseChange, LicenseId, LicenseTerms, NewEvent, Refused, Standing, TenantId, Time,
};
use support::{
    Holder, Pool, World, acquired, batch, beats, denied, expired, holder, license_terms, new_event, released,
    user_added, whole,
};

async fn change(world: &World, pool: Pool, change: LicenseChange) {
    let expected = world.version(pool.license_id.0).await;
    world.write(&whole([pool.administers(expected, [new_event(Event::LicenseUpdated(change))])])).await;
}

fn active(active: bool) -> LicenseChange {
    LicenseChange { active: Some(active), ..LicenseChange::default() }
}

fn valid(from: Option<Time>, until: Option<Time>) -> LicenseChange {
    LicenseChange { valid_from: Some(from), valid_until: Some(until), ..LicenseChange::default() }
}

/// What a heartbeat of the holder, and a grant decided on an accepting pool, are told.
async fn told(world: &World, pool: Pool, ada: &Holder) -> (Option<Standing>, Option<Standing>) {
    let before = world.everything().await;
    let beat = world.append(&beats([pool.beat(ada)])).await.refused;
    let heartbeat = beat.first().and_then(Refused::heartbeat).and_then(|(session, standing)| {
        assert_eq!((session, beat.len()), (ada.session_id, 1));
        standing.err().flatten()
    });
    let version = world.version(pool.license_id.0).await;
    let refused = world.append(&batch([pool.writes(version, [acquired(&holder("eve"))])])).await.refused;
    let grant = refused.first().map(|one| match one {
        Refused::Conflict { stream, version: now, standing } => {
            assert_eq!((*stream, *now), (pool.license_id.0, version));
            *standing
        }
        other => unreachable!("{other:?}"),
    });
    if heartbeat.is_some() && grant.is_some() {
        assert_eq!(world.everything().await, before, "what is refused is not written");
    }
    (heartbeat, grant)
}

async fn refuses(world: &World, pool: Pool, ada: &Holder, standing: Standing) {
    assert_eq!(told(world, pool, ada).await, (Some(standing), Some(standing)));
}

async fn accepts(world: &World, pool: Pool, ada: &Holder) {
    assert_eq!(told(world, pool, ada).await, (None, None));
}

#[tokio::test]
async fn a_deactivated_license_refuses_at_once_until_it_is_active_again() {
    let world = World::new().await;
    let pool = world.pool().await;
    let other = world.another_pool(pool).await;
    let (ada, bob) = (world.seat(pool, "ada").await, world.seat(other, "bob").await);
    change(&world, pool, active(false)).await;
    refuses(&world, pool, &ada, Standing::LicenseInactive).await;
    accepts(&world, other, &bob).await;
    change(&world, pool, active(true)).await;
    accepts(&world, pool, &ada).await;
}

#[tokio::test]
async fn a_deactivated_tenant_refuses_on_all_its_pools_and_no_other() {
    let world = World::new().await;
    let (pool, stranger) = (world.pool().await, world.pool().await);
    let other = world.another_pool(pool).await;
    let (ada, bob, eve) =
        (world.seat(pool, "ada").await, world.seat(other, "bob").await, world.seat(stranger, "eve").await);
    world.switch_tenant(pool, false).await;
    assert!(!world.log.stream_head(other.license_id.0).await.unwrap().unwrap().tenant_active);
    refuses(&world, pool, &ada, Standing::TenantInactive).await;
    refuses(&world, other, &bob, Standing::TenantInactive).await;
    accepts(&world, stranger, &eve).await;

    // The tenant's word goes before the license's.
    change(&world, pool, active(false)).await;
    refuses(&world, pool, &ada, Standing::TenantInactive).await;
    world.switch_tenant(pool, true).await;
    refuses(&world, pool, &ada, Standing::LicenseInactive).await;
    accepts(&world, other, &bob).await;
}

#[tokio::test]
async fn a_license_accepts_from_its_first_instant_and_not_from_its_last() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    let now = world.now().await;
    let (past, future) =
        (Time::from_millis(now.millis() - 60_000).unwrap(), now.after(Duration::from_secs(3600)));
    change(&world, pool, valid(None, Some(past))).await;
    refuses(&world, pool, &ada, Standing::LicenseExpired).await;
    change(&world, pool, valid(Some(future), None)).await;
    refuses(&world, pool, &ada, Standing::LicenseInactive).await;
    change(&world, pool, valid(Some(past), Some(future))).await;
    accepts(&world, pool, &ada).await;
    // Null clears a bound, absence leaves it.
    change(&world, pool, valid(Some(future), Some(past))).await;
    change(&world, pool, LicenseChange { valid_from: Some(None), ..LicenseChange::default() }).await;
    refuses(&world, pool, &ada, Standing::LicenseExpired).await;
    change(&world, pool, LicenseChange { valid_until: Some(None), ..LicenseChange::default() }).await;
    accepts(&world, pool, &ada).await;
}

/// Both bounds to the millisecond, asked of the function that every append asks.
#[tokio::test]
async fn the_bounds_are_exact() {
    let world = World::new().await;
    let service = world.service().await;
    let sql =
        "select standing(s, at::timestamptz) from (select (jsonb_populate_record(null::streams, $1)).*) s,
               unnest($2::text[]) with ordinality a(at, n) order by n";
    let stream = serde_json::json!({
        "tenant_active": true, "license_active": true,
        "valid_from": "2026-01-01T00:00:00Z", "valid_until": "2026-02-01T00:00:00Z",
    });
    let instants = [
        "2025-12-31T23:59:59.999Z",
        "2026-01-01T00:00:00Z",
        "2026-01-31T23:59:59.999Z",
        "2026-02-01T00:00:00Z",
    ];
    let rows = service.query(sql, &[&stream, &&instants[..]]).await.unwrap();
    let words: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(words, ["license_inactive", "ok", "ok", "license_expired"]);
    assert!(words.iter().all(|word| {
        [Standing::Ok, Standing::LicenseInactive, Standing::LicenseExpired]
            .iter()
            .any(|one| one.as_str() == word)
    }));
}

async fn issue(world: &World, tenant_id: TenantId, terms: LicenseTerms) -> Pool {
    let pool = Pool { tenant_id, license_id: LicenseId::mint() };
    world.write(&whole([pool.issues(terms)])).await;
    pool
}

async fn grant(world: &World, pool: Pool) -> Vec<Refused> {
    world.append(&batch([pool.writes(1, [acquired(&holder("ada"))])])).await.refused
}

fn conflict(pool: Pool, standing: Standing) -> [Refused; 1] {
    [Refused::Conflict { stream: pool.license_id.0, version: 1, standing }]
}

#[tokio::test]
async fn a_license_issued_to_an_inactive_tenant_is_inactive_with_it() {
    let world = World::new().await;
    let first = world.pool().await;
    world.switch_tenant(first, false).await;
    let pool = issue(&world, first.tenant_id, license_terms()).await;
    assert_eq!(grant(&world, pool).await, conflict(pool, Standing::TenantInactive));
    world.switch_tenant(first, true).await;
    assert_eq!(grant(&world, pool).await, []);
}

#[tokio::test]
async fn a_license_is_issued_with_its_own_standing() {
    let world = World::new().await;
    let tenant = world.pool().await.tenant_id;
    let now = world.now().await;
    for (terms, standing) in [
        (LicenseTerms { active: false, ..license_terms() }, Standing::LicenseInactive),
        (
            LicenseTerms { valid_from: Some(now.after(Duration::from_secs(60))), ..license_terms() },
            Standing::LicenseInactive,
        ),
        (LicenseTerms { valid_until: Some(now), ..license_terms() }, Standing::LicenseExpired),
    ] {
        let pool = issue(&world, tenant, terms).await;
        assert_eq!(grant(&world, pool).await, conflict(pool, standing));
    }
}

#[tokio::test]
async fn a_license_issued_while_its_tenant_is_switched_off_is_inactive_with_it() {
    let world = World::new().await;
    let first = world.pool().await;
    let off = events::TenantChange { active: Some(false), ..events::TenantChange::default() };
    let off = whole([first.of_tenant(4, [new_event(Event::TenantUpdated(off))])]);
    let pool = Pool { license_id: LicenseId::mint(), ..first };
    let busy = world.log.database().get().await.unwrap();
    busy.batch_execute("begin").await.unwrap();
    EventLog::append_on(&busy, &off).await.unwrap();
    let (log, issue) = (world.log.clone(), whole([pool.issues(license_terms())]));
    let issued = tokio::spawn(async move { log.append(&issue).await.unwrap().refused });
    world.somebody_waits().await;
    busy.batch_execute("commit").await.unwrap();
    assert_eq!(issued.await.unwrap(), []);
    assert_eq!(grant(&world, pool).await, conflict(pool, Standing::TenantInactive));
}

#[tokio::test]
async fn a_tenant_switched_off_while_a_license_is_issued_takes_the_new_one_along() {
    let world = World::new().await;
    let first = world.pool().await;
    let pool = Pool { license_id: LicenseId::mint(), ..first };
    let busy = world.log.database().get().await.unwrap();
    busy.batch_execute("begin").await.unwrap();
    EventLog::append_on(&busy, &whole([pool.issues(license_terms())])).await.unwrap();
    let off = events::TenantChange { active: Some(false), ..events::TenantChange::default() };
    let off = whole([first.of_tenant(4, [new_event(Event::TenantUpdated(off))])]);
    let log = world.log.clone();
    let switched = tokio::spawn(async move { log.append(&off).await.unwrap().refused });
    world.somebody_waits().await;
    busy.batch_execute("commit").await.unwrap();
    assert_eq!(switched.await.unwrap(), []);
    assert_eq!(grant(&world, pool).await, conflict(pool, Standing::TenantInactive));
}

/// A grant under way is before the switch; whatever comes after its answer is refused.
#[tokio::test]
async fn a_switch_waits_for_a_grant_under_way() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = holder("ada");
    let busy = world.log.database().get().await.unwrap();
    busy.batch_execute("begin").await.unwrap();
    EventLog::append_on(&busy, &batch([pool.writes(1, [acquired(&ada)])])).await.unwrap();
    let off = events::TenantChange { active: Some(false), ..events::TenantChange::default() };
    let off = whole([pool.of_tenant(4, [new_event(Event::TenantUpdated(off))])]);
    let log = world.log.clone();
    let switched = tokio::spawn(async move { log.append(&off).await.unwrap().refused });
    world.somebody_waits().await;
    busy.batch_execute("commit").await.unwrap();
    assert_eq!(switched.await.unwrap(), []);
    refuses(&world, pool, &ada, Standing::TenantInactive).await;
}

#[tokio::test]
async fn a_denial_is_decided_on_the_standing_that_it_names() {
    let world = World::new().await;
    let pool = world.pool().await;
    let on = |standing| {
        let write =
            events::StreamWrite { standing: Some(standing), ..pool.writes(1, [denied(&holder("ada"))]) };
        batch([write])
    };
    let refused = world.append(&on(Standing::LicenseInactive)).await.refused;
    assert_eq!(refused, conflict(pool, Standing::Ok), "it accepts: a stale actor may not say no for ever");
    change(&world, pool, active(false)).await;
    let still = events::StreamWrite {
        standing: Some(Standing::LicenseInactive),
        ..pool.writes(2, [denied(&holder("ada"))])
    };
    world.write(&batch([still])).await;
}

#[tokio::test]
async fn sessions_end_on_pools_that_do_not_accept() {
    let world = World::new().await;
    let pool = world.pool().await;
    let (ada, bob) = (world.seat(pool, "ada").await, world.seat(pool, "bob").await);
    world.lapse(&bob).await;
    world.switch_tenant(pool, false).await;
    let ends: [NewEvent; 2] = [released(&ada), expired(&bob)];
    world.write(&batch([pool.administers(3, ends)])).await;
    assert_eq!(world.log.count_seats().await.unwrap(), 0);
}

#[tokio::test]
async fn a_change_of_other_terms_switches_nothing() {
    let world = World::new().await;
    let pool = world.pool().await;
    let ada = world.seat(pool, "ada").await;
    world.switch_tenant(pool, false).await;
    let renamed = events::TenantChange { name: Some("Other".to_owned()), ..events::TenantChange::default() };
    let version = world.version(pool.tenant_id.0).await;
    world
        .write(&whole([
            pool.of_tenant(version, [new_event(Event::TenantUpdated(renamed)), user_added("new")])
        ]))
        .await;
    refuses(&world, pool, &ada, Standing::TenantInactive).await;
}

#[tokio::test]
async fn the_active_license_of_a_product_is_the_one_to_ask() {
    let world = World::new().await;
    let pool = world.pool().await;
    let newer = world.another_pool(pool).await;
    let product = license_terms().product;
    let found =
        async || world.log.find_license(pool.tenant_id, &product).await.unwrap().map(|one| one.license_id);
    assert_eq!(found().await, Some(newer.license_id), "the latest of two that are active");
    change(&world, newer, active(false)).await;
    assert_eq!(found().await, Some(pool.license_id));
    change(&world, pool, active(false)).await;
    assert_eq!(found().await, Some(newer.license_id), "the latest of two that are not");
    assert_eq!(world.log.licenses_of(pool.tenant_id).await.unwrap(), [pool.license_id, newer.license_id]);
}
