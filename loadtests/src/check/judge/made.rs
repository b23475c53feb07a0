//! A small story that is true in every part: what clients were told, what the log says, what the stores hold.
//! Tests falsify one thing in it at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::super::evidence::Evidence;
use super::super::history::{Act, Call, Fault, FaultKind, History, Moment, Noticed, Origin, Outcome};
use super::super::log::{Reading, Row, Seat, Stream};
use super::super::mirror::Mirror;
use super::super::shown::Shown;
use super::super::site::{Pool, Tenant};
use super::super::workload::{Expect, Patience};

pub(super) const TTL_MS: i64 = 10_000;
/// Unix milliseconds of the story's beginning.
const BEGAN_MS: i64 = 1_800_000_000_000;

/// The story.
pub(super) struct World {
    pub history: History,
    pub evidence: Evidence,
}

impl World {
    /// The log.
    pub fn rows(&mut self) -> &mut Vec<Row> {
        &mut self.evidence.reading.as_mut().unwrap().rows
    }

    /// The log's row of this type and session.
    pub fn row(&mut self, kind: &str, session: &str) -> &mut Row {
        self.rows()
            .iter_mut()
            .find(|row| row.kind == kind && row.session.as_deref() == Some(session))
            .unwrap()
    }

    /// Takes rows out of the log, in both readings.
    pub fn drop_rows(&mut self, gone: impl Fn(&Row) -> bool) {
        let reading = self.evidence.reading.as_mut().unwrap();
        let before = reading.rows.len();
        reading.rows.retain(|row| !gone(row));
        reading.again.retain(|row| !gone(row));
        assert!(reading.rows.len() < before, "nothing was dropped");
    }

    /// The call that was sent at this millisecond.
    pub fn call(&mut self, sent_ms: u64) -> &mut Call {
        self.history.calls.iter_mut().find(|call| call.sent == ms(sent_ms)).unwrap()
    }

    /// A row as the story would have it, at the log's end, with the next version of its stream if it is a decision.
    pub fn write(
        &mut self,
        at_ms: i64,
        kind: &str,
        stream: &str,
        who: Option<(&str, &str, &str)>,
        data: Value,
    ) {
        let reading = self.evidence.reading.as_mut().unwrap();
        let decision = kind != "seat_heartbeat" && kind != "seat_denied";
        let known = reading.streams.iter_mut().find(|known| known.stream == stream).unwrap();
        known.version += i64::from(decision);
        let row = Row {
            xid: 1_000 + reading.rows.len() as u64,
            position: reading.rows.len() as i64 + 1,
            event: format!("event-{}", reading.rows.len()),
            tenant: known.tenant.clone(),
            stream: stream.to_owned(),
            version: decision.then_some(known.version),
            kind: kind.to_owned(),
            session: who.map(|(session, _, _)| session.to_owned()),
            user: who.map(|(_, user, _)| user.to_owned()),
            machine: who.map(|(_, _, machine)| machine.to_owned()),
            at_ms: BEGAN_MS + at_ms,
            request: Some(format!("r{at_ms}")),
            data,
        };
        reading.rows.push(row.clone());
        reading.again.push(row);
        let known = reading.streams.clone();
        self.evidence.streams = known;
    }

    /// A call that was sent at `at_ms - 5`, written at `at_ms` and answered at `at_ms + 5`.
    pub fn tell(&mut self, at_ms: i64, tenant: &str, user: &str, act: Act, origin: Origin, outcome: Outcome) {
        let at = at_ms as u64;
        self.history.calls.push(Call {
            id: at,
            request_id: format!("r{at}"),
            actor: user.into(),
            tenant: tenant.into(),
            user: user.into(),
            act,
            origin,
            replica: 0,
            sent: ms(at - 5),
            done: ms(at + 5),
            outcome,
        });
    }

    /// A grant that a client is told of.
    pub fn grant(
        &mut self,
        at_ms: i64,
        pool: (&str, &str),
        used: (i64, i64),
        who: (&str, &str, &str),
        key: Option<&str>,
    ) {
        let (tenant, license) = pool;
        let data = json!({"seats_used": used.0, "seats_total": used.1, "deadline": time(at_ms + TTL_MS)});
        self.write(at_ms, "seat_acquired", license, Some(who), data);
        let body = json!({"session_id": who.0, "status": "granted", "session_ttl_seconds": TTL_MS / 1_000});
        let act = acquire(who.2, key);
        self.tell(at_ms, tenant, who.1, act, Origin::Fresh, Outcome::Ok { status: 200, body });
    }

    /// A heartbeat that a client is told of.
    pub fn beat(&mut self, at_ms: i64, pool: (&str, &str), who: (&str, &str, &str)) {
        let deadline = time(at_ms + TTL_MS);
        self.write(at_ms, "seat_heartbeat", pool.1, Some(who), json!({"deadline": deadline}));
        let body = json!({"status": "ok", "expires_at": deadline});
        let act = Act::Heartbeat { session: who.0.into() };
        self.tell(at_ms, pool.0, who.1, act, Origin::Fresh, Outcome::Ok { status: 200, body });
    }
}

pub(super) fn acquire(machine: &str, key: Option<&str>) -> Act {
    Act::Acquire { product: "coditect".into(), machine: machine.into(), key: key.map(str::to_owned) }
}

pub(super) fn refused(status: u16, code: &str) -> Outcome {
    Outcome::Refused { status, code: code.into(), body: Value::Null }
}

pub(super) fn ms(at: u64) -> Moment {
    Moment(at * 1_000)
}

/// A time of the story as the log writes it.
pub(super) fn time(at_ms: i64) -> String {
    let at = chrono::DateTime::from_timestamp_millis(BEGAN_MS + at_ms).unwrap();
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Unix milliseconds of the story.
pub(super) fn unix(at_ms: i64) -> i64 {
    BEGAN_MS + at_ms
}

pub(super) const ONE: (&str, &str) = ("t1", "l1");
const TWO: (&str, &str) = ("t2", "l2");
pub(super) const S1: (&str, &str, &str) = ("s1", "u1", "m1");
pub(super) const S2: (&str, &str, &str) = ("s2", "u2", "m2");
pub(super) const S3: (&str, &str, &str) = ("s3", "u3", "m3");
const S4: (&str, &str, &str) = ("s4", "u4", "m4");
const S5: (&str, &str, &str) = ("s5", "u5", "m5");

/// The story: a pool of two seats, later three; of five sessions one is released, one crashes, one is revoked, two live on.
pub(super) fn world() -> World {
    let mut world = empty();
    let ok = |body: Value| Outcome::Ok { status: 200, body };
    for (tenant, license) in [ONE, TWO] {
        world.write(1, "tenant_created", tenant, None, json!({"active": true}));
        let terms = json!({"product": "coditect", "seats_total": 2, "active": true});
        world.write(2, "license_issued", license, None, terms);
    }
    world.grant(110, ONE, (1, 2), S1, Some("k1"));
    world.grant(210, ONE, (2, 2), S2, None);
    let denied = json!({"reason": "no_seats_available", "seats_used": 2, "seats_total": 2});
    world.write(305, "seat_denied", "l1", Some(S3), denied);
    world.tell(305, "t1", "u3", acquire("m3", None), Origin::Fresh, refused(409, "no_seats_available"));
    world.beat(1_005, ONE, S1);
    world.write(2_005, "seat_released", "l1", Some(S1), json!({}));
    let release = Act::Release { session: "s1".into() };
    world.tell(2_005, "t1", "u1", release.clone(), Origin::Fresh, ok(json!({"status": "released"})));
    world.tell(2_010, "t1", "u1", release, Origin::Duplicate, ok(json!({"status": "released"})));
    world.write(2_505, "license_updated", "l1", None, json!({"seats_total": 3}));
    let limit = Act::SetSeats { license: "l1".into(), seats: 3 };
    world.tell(2_505, "t1", "admin", limit, Origin::Fresh, ok(json!({})));
    world.grant(3_010, ONE, (2, 3), S3, None);
    world.grant(3_110, ONE, (3, 3), S4, None);
    world.write(4_005, "seat_revoked", "l1", Some(S4), json!({"by": "admin", "reason": ""}));
    let revoke = Act::Revoke { session: "s4".into() };
    world.tell(4_005, "t1", "admin", revoke, Origin::Fresh, Outcome::Ok { status: 204, body: Value::Null });
    let beat = Act::Heartbeat { session: "s1".into() };
    world.tell(5_005, "t1", "u1", beat, Origin::Late(1_005), refused(410, "session_ended"));
    let again = acquire("m1", Some("k1"));
    world.tell(5_205, "t1", "u1", again, Origin::Late(110), refused(410, "session_ended"));
    let act = Act::Trespass { method: "GET".into(), path: "/t2".into(), session: None, victim: "t2".into() };
    world.tell(6_005, "t1", "u1", act, Origin::Fresh, refused(404, "tenant_not_found"));
    world.grant(7_600, TWO, (1, 2), S5, None);
    world.write(8_005, "seat_heartbeat", "l1", Some(S3), json!({"deadline": time(8_005 + TTL_MS)}));
    let body = json!({"session_id": "s3", "status": "renewed", "session_ttl_seconds": TTL_MS / 1_000});
    world.tell(8_005, "t1", "u3", acquire("m3", None), Origin::Fresh, ok(body));
    world.write(10_300, "seat_expired", "l1", Some(S2), json!({"deadline": time(210 + TTL_MS)}));
    world.beat(14_005, ONE, S3);
    at_rest(&mut world);
    world
}

/// Stores and API as the log has them at the end: s3 and s5 live.
fn at_rest(world: &mut World) {
    let seat = |pool: (&str, &str), who: (&str, &str, &str), deadline_ms: i64| Seat {
        session: who.0.into(),
        stream: pool.1.into(),
        tenant: pool.0.into(),
        user: who.1.into(),
        machine: who.2.into(),
        deadline_ms: unix(deadline_ms),
    };
    let seats = vec![seat(ONE, S3, 14_005 + TTL_MS), seat(TWO, S5, 7_600 + TTL_MS)];
    world.evidence.seats.clone_from(&seats);
    world.evidence.reading.as_mut().unwrap().seats = seats;
    let mirror = |limit: i64, who: (&str, &str, &str)| Mirror {
        limit: Some(limit),
        live: BTreeMap::from([(who.0.to_owned(), 5_000)]),
        holders: BTreeMap::from([(format!("{} {}", who.2, who.1), who.0.to_owned())]),
    };
    world.evidence.mirrors =
        Some(BTreeMap::from([("l1".to_owned(), mirror(3, S3)), ("l2".to_owned(), mirror(2, S5))]));
    let shown = |license: &str, total: i64, session: &str| {
        let sessions = BTreeMap::from([(license.to_owned(), BTreeSet::from([session.to_owned()]))]);
        Shown {
            licenses: Some(BTreeMap::from([(license.to_owned(), (1, total))])),
            sessions: Some(sessions.clone()),
            state: Some(sessions),
        }
    };
    world.evidence.shown = Some(BTreeMap::from([
        ("t1".to_owned(), shown("l1", 3, "s3")),
        ("t2".to_owned(), shown("l2", 2, "s5")),
    ]));
}

fn empty() -> World {
    let stream = |stream: &str, tenant: &str, product: Option<&str>| Stream {
        stream: stream.into(),
        tenant: tenant.into(),
        product: product.map(str::to_owned),
        version: 0,
    };
    let streams = vec![
        stream("l1", "t1", Some("coditect")),
        stream("l2", "t2", Some("coditect")),
        stream("t1", "t1", None),
        stream("t2", "t2", None),
    ];
    let reading = Reading { streams, now_ms: unix(15_000), ..Reading::default() };
    let tenant = |(id, license): (&str, &str)| Tenant {
        id: id.into(),
        pools: vec![Pool { license_id: Some(license.into()), product: "coditect".into(), seats: Some(2) }],
    };
    let counted = ["conflicts", "repairs"].map(|name| (name.to_owned(), 3.0)).into();
    let fault = Fault {
        name: "a replica was killed".into(),
        kind: FaultKind::default(),
        began: ms(7_000),
        healed: Some(ms(7_500)),
        evidence: Some("signal 9".into()),
    };
    let history = History {
        seed: 1,
        began: SystemTime::UNIX_EPOCH + Duration::from_millis(BEGAN_MS as u64),
        ended: ms(15_000),
        tenants: vec![tenant(ONE), tenant(TWO)],
        calls: Vec::new(),
        faults: vec![fault],
        noticed: Noticed { counted: Some(counted), ..Noticed::default() },
        expect: Expect { faults: 1, ..Expect::default() },
        ttl: Duration::from_millis(TTL_MS as u64),
        patience: Patience::default(),
    };
    World { history, evidence: Evidence { reading: Some(reading), ..Evidence::default() } }
}
