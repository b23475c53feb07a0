//! Every event ever written can be read, and is written as it was: the files in `golden/` are never edited.
//!
//! A change of shape turns this red. Then: raise the format in `codec.rs`, add an upcast and the next golden file,
//! and leave the old file as it is.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use std::collections::{BTreeMap, BTreeSet};

use events::{
    AddReason, Event, LicenseChange, LicenseTerms, MachineName, Product, RevokedBy, Seats, TenantChange,
    TenantTerms, Time, UserChange, decode, encode,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// What was written while format 1 was the newest.
const FORMAT_1: &str = include_str!("golden/format-1.json");

/// One stored event.
#[derive(Debug, Deserialize)]
struct Golden {
    name: String,
    #[serde(rename = "type")]
    event_type: String,
    format: i16,
    data: Value,
}

fn golden() -> Vec<Golden> {
    serde_json::from_str(FORMAT_1).unwrap()
}

fn time(text: &str) -> Time {
    Time::parse(text).unwrap()
}

fn seats(count: i64) -> Seats {
    Seats::new(count).unwrap()
}

/// The events that the files hold, by name.
fn samples() -> BTreeMap<&'static str, Event> {
    [tenants(), users(), licenses(), sessions(), keys()].into_iter().flatten().collect()
}

fn tenants() -> Vec<(&'static str, Event)> {
    let terms = TenantTerms {
        name: "Acme GmbH & Co".to_owned(),
        subdomain: "acme".to_owned(),
        plan: "enterprise".to_owned(),
        max_seats: seats(25),
        active: true,
        identity_tenant: Some("org_2f9".to_owned()),
    };
    let bare = TenantTerms { max_seats: seats(0), active: false, identity_tenant: None, ..terms.clone() };
    let all = TenantChange {
        name: Some("Acme AG".to_owned()),
        plan: Some("team".to_owned()),
        max_seats: Some(seats(1_000_000)),
        active: Some(false),
        identity_tenant: Some(Some("org_3a0".to_owned())),
    };
    let cleared = TenantChange { identity_tenant: Some(None), ..TenantChange::default() };
    vec![
        ("tenant_created", Event::TenantCreated(terms)),
        ("tenant_created, bare", Event::TenantCreated(bare)),
        ("tenant_updated", Event::TenantUpdated(all)),
        ("tenant_updated, cleared", Event::TenantUpdated(cleared)),
        ("tenant_updated, nothing", Event::TenantUpdated(TenantChange::default())),
    ]
}

fn users() -> Vec<(&'static str, Event)> {
    let added = Event::UserAdded {
        email: Some("ada@acme.example".to_owned()),
        roles: vec!["admin".to_owned(), "member".to_owned()],
        reason: AddReason::Admin,
    };
    let arrived = Event::UserAdded { email: None, roles: Vec::new(), reason: AddReason::FirstAcquire };
    let changed = UserChange {
        email: Some(Some("ada@new.example".to_owned())),
        roles: Some(vec!["member".to_owned()]),
    };
    let cleared = UserChange { email: Some(None), roles: None };
    vec![
        ("user_added", added),
        ("user_added, first acquire", arrived),
        ("user_updated", Event::UserUpdated(changed)),
        ("user_updated, cleared", Event::UserUpdated(cleared)),
        ("user_updated, nothing", Event::UserUpdated(UserChange::default())),
        ("user_removed", Event::UserRemoved {}),
    ]
}

fn licenses() -> Vec<(&'static str, Event)> {
    let terms = LicenseTerms {
        product: Product::new("coditect").unwrap(),
        plan: "enterprise".to_owned(),
        seats_total: seats(25),
        active: true,
        features: vec!["export".to_owned(), "sso".to_owned()],
        valid_from: Some(time("2026-01-01T00:00:00Z")),
        valid_until: Some(time("2027-01-01T00:00:00+01:00")),
        offline_grace_seconds: Some(3_600),
    };
    let bare = LicenseTerms {
        active: false,
        features: Vec::new(),
        valid_from: None,
        valid_until: None,
        offline_grace_seconds: None,
        ..terms.clone()
    };
    let all = LicenseChange {
        plan: Some("team".to_owned()),
        seats_total: Some(seats(5)),
        active: Some(true),
        features: Some(vec!["sso".to_owned()]),
        valid_from: Some(Some(time("2026-02-01T00:00:00Z"))),
        valid_until: Some(Some(time("2026-03-01T00:00:00Z"))),
        offline_grace_seconds: Some(Some(0)),
    };
    let cleared = LicenseChange {
        valid_from: Some(None),
        valid_until: Some(None),
        offline_grace_seconds: Some(None),
        ..LicenseChange::default()
    };
    vec![
        ("license_issued", Event::LicenseIssued(terms)),
        ("license_issued, bare", Event::LicenseIssued(bare)),
        ("license_updated", Event::LicenseUpdated(all)),
        ("license_updated, cleared", Event::LicenseUpdated(cleared)),
        ("license_updated, nothing", Event::LicenseUpdated(LicenseChange::default())),
    ]
}

fn sessions() -> Vec<(&'static str, Event)> {
    let deadline = time("2026-01-02T03:04:05.678Z");
    let acquired =
        |machine_name| Event::SeatAcquired { seats_used: 3, seats_total: seats(25), deadline, machine_name };
    let reason = "no_seats_available".to_owned();
    vec![
        ("seat_acquired", acquired(Some(MachineName::new("Adas Mäc").unwrap()))),
        ("seat_acquired, nameless", acquired(None)),
        ("seat_heartbeat", Event::SeatHeartbeat { deadline }),
        ("seat_released", Event::SeatReleased {}),
        ("seat_expired", Event::SeatExpired { deadline }),
        ("seat_denied", Event::SeatDenied { reason, seats_used: 25, seats_total: seats(25) }),
        (
            "seat_revoked",
            Event::SeatRevoked { by: RevokedBy("auth0|7".to_owned()), reason: "left \"Acme\"".to_owned() },
        ),
    ]
}

fn keys() -> Vec<(&'static str, Event)> {
    let kid = || "b7Kx0cGQ".to_owned();
    let version = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/2".to_owned();
    let (ada, serve) = ("ada@ops".to_owned(), "serve".to_owned());
    let retired = |emergency, reason: &str| Event::SigningKeyRetired {
        kid: kid(),
        emergency,
        reason: reason.to_owned(),
        by: "ada@ops".to_owned(),
    };
    vec![
        ("signing_key_created", Event::SigningKeyCreated { kid: kid(), held_by: version, by: ada }),
        (
            "signing_key_published",
            Event::SigningKeyPublished { kid: kid(), held_by: "local".to_owned(), by: serve },
        ),
        ("signing_key_activated", Event::SigningKeyActivated { kid: kid(), offline_grace_seconds: 86_400 }),
        ("signing_key_retired", retired(false, "")),
        ("signing_key_retired, emergency", retired(true, "laptop stolen")),
    ]
}

/// How many types there are, and a number for each: a new one does not compile before it has its golden data.
const TYPES: usize = 17;

fn number(event: &Event) -> usize {
    match event {
        Event::TenantCreated(_) => 0,
        Event::TenantUpdated(_) => 1,
        Event::UserAdded { .. } => 2,
        Event::UserUpdated(_) => 3,
        Event::UserRemoved {} => 4,
        Event::LicenseIssued(_) => 5,
        Event::LicenseUpdated(_) => 6,
        Event::SeatAcquired { .. } => 7,
        Event::SeatHeartbeat { .. } => 8,
        Event::SeatReleased {} => 9,
        Event::SeatExpired { .. } => 10,
        Event::SeatDenied { .. } => 11,
        Event::SeatRevoked { .. } => 12,
        Event::SigningKeyCreated { .. } => 13,
        Event::SigningKeyPublished { .. } => 14,
        Event::SigningKeyActivated { .. } => 15,
        Event::SigningKeyRetired { .. } => 16,
    }
}

#[test]
fn every_type_has_golden_data_of_every_format() {
    let covered: BTreeSet<_> = samples().values().map(number).collect();
    assert_eq!(covered, (0..TYPES).collect());
    let names: BTreeSet<_> = samples().values().map(Event::name).collect();
    assert_eq!(names, BTreeSet::from(Event::NAMES));
    let samples: BTreeSet<_> = samples().into_keys().map(str::to_owned).collect();
    let golden: BTreeSet<_> = golden().into_iter().map(|one| one.name).collect();
    assert_eq!(samples, golden);
}

#[test]
fn what_was_written_is_read() {
    let samples = samples();
    for one in golden() {
        let event = decode(&one.event_type, one.format, one.data).unwrap();
        assert_eq!(event, samples[one.name.as_str()], "{}", one.name);
    }
}

/// Once there is a newer format, this is asked of its file only.
#[test]
fn what_is_written_has_not_changed() {
    let samples = samples();
    for one in golden() {
        let event = &samples[one.name.as_str()];
        assert_eq!(encode(event).unwrap(), (one.event_type.clone(), one.format, one.data), "{}", one.name);
        assert_eq!(event.name(), one.event_type);
    }
}

#[test]
fn observations_have_no_version_and_decisions_do() {
    let observations: BTreeSet<_> =
        samples().values().filter(|event| !event.is_decision()).map(Event::name).collect();
    assert_eq!(observations, BTreeSet::from(["seat_denied", "seat_heartbeat"]));
}

/// Data that a field was added to later, without a new format: read as if the field were null.
#[test]
fn a_field_with_a_default_may_be_absent() {
    for (name, field) in
        [("seat_acquired, nameless", "machine_name"), ("tenant_created, bare", "identity_tenant")]
    {
        let mut one = golden().into_iter().find(|one| one.name == name).unwrap();
        assert_eq!(one.data.as_object_mut().unwrap().remove(field), Some(Value::Null));
        assert_eq!(decode(&one.event_type, one.format, one.data).unwrap(), samples()[name]);
    }
}

/// An older replica reads what a newer one wrote in the same format.
#[test]
fn a_field_that_nobody_knows_is_passed_over() {
    for mut one in golden() {
        one.data.as_object_mut().unwrap().insert("of_the_future".to_owned(), json!([1, 2]));
        let event = decode(&one.event_type, one.format, one.data).unwrap();
        assert_eq!(event, samples()[one.name.as_str()], "{}", one.name);
    }
}

#[test]
fn a_field_without_a_default_is_needed() {
    let optional = ["machine_name", "identity_tenant", "email"];
    // Options outside of a change are read as null where they are absent.
    let terms = ["valid_from", "valid_until", "offline_grace_seconds"];
    for one in golden().into_iter().filter(|one| !one.event_type.ends_with("_updated")) {
        for field in one.data.as_object().unwrap().keys() {
            if optional.contains(&field.as_str()) || terms.contains(&field.as_str()) {
                continue;
            }
            let mut data = one.data.clone();
            data.as_object_mut().unwrap().remove(field);
            assert!(decode(&one.event_type, one.format, data).is_err(), "{} without {field}", one.name);
        }
    }
}
