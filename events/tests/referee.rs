//! What the referee remembers beside the streams: Idempotency-Keys, users, names.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is wrong")]

mod support;

use events::{Batch, Event, EventLog, LogError, Refused, SessionEnd, Standing};
use support::{
    Holder, Pool, World, acquired, again, batch, beats, expired, given_back, holder, license_terms,
    new_event, released, revoked, user, user_added, user_removed, whole, with_key,
};

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
    world.append(&again(&renewal)).await;
    world.write(&with(&second, "key")).await;
    assert_eq!(found("key").await, stored);

    // What is refused stores nothing, and neither does what is resent after the end.
    assert_eq!(world.append(&with(&holder("ada"), "of nobody")).await.refused.len(), 1);
    assert_eq!(found("of nobody").await, None);
    world.write(&batch([pool.writes(3, [with_key(released(&first), "key")])])).await;
    let resent = world.append(&again(&renewal)).await;
    assert!(resent.heartbeat(first.session_id).is_ok());
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
