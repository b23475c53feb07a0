//! I3: every success that a client was told of stands in the log.

use std::collections::BTreeMap;

use super::super::fold::time_ms;
use super::super::history::{Act, Call, History, Moment};
use super::super::log::Row;
use super::super::report::{Verdict, Violation};
use super::Folded;

/// By how much the clocks of the driver and of Postgres may have drifted apart since they were compared.
const DRIFT_MS: i64 = 2_000;

/// The heartbeats of each session.
type Beats<'a> = BTreeMap<&'a str, Vec<&'a Row>>;

/// Judges I3.
pub(super) fn have_events(history: &History, folded: &Folded<'_>) -> Verdict {
    let beats = beats(&folded.reading.rows);
    let (mut checked, mut violations) = (0, Vec::new());
    for call in &history.calls {
        let Some(body) = call.ok() else { continue };
        let missing = match &call.act {
            Act::Acquire { machine, .. } if body["status"] == "granted" => grant(call, body, machine, folded),
            Act::Acquire { .. } => renewal(call, body, &beats, history, folded),
            Act::Heartbeat { session } => beat(session, body, &beats),
            Act::Release { session } | Act::Revoke { session } => end(call, session, history, folded),
            Act::SetSeats { license, seats } => {
                change(call, license, "seats_total", &(*seats).into(), folded)
            }
            Act::SetLicenseActive { license, active } => {
                change(call, license, "active", &(*active).into(), folded)
            }
            Act::SetTenantActive { active } => {
                change(call, &call.tenant, "active", &(*active).into(), folded)
            }
            Act::RemoveUser { removed } => removal(call, removed, history, folded),
            Act::AddUser { .. } | Act::Trespass { .. } => None,
        };
        checked += 1;
        if let Some(what) = missing {
            violations.push(
                Violation::new(what)
                    .with("request", &call.request_id)
                    .with("answered", call.done)
                    .with("session", session_of(call).unwrap_or("none"))
                    .with("replica", call.replica),
            );
        }
    }
    Verdict::of(checked, violations, Vec::new())
}

fn beats(rows: &[Row]) -> Beats<'_> {
    let mut beats = Beats::new();
    for row in rows {
        if let (Some(session), "seat_heartbeat") = (&row.session, row.kind.as_str()) {
            beats.entry(session.as_str()).or_default().push(row);
        }
    }
    beats
}

fn session_of(call: &Call) -> Option<&str> {
    match &call.act {
        Act::Acquire { .. } => call.ok()?["session_id"].as_str(),
        Act::Heartbeat { session } | Act::Release { session } | Act::Revoke { session } => Some(session),
        _ => None,
    }
}

fn grant(call: &Call, body: &serde_json::Value, machine: &str, folded: &Folded<'_>) -> Option<String> {
    let session = body["session_id"].as_str().and_then(|id| folded.fold.sessions.get(id));
    let Some(session) = session else { return Some("a seat was granted, and the log has no grant".into()) };
    if session.request.as_deref() != Some(&call.request_id) {
        return Some("a seat was granted, and the log's grant answers another request".into());
    }
    let product = folded.fold.pools.get(&session.stream).map(|pool| pool.product.as_str());
    let Act::Acquire { product: asked, .. } = &call.act else { return None };
    let same = session.user == call.user && session.machine == machine && product == Some(asked);
    (!same)
        .then(|| format!("a seat was granted, and the log gives it to {} {}", session.user, session.machine))
}

/// Renewals that went together in one statement share one heartbeat, so the request need not be named by it.
fn renewal(
    call: &Call,
    body: &serde_json::Value,
    beats: &Beats<'_>,
    history: &History,
    folded: &Folded<'_>,
) -> Option<String> {
    let session = body["session_id"].as_str().unwrap_or_default();
    let at = |moment: Moment| moment.unix_ms(history.began) + folded.offset_ms;
    let (from, to) = (at(call.sent) - DRIFT_MS, at(call.done) + DRIFT_MS);
    let beats = beats.get(session).map_or(&[][..], Vec::as_slice);
    let found = beats.iter().any(|row| {
        row.request.as_deref() == Some(&call.request_id) || (from <= row.at_ms && row.at_ms <= to)
    });
    (!found).then(|| "a session was renewed, and the log has no heartbeat of it".into())
}

/// A heartbeat's answer names the deadline that was written.
fn beat(session: &str, body: &serde_json::Value, beats: &Beats<'_>) -> Option<String> {
    let told = time_ms(&body["expires_at"]);
    let beats = beats.get(session).map_or(&[][..], Vec::as_slice);
    let found = told.is_some() && beats.iter().any(|row| time_ms(&row.data["deadline"]) == told);
    (!found).then(|| format!("a heartbeat was ok until {}, and the log has none", body["expires_at"]))
}

fn end(call: &Call, session: &str, history: &History, folded: &Folded<'_>) -> Option<String> {
    let known = folded.fold.sessions.get(session);
    match known.map(|known| &known.end) {
        Some(Some(end)) => {
            let latest = call.done.unix_ms(history.began) + folded.offset_ms + DRIFT_MS;
            (end.at_ms > latest).then(|| "an end was answered before it was written".into())
        }
        Some(None) => Some("an end was answered, and in the log the session lives".into()),
        None => Some("an end was answered, and the log does not know the session".into()),
    }
}

/// Whoever was removed is so in the log, and the sessions that it held have ended.
fn removal(call: &Call, user: &str, history: &History, folded: &Folded<'_>) -> Option<String> {
    let of_user = |row: &&Row| row.user.as_deref() == Some(user) && row.tenant == call.tenant;
    if !folded.reading.rows.iter().filter(of_user).any(|row| row.kind == "user_removed") {
        return Some("a user was removed, and the log does not say so".into());
    }
    let at = |moment: Moment| moment.unix_ms(history.began) + folded.offset_ms;
    let (asked_ms, answered_ms) = (at(call.sent), at(call.done) + DRIFT_MS);
    let mut held = folded.fold.sessions.iter().filter(|(_, session)| {
        session.user == user && session.tenant == call.tenant && session.began_ms < asked_ms
    });
    let left = held.find(|(_, session)| session.end.as_ref().is_none_or(|end| end.at_ms > answered_ms));
    left.map(|(session, _)| format!("a user was removed, and its session {session} lived on"))
}

/// A change that changes nothing need not be written.
fn change(
    call: &Call,
    stream: &str,
    field: &str,
    value: &serde_json::Value,
    folded: &Folded<'_>,
) -> Option<String> {
    let own = folded.written(&call.request_id);
    if own.iter().any(|row| row.stream == stream && &row.data[field] == value) {
        return None;
    }
    let terms = ["license_issued", "license_updated", "tenant_created", "tenant_updated"];
    let same = |row: &Row| row.stream == stream && &row.data[field] == value;
    let mut of_stream = folded.reading.rows.iter().filter(|row| terms.contains(&row.kind.as_str()));
    let known = own.is_empty() && of_stream.any(same);
    (!known).then(|| format!("{field} = {value} was answered, and the log has no such change"))
}
