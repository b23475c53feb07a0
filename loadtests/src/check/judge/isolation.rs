//! I11: another tenant's things answer as if they did not exist, and nothing crosses over in the log.

use std::collections::BTreeMap;

use super::super::history::{Act, History, Outcome};
use super::super::report::{Verdict, Violation};
use super::Folded;

/// Judges I11.
pub(super) fn own_things_only(history: &History, folded: Option<&Folded<'_>>) -> Verdict {
    let (mut checked, mut violations, mut notes) = (0, Vec::new(), Vec::new());
    for call in &history.calls {
        let Act::Trespass { method, path, session, victim } = &call.act else { continue };
        let fits = match &call.outcome {
            Outcome::Refused { status: 404, .. } | Outcome::Unknown { .. } => true,
            // No such route for anybody, or too many requests: nothing was looked at.
            Outcome::Refused { status, .. } => matches!(status, 405 | 429),
            Outcome::Ok { .. } => false,
        };
        checked += 1;
        let answer = match &call.outcome {
            Outcome::Ok { status, .. } => status.to_string(),
            Outcome::Refused { status, code, .. } => format!("{status} {code}"),
            Outcome::Unknown { why } => why.clone(),
        };
        if !fits {
            violations.push(
                Violation::new(format!("{method} {path} of another tenant answered {answer}, not 404"))
                    .with("request", &call.request_id)
                    .with("victim", victim)
                    .with("session", session.as_deref().unwrap_or("none")),
            );
        }
        if let Some(row) = folded.and_then(|folded| folded.written(&call.request_id).first()) {
            violations.push(
                Violation::new(format!("{method} {path} of another tenant wrote a {}", row.kind))
                    .with("cursor", row.cursor()),
            );
        }
    }
    if checked == 0 {
        notes.push("nobody reached for another tenant's things".to_owned());
    }
    if let Some(folded) = folded {
        checked += folded.reading.rows.len() as u64;
        violations.extend(crossed(history, folded));
    }
    Verdict::of(checked, violations, notes)
}

/// Events and sessions that stand in another tenant's stream.
fn crossed(history: &History, folded: &Folded<'_>) -> Vec<Violation> {
    let owners: BTreeMap<_, _> = folded.reading.streams.iter().map(|s| (&s.stream, &s.tenant)).collect();
    let mut violations = Vec::new();
    for row in &folded.reading.rows {
        if owners.get(&row.stream).is_some_and(|owner| **owner != row.tenant) {
            violations.push(
                Violation::new("an event of one tenant stands in a stream of another")
                    .with("cursor", row.cursor())
                    .with("tenant", &row.tenant)
                    .with("stream", &row.stream),
            );
        }
    }
    for call in &history.calls {
        let session = call.ok().and_then(|body| body["session_id"].as_str());
        let Some(found) = session.and_then(|session| folded.fold.sessions.get(session)) else { continue };
        // With given tokens a tenant may be known by what its identity provider calls it.
        let known = history.tenants.iter().any(|tenant| tenant.id == found.tenant);
        if known && found.tenant != call.tenant {
            violations.push(
                Violation::new("a client was given a session of another tenant")
                    .with("session", session.unwrap_or_default())
                    .with("request", &call.request_id),
            );
        }
    }
    violations
}
