//! I5: at rest Redis, the seats table, the fold of the log and the read API say the same.

use std::collections::{BTreeMap, BTreeSet};

use super::super::evidence::Evidence;
use super::super::report::{Verdict, Violation};
use super::Folded;

/// Judges I5.
pub(super) fn all_agree(evidence: &Evidence, folded: Option<&Folded<'_>>) -> Verdict {
    let Some(folded) = folded else { return Verdict::NotChecked { why: super::NO_LOG.into() } };
    let mut violations = table_is_fold(folded);
    violations.extend(differences(evidence));
    let mut notes = vec![format!("{} sessions lived", evidence.seats.len())];
    if evidence.mirrors.is_none() {
        notes.push("not Redis: needs --redis-url".to_owned());
    }
    let shown = |part: fn(&super::super::shown::Shown) -> bool| {
        evidence.shown.as_ref().is_some_and(|shown| shown.values().all(part))
    };
    for (there, what) in [
        (shown(|s| s.licenses.is_some()), "/licenses"),
        (shown(|s| s.sessions.is_some()), "/sessions"),
        (shown(|s| s.state.is_some()), "/state"),
    ] {
        if !there {
            notes.push(format!("not {what}: no such route, or no admin's token"));
        }
    }
    let checked = (folded.reading.seats.len() + folded.fold.pools.len()) as u64;
    Verdict::of(checked, violations, notes)
}

/// The seats table and the fold, read in one transaction: exactly the same, deadlines too.
fn table_is_fold(folded: &Folded<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let table: BTreeMap<_, _> = folded.reading.seats.iter().map(|seat| (&seat.session, seat)).collect();
    for (session, found) in folded.fold.sessions.iter().filter(|(_, found)| found.is_live()) {
        let Some(seat) = table.get(session) else {
            violations.push(
                Violation::new("a session lives in the log and not in the seats table")
                    .with("session", session),
            );
            continue;
        };
        let same = seat.stream == found.stream
            && seat.tenant == found.tenant
            && seat.user == found.user
            && seat.machine == found.machine
            && seat.deadline_ms == found.deadline_ms;
        if !same {
            violations.push(
                Violation::new("the seats table and the log say different things of a session")
                    .with("session", session)
                    .with("table", format!("{seat:?}"))
                    .with("log", format!("{found:?}")),
            );
        }
    }
    for session in table.keys() {
        if !folded.fold.sessions.get(*session).is_some_and(super::super::fold::Session::is_live) {
            violations.push(
                Violation::new("a session lives in the seats table and not in the log")
                    .with("session", session),
            );
        }
    }
    violations
}

/// Where Redis or the API differ from the seats table.
pub(crate) fn differences(evidence: &Evidence) -> Vec<Violation> {
    let mut violations = Vec::new();
    for stream in evidence.streams.iter().filter(|stream| stream.product.is_some()) {
        let pool = &stream.stream;
        let seats: Vec<_> = evidence.seats.iter().filter(|seat| &seat.stream == pool).collect();
        let live: BTreeSet<&str> = seats.iter().map(|seat| seat.session.as_str()).collect();
        let mut compare = |what: &str, found: BTreeSet<&str>| {
            if found != live {
                let list = |a: &BTreeSet<&str>, b: &BTreeSet<&str>| {
                    a.difference(b).copied().collect::<Vec<_>>().join(" ")
                };
                violations.push(
                    Violation::new(format!(
                        "{what} has {} sessions, the seats table {}",
                        found.len(),
                        live.len()
                    ))
                    .with("license", pool)
                    .with("only there", list(&found, &live))
                    .with("only in the table", list(&live, &found)),
                );
            }
        };
        if let Some(mirror) = evidence.mirrors.as_ref().and_then(|mirrors| mirrors.get(pool)) {
            compare("Redis", mirror.sessions());
            compare("Redis's table of holders", mirror.holders.values().map(String::as_str).collect());
        }
        if let Some(shown) = evidence.shown.as_ref().and_then(|shown| shown.get(&stream.tenant)) {
            let of = |lists: &'_ BTreeMap<String, BTreeSet<String>>| -> BTreeSet<String> {
                lists.get(pool).cloned().unwrap_or_default()
            };
            if let Some(sessions) = shown.sessions.as_ref().map(of) {
                compare("GET /sessions", sessions.iter().map(String::as_str).collect());
            }
            if let Some(sessions) = shown.state.as_ref().map(of) {
                compare("GET /state", sessions.iter().map(String::as_str).collect());
            }
            let used = shown.licenses.as_ref().and_then(|licenses| licenses.get(pool)).map(|(used, _)| *used);
            if used.is_some_and(|used| used != live.len() as i64) {
                violations.push(
                    Violation::new(format!(
                        "GET /licenses says {used:?} seats in use, the seats table {}",
                        live.len()
                    ))
                    .with("license", pool),
                );
            }
        }
    }
    violations
}
