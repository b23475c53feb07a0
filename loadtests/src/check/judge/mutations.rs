//! Every invariant has something that turns it red: here the history, the log or a store is falsified in one place.
//! (That a server which breaks the protocol turns them red is shown with real processes, by its fail points.)
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use serde_json::json;

use super::super::examine::report;
use super::super::history::{Act, FaultKind, Origin, Outcome};
use super::super::report::{Invariant, Verdict};
use super::made::{ONE, S1, S2, S3, TTL_MS, World, acquire, ms, refused, time, unix, world};

type Allowed = (&'static str, fn(&mut World));
type Mutation = (&'static str, Invariant, fn(&mut World));

/// What is falsified, and which invariant says so.
const MUTATIONS: &[Mutation] = &[
    ("a client is granted a seat of a full pool", Invariant::I1, |w| {
        w.grant(3_200, ONE, (4, 3), ("s9", "u9", "m9"), None);
    }),
    ("a release comes later than the next grant", Invariant::I1, |w| {
        w.history.calls.retain(|call| call.sent != ms(2_005));
        w.call(2_000).sent = ms(3_500);
        w.call(2_500).act = Act::SetSeats { license: "l1".into(), seats: 2 };
    }),
    ("the limit was lower all the time", Invariant::I1, |w| w.history.tenants[0].pools[0].seats = Some(1)),
    ("the log's limit is lower than what it grants", Invariant::I2, |w| {
        let issued =
            w.rows().iter_mut().find(|row| row.kind == "license_issued" && row.stream == "l1").unwrap();
        issued.data = json!({"product": "coditect", "seats_total": 1, "active": true});
    }),
    ("a grant is doubled", Invariant::I2, |w| {
        let data = json!({"seats_used": 3, "seats_total": 3, "deadline": time(14_100 + TTL_MS)});
        for n in 0..3 {
            let session = format!("s{}", 20 + n);
            w.write(14_100, "seat_acquired", "l1", Some((&session, &format!("u{n}"), "m")), data.clone());
        }
    }),
    ("a grant in a suspended license", Invariant::I2, |w| {
        w.write(14_100, "license_updated", "l1", None, json!({"active": false}));
        let data = json!({"seats_used": 2, "seats_total": 3, "deadline": time(14_200 + TTL_MS)});
        w.write(14_200, "seat_acquired", "l1", Some(("s20", "u20", "m20")), data);
    }),
    ("a grant in a suspended tenant", Invariant::I2, |w| {
        w.write(14_100, "tenant_updated", "t1", None, json!({"active": false}));
        let data = json!({"seats_used": 2, "seats_total": 3, "deadline": time(14_200 + TTL_MS)});
        w.write(14_200, "seat_acquired", "l1", Some(("s20", "u20", "m20")), data);
    }),
    ("a grant to a user who was removed", Invariant::I2, |w| {
        w.write(14_100, "user_removed", "t1", Some(("", "u20", "")), json!({}));
        let data = json!({"seats_used": 2, "seats_total": 3, "deadline": time(14_200 + TTL_MS)});
        w.write(14_200, "seat_acquired", "l1", Some(("s20", "u20", "m20")), data);
    }),
    ("a removed user's session lives on", Invariant::I3, |w| {
        w.write(14_100, "user_removed", "t1", Some(("", "u3", "")), json!({}));
        let act = Act::RemoveUser { removed: "u3".into() };
        w.tell(14_100, "t1", "admin", act, Origin::Fresh, Outcome::Ok { status: 204, body: json!(null) });
    }),
    ("a heartbeat that was answered is not in the log", Invariant::I3, |w| {
        w.drop_rows(|row| row.kind == "seat_heartbeat" && row.at_ms == unix(1_005));
    }),
    ("a grant that was answered is not in the log", Invariant::I3, |w| {
        w.drop_rows(|row| row.session.as_deref() == Some("s1"));
    }),
    ("a release that was answered is not in the log", Invariant::I3, |w| {
        w.drop_rows(|row| row.kind == "seat_released")
    }),
    ("a renewal that was answered has no heartbeat", Invariant::I3, |w| {
        w.drop_rows(|row| row.kind == "seat_heartbeat" && row.at_ms == unix(8_005));
    }),
    ("a change that was answered is not in the log", Invariant::I3, |w| {
        w.drop_rows(|row| row.kind == "license_updated")
    }),
    ("a grant answers another request", Invariant::I3, |w| {
        w.row("seat_acquired", "s1").request = Some("another".into());
    }),
    ("a decision is missing", Invariant::I4, |w| w.drop_rows(|row| row.kind == "seat_revoked")),
    ("the last decision is missing", Invariant::I4, |w| w.drop_rows(|row| row.kind == "seat_expired")),
    ("a version is repeated", Invariant::I4, |w| w.row("seat_acquired", "s2").version = Some(2)),
    ("time goes back in a stream", Invariant::I4, |w| w.row("seat_acquired", "s3").at_ms = unix(100)),
    ("a row of the seats table is missing", Invariant::I5, |w| {
        w.evidence.reading.as_mut().unwrap().seats.remove(0);
    }),
    ("a row of the seats table is left over", Invariant::I5, |w| {
        let mut ghost = w.evidence.seats[0].clone();
        ghost.session = "s1".into();
        w.evidence.reading.as_mut().unwrap().seats.push(ghost);
    }),
    ("a deadline of the seats table is another", Invariant::I5, |w| {
        w.evidence.reading.as_mut().unwrap().seats[0].deadline_ms += 1;
    }),
    ("a ghost in Redis", Invariant::I5, |w| {
        w.evidence.mirrors.as_mut().unwrap().get_mut("l1").unwrap().live.insert("ghost".into(), 9_000);
    }),
    ("Redis has forgotten a session", Invariant::I5, |w| {
        w.evidence.mirrors.as_mut().unwrap().get_mut("l2").unwrap().live.clear();
    }),
    ("the API shows a session that has ended", Invariant::I5, |w| {
        let shown = w.evidence.shown.as_mut().unwrap().get_mut("t1").unwrap();
        shown.sessions.as_mut().unwrap().get_mut("l1").unwrap().insert("s1".into());
    }),
    ("the API's state lacks a session", Invariant::I5, |w| {
        w.evidence.shown.as_mut().unwrap().get_mut("t1").unwrap().state.as_mut().unwrap().clear();
    }),
    ("the API counts a seat too many", Invariant::I5, |w| {
        let shown = w.evidence.shown.as_mut().unwrap().get_mut("t1").unwrap();
        shown.licenses.as_mut().unwrap().insert("l1".into(), (2, 3));
    }),
    ("the second reading lacks a row", Invariant::I6, |w| {
        w.evidence.reading.as_mut().unwrap().again.retain(|row| row.at_ms != unix(14_005));
    }),
    ("the second reading has another value", Invariant::I6, |w| {
        w.evidence.reading.as_mut().unwrap().again[1].data = json!({"seats_total": 4});
    }),
    ("a holder is told that its session has ended", Invariant::I7, |w| {
        let act = Act::Heartbeat { session: "s3".into() };
        w.tell(12_005, "t1", "u3", act, Origin::Fresh, refused(410, "session_ended"));
    }),
    ("a holder's session is not in the log any more", Invariant::I7, |w| {
        w.write(14_500, "seat_expired", "l1", Some(S3), json!({"deadline": time(14_400)}));
    }),
    ("a limit that was answered is not in force", Invariant::I7, |w| {
        w.write(14_100, "license_updated", "l1", None, json!({"seats_total": 7}));
    }),
    ("who kept trying through an outage has lost its seat", Invariant::I7, |w| {
        w.history.faults[0].began = ms(9_000);
        w.history.faults[0].healed = Some(ms(13_000));
        w.history.faults[0].kind = FaultKind::postgres_outage();
        for at in [9_500, 10_500, 11_500] {
            let act = Act::Heartbeat { session: "s2".into() };
            w.tell(at, "t1", "u2", act, Origin::Fresh, Outcome::Unknown { why: "503 unavailable".into() });
        }
        let act = Act::Heartbeat { session: "s2".into() };
        w.tell(13_100, "t1", "u2", act, Origin::Fresh, refused(410, "session_ended"));
    }),
    ("a crashed holder's seat is freed too late", Invariant::I8, |w| {
        w.row("seat_expired", "s2").at_ms = unix(210 + TTL_MS + 2_100);
    }),
    ("a crashed holder's seat is never freed", Invariant::I8, |w| {
        w.drop_rows(|row| row.kind == "seat_expired");
    }),
    ("no acquire succeeds after a fault", Invariant::I8, |w| {
        w.history.faults[0].healed = Some(ms(8_500));
    }),
    ("a late heartbeat of an ended session succeeds", Invariant::I9, |w| {
        w.call(5_000).outcome = Outcome::Ok { status: 200, body: json!({"expires_at": time(15_000)}) };
    }),
    ("a late acquire with the key of an ended session takes a seat", Invariant::I9, |w| {
        let body = json!({"session_id": "s20", "status": "granted"});
        w.call(5_200).outcome = Outcome::Ok { status: 200, body };
    }),
    ("one key takes two seats, and only one is told", Invariant::I9, |w| {
        let data = json!({"seats_used": 2, "seats_total": 3, "deadline": time(14_100 + TTL_MS)});
        w.write(14_100, "seat_acquired", "l1", Some(("s20", "u1", "m1")), data);
        w.row("seat_acquired", "s20").request = Some("r5205".into());
    }),
    ("a key that was told ended is given out again", Invariant::I9, |w| {
        let body = json!({"session_id": "s1", "status": "renewed"});
        w.tell(
            5_300,
            "t1",
            "u1",
            acquire("m1", Some("k1")),
            Origin::Retry(5_205),
            Outcome::Ok { status: 200, body },
        );
    }),
    ("a duplicate release is written again", Invariant::I9, |w| {
        w.write(14_100, "seat_released", "l1", Some(S1), json!({}));
    }),
    ("a late request writes an event", Invariant::I9, |w| {
        w.write(5_005, "seat_heartbeat", "l1", Some(S1), json!({"deadline": time(15_005)}));
    }),
    ("a holder is granted a second seat", Invariant::I10, |w| {
        w.grant(9_000, ONE, (3, 3), ("s20", "u3", "m3"), None);
    }),
    ("the log has two live sessions of one holder", Invariant::I10, |w| {
        let data = json!({"seats_used": 2, "seats_total": 3, "deadline": time(14_100 + TTL_MS)});
        w.write(14_100, "seat_acquired", "l1", Some(("s20", "u3", "m3")), data);
    }),
    ("another tenant's page is shown", Invariant::I11, |w| {
        w.call(6_000).outcome = Outcome::Ok { status: 200, body: json!({}) };
    }),
    ("another tenant's page is forbidden, so it exists", Invariant::I11, |w| {
        w.call(6_000).outcome = refused(403, "forbidden");
    }),
    ("a stranger's request is written", Invariant::I11, |w| {
        w.row("seat_released", "s1").request = Some("r6005".into());
    }),
    ("an event stands in another tenant's stream", Invariant::I11, |w| {
        w.row("seat_acquired", "s2").tenant = "t2".into();
    }),
    ("a client is given another tenant's session", Invariant::I11, |w| w.call(205).tenant = "t2".into()),
    ("nothing shows that the fault happened", Invariant::I12, |w| w.history.faults[0].evidence = None),
    ("a fault is missing", Invariant::I12, |w| w.history.expect.faults = 2),
    ("replicas never met", Invariant::I12, |w| {
        w.history.noticed.counted.as_mut().unwrap().remove("conflicts");
    }),
    ("nothing was repaired", Invariant::I12, |w| {
        w.history.noticed.counted.as_mut().unwrap().insert("repairs".into(), 0.0);
    }),
    ("nobody was refused", Invariant::I12, |w| {
        w.call(300).outcome = refused(429, "rate_limited");
        w.drop_rows(|row| row.kind == "seat_denied");
    }),
];

#[test]
fn the_story_itself_holds() {
    let world = world();
    let report = report(&world.history, &world.evidence);
    report.assert_ok();
    for (invariant, verdict) in &report.verdicts {
        assert!(matches!(verdict, Verdict::Ok { checked: 1.., .. }), "{invariant}: {verdict:?}");
    }
}

#[test]
fn each_mutation_turns_its_invariant_red() {
    let mut unnoticed = Vec::new();
    for (what, invariant, falsify) in MUTATIONS {
        let mut world = world();
        falsify(&mut world);
        let report = report(&world.history, &world.evidence);
        if !report.is_violated(*invariant) || !report.to_string().contains("VIOLATED") {
            unnoticed.push(format!("{invariant} does not notice: {what}"));
        }
    }
    assert_eq!(unnoticed, Vec::<String>::new());
}

#[test]
fn every_invariant_has_a_mutation() {
    let covered: BTreeSet<_> = MUTATIONS.iter().map(|(_, invariant, _)| *invariant).collect();
    assert_eq!(covered, BTreeSet::from(Invariant::ALL));
}

#[test]
fn without_the_stores_it_says_what_was_not_checked() {
    let mut world = world();
    world.evidence = super::super::evidence::Evidence::default();
    let report = report(&world.history, &world.evidence);
    report.assert_ok();
    let unchecked = |invariant| matches!(report.verdicts[&invariant], Verdict::NotChecked { .. });
    let unchecked: Vec<_> = Invariant::ALL.into_iter().filter(|i| unchecked(*i)).collect();
    assert_eq!(unchecked, [Invariant::I2, Invariant::I3, Invariant::I4, Invariant::I5, Invariant::I6]);
}

#[test]
fn what_is_allowed_is_not_a_violation() {
    let allowed: &[Allowed] = &[
        ("a lowered limit throws nobody out", |w| {
            w.write(14_100, "license_updated", "l1", None, json!({"seats_total": 0}));
            w.evidence.mirrors.as_mut().unwrap().get_mut("l1").unwrap().limit = Some(0);
            let act = Act::SetSeats { license: "l1".into(), seats: 0 };
            w.tell(14_100, "t1", "admin", act, Origin::Fresh, Outcome::Ok { status: 200, body: json!({}) });
        }),
        ("an unknown change of a limit may have been carried out", |w| {
            w.call(2_500).outcome = Outcome::Unknown { why: "no answer in time".into() };
        }),
        ("a heartbeat that sorts after its session's end is ignored", |w| {
            w.write(14_100, "seat_heartbeat", "l1", Some(S2), json!({"deadline": time(24_100)}));
        }),
        ("an expiry waits a whole TTL after an outage", |w| {
            w.history.noticed.recoveries_ms.insert(unix(1_000));
            let late = unix(1_000 + TTL_MS + 1_500);
            w.row("seat_expired", "s2").at_ms = late;
            w.evidence
                .reading
                .as_mut()
                .unwrap()
                .again
                .iter_mut()
                .find(|row| row.kind == "seat_expired")
                .unwrap()
                .at_ms = late;
        }),
        ("nobody answers a stranger in time", |w| {
            w.call(6_000).outcome = Outcome::Unknown { why: "no answer in time".into() };
        }),
    ];
    for (what, change) in allowed {
        let mut world = world();
        change(&mut world);
        let report = report(&world.history, &world.evidence);
        assert!(report.is_ok(), "{what}\n{report}");
    }
}
