//! I9: a request that is sent again, at once or long after, changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::super::fold::{Session, in_order};
use super::super::history::{Act, Call, History, Origin};
use super::super::report::{Verdict, Violation};
use super::Folded;

/// By how much the clocks of the driver and of Postgres may have drifted apart since they were compared.
const DRIFT_MS: i64 = 500;

/// Judges I9.
pub(super) fn changes_nothing(history: &History, folded: Option<&Folded<'_>>) -> Verdict {
    let (mut checked, mut violations, mut notes) = (0, Vec::new(), Vec::new());
    for (key, calls) in by_key(history) {
        checked += 1;
        violations.extend(one_session(key, &calls));
        if let Some(folded) = folded {
            violations.extend(one_grant(key, &calls, folded));
        }
    }
    match folded {
        Some(folded) => {
            checked += folded.fold.sessions.len() as u64;
            violations.extend(ended_once(folded));
            for call in &history.calls {
                if let Origin::Late(_) = call.origin {
                    checked += 1;
                    violations.extend(too_late(history, call, folded));
                }
            }
        }
        None => notes.push(format!("what late requests wrote: {}", super::NO_LOG)),
    }
    let again = |origin: &Origin| !matches!(origin, Origin::Fresh);
    notes
        .push(format!("{} requests were repeats", history.calls.iter().filter(|c| again(&c.origin)).count()));
    Verdict::of(checked, violations, notes)
}

type Key<'a> = (&'a str, &'a str, &'a str);

/// The acquires of each Idempotency-Key, by tenant, user and key.
fn by_key(history: &History) -> BTreeMap<Key<'_>, Vec<&Call>> {
    let mut keys: BTreeMap<Key<'_>, Vec<&Call>> = BTreeMap::new();
    for call in &history.calls {
        if let Act::Acquire { key: Some(key), .. } = &call.act {
            keys.entry((&call.tenant, &call.user, key)).or_default().push(call);
        }
    }
    keys
}

/// All answers to one key name one session, and once it has ended none gives it out any more.
fn one_session(key: Key<'_>, calls: &[&Call]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let told: BTreeSet<_> = calls.iter().filter_map(|c| c.ok()?["session_id"].as_str()).collect();
    if told.len() > 1 {
        let sessions = told.into_iter().collect::<Vec<_>>().join(" ");
        violations.push(
            Violation::new("one key was given two sessions").with("key", key.2).with("sessions", sessions),
        );
    }
    let ended = calls.iter().filter(|c| c.refused() == Some("session_ended")).map(|c| c.done).min();
    if let Some(ended) = ended
        && let Some(again) = calls.iter().find(|c| c.ok().is_some() && c.sent > ended)
    {
        violations.push(
            Violation::new("a key whose session had ended was given a seat")
                .with("key", key.2)
                .with("request", &again.request_id)
                .with("ended", ended),
        );
    }
    violations
}

/// One key has one grant in the log, besides those that the service took back itself because it could not answer.
fn one_grant(key: Key<'_>, calls: &[&Call], folded: &Folded<'_>) -> Option<Violation> {
    let requests: BTreeSet<_> = calls.iter().map(|call| call.request_id.as_str()).collect();
    let of_key =
        |request: &Option<String>| request.as_deref().is_some_and(|request| requests.contains(request));
    let grants = calls.iter().flat_map(|call| granted_by(call, folded));
    let kept: Vec<_> = grants
        .filter(|(_, session)| !session.end.as_ref().is_some_and(|end| of_key(&end.request)))
        .map(|(id, _)| id)
        .collect();
    (kept.len() > 1)
        .then(|| Violation::new("one key took two seats").with("key", key.2).with("sessions", kept.join(" ")))
}

/// No session begins twice, and none ends twice.
fn ended_once(folded: &Folded<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let (mut begun, mut ended) = (BTreeSet::new(), BTreeSet::new());
    for row in in_order(&folded.reading.rows) {
        let Some(session) = &row.session else { continue };
        let what = match row.kind.as_str() {
            "seat_acquired" if !begun.insert(session) => "a session began twice",
            "seat_released" | "seat_expired" | "seat_revoked" if !begun.contains(session) => {
                "a session ended that never began"
            }
            "seat_released" | "seat_expired" | "seat_revoked" if !ended.insert(session) => {
                "a session ended twice"
            }
            _ => continue,
        };
        violations.push(
            Violation::new(what)
                .with("session", session)
                .with("cursor", row.cursor())
                .with("request", row.request.as_deref().unwrap_or("none")),
        );
    }
    violations
}

/// A late request whose session had ended before it was sent: it gets the answer that says so, and writes nothing.
fn too_late(history: &History, call: &Call, folded: &Folded<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let session = match &call.act {
        Act::Heartbeat { session } | Act::Release { session } => Some(session.clone()),
        Act::Acquire { key: Some(_), .. } => first_session(history, call, folded),
        _ => None,
    };
    let Some(known) = session.as_ref().and_then(|id| folded.fold.sessions.get(id)) else { return violations };
    let sent_ms = call.sent.unix_ms(history.began) + folded.offset_ms;
    if known.end.as_ref().is_none_or(|end| end.at_ms + DRIFT_MS > sent_ms) {
        return violations;
    }
    let wrong = |what: &str| {
        Violation::new(what)
            .with("request", &call.request_id)
            .with("session", session.as_deref().unwrap_or("none"))
    };
    if call.ok().is_some() && !matches!(call.act, Act::Release { .. }) {
        violations.push(wrong("a late request for an ended session succeeded"));
    }
    let written = folded.written(&call.request_id).iter().find(|row| row.kind.starts_with("seat_"));
    if let Some(row) = written {
        violations.push(wrong(&format!("a late request wrote a {}", row.kind)).with("cursor", row.cursor()));
    }
    violations
}

/// The session that a key was first given.
fn first_session(history: &History, late: &Call, folded: &Folded<'_>) -> Option<String> {
    let Act::Acquire { key, .. } = &late.act else { return None };
    let same = |call: &&Call| {
        call.user == late.user
            && call.tenant == late.tenant
            && matches!(&call.act, Act::Acquire { key: k, .. } if k == key)
            && call.sent < late.sent
    };
    history.calls.iter().filter(same).find_map(|call| {
        let told = call.ok().and_then(|body| body["session_id"].as_str()).map(str::to_owned);
        told.or_else(|| granted_by(call, folded).next().map(|(id, _)| id.to_owned()))
    })
}

/// The sessions that a request began in the log.
fn granted_by<'a>(call: &Call, folded: &'a Folded<'_>) -> impl Iterator<Item = (&'a str, &'a Session)> {
    let grants = folded.written(&call.request_id).iter().filter(|row| row.kind == "seat_acquired");
    grants.filter_map(|row| {
        let (id, session) = folded.fold.sessions.get_key_value(row.session.as_ref()?)?;
        Some((id.as_str(), session))
    })
}
