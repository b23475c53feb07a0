//! What lists show, from events written at known times.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod support;

use events::{EventFilter, SessionId};
use projections::{Bucket, DenialFilter, SessionFilter, SessionState, UsageRange};
use serde_json::json;
use support::{World, time};

#[tokio::test]
async fn a_day_of_a_small_tenant() {
    let world = World::new().await;
    let pool = world.pool(2, time("2026-03-01T08:00:00Z")).await;
    let (one, two, three) = (SessionId::mint(), SessionId::mint(), SessionId::mint());
    world
        .tell(&[
            pool.acquired(one, "ada", time("2026-03-02T09:00:00Z")),
            pool.acquired(two, "bob", time("2026-03-02T09:00:30Z")),
            pool.denied("eve", time("2026-03-02T09:01:00Z")),
            pool.released(one, "ada", time("2026-03-02T09:05:30Z")),
            pool.acquired(three, "eve", time("2026-03-02T09:06:00Z")),
            pool.revoked(two, "bob", time("2026-03-02T10:00:00Z")),
            pool.license_updated(json!({"seats_total": 7}), time("2026-03-02T11:00:00Z")),
        ])
        .await;
    world.fold(3).await;

    let tenants = world.models.tenants(None, 10).await.unwrap();
    let tenant = &tenants.items[0];
    assert_eq!((tenant.max_seats, tenant.seats_used, tenant.seats_total), (7, 1, 7));
    assert_eq!(tenant.license_id, Some(pool.license_id));
    let licenses = world.models.licenses(pool.tenant_id, None, 10).await.unwrap();
    assert_eq!(
        (licenses.items[0].seats_total, licenses.items[0].seats_used, licenses.items[0].version),
        (7, 1, 7)
    );

    let sessions = world.models.sessions(pool.tenant_id, &SessionFilter::default(), None, 10).await.unwrap();
    let states: Vec<_> = sessions.items.iter().map(|one| one.state).collect();
    assert_eq!(states, [SessionState::Released, SessionState::Revoked, SessionState::Active]);
    assert_eq!(sessions.items[1].ended_reason.as_deref(), Some("left the company"));

    let denials = world.models.denials(pool.tenant_id, &DenialFilter::default(), None, 10).await.unwrap();
    assert_eq!(denials.items[0].granted_after_seconds, Some(300.0));

    let range = UsageRange {
        bucket: Bucket::Hour,
        from: time("2026-03-02T08:00:00Z"),
        to: time("2026-03-02T12:00:00Z"),
        license_id: None,
    };
    let usage = world.models.usage(pool.tenant_id, &range).await.unwrap();
    let told: Vec<_> = usage
        .items()
        .map(|one| (one.seats_total, one.peak, one.acquired, one.denied, one.revoked, one.unique_users))
        .collect();
    assert_eq!(told, [(2, 0, 0, 0, 0, 0), (2, 2, 3, 1, 0, 3), (2, 1, 0, 0, 1, 1), (7, 1, 0, 0, 0, 1)]);

    let trail = world.models.audit_trail(pool.tenant_id, &EventFilter::default(), None, 3).await.unwrap();
    assert_eq!(
        trail.items[0].sentence,
        format!("The tenant Acme (acme-{}) was created on plan team.", pool.tenant_id)
    );
    assert!(trail.next.is_some());
}
