//! I7: what was answered is still there, whatever was killed, frozen or cut meanwhile.

use std::time::Duration;

use super::super::history::{Act, Call, Fault, History, Moment};
use super::super::report::{Verdict, Violation};
use super::Folded;
use super::holds::{Held, all_held};

/// By how much the clocks of the driver and of Postgres may have drifted apart since they were compared.
const DRIFT_MS: i64 = 1_000;

/// Judges I7.
pub(super) fn answered_is_there(history: &History, folded: Option<&Folded<'_>>) -> Verdict {
    let held = all_held(history);
    let (mut checked, mut violations) = (0, Vec::new());
    for call in &history.calls {
        let Act::Heartbeat { session } = &call.act else { continue };
        let Some(entry) = held.get(session) else { continue };
        checked += 1;
        violations.extend(lost(call, session, entry));
        violations.extend(lost_in_outage(history, call, session, entry));
    }
    let mut notes = Vec::new();
    match folded {
        Some(folded) => {
            for (session, entry) in &held {
                checked += 1;
                violations.extend(gone(history, session, entry, folded));
            }
            violations.extend(limits_stand(history, folded));
        }
        None => notes.push(format!("not in the log: {}", super::NO_LOG)),
    }
    Verdict::of(checked, violations, notes)
}

/// A holder is told that its session is gone, although an earlier answer still holds.
fn lost(call: &Call, session: &str, entry: &Held) -> Option<Violation> {
    let code = call.refused().filter(|code| matches!(*code, "session_ended" | "session_not_found"))?;
    let holds_until = entry.spans.iter().filter(|(from, _)| *from <= call.sent).map(|(_, to)| *to).max()?;
    // Somebody ended it, or may have.
    let ended = entry.cut < call.done;
    (!ended && call.done < holds_until).then(|| {
        Violation::new(format!("a heartbeat got {code} while an earlier answer held"))
            .with("session", session)
            .with("request", &call.request_id)
            .with("answered", call.done)
            .with("held until", holds_until)
    })
}

/// Rule 7: nobody who kept trying through an outage of Postgres loses its seat for it.
fn lost_in_outage(history: &History, call: &Call, session: &str, entry: &Held) -> Option<Violation> {
    if call.refused() != Some("session_ended") || entry.cut < call.done {
        return None;
    }
    let outage = history.faults.iter().find(|fault| spans_outage(fault, call, entry))?;
    let healed = outage.healed?;
    let mut tries: Vec<Moment> = history
        .calls
        .iter()
        .filter(|c| matches!(&c.act, Act::Heartbeat { session: s } if s == session))
        .filter(|c| c.sent >= outage.began && c.sent <= call.sent)
        .map(|c| c.sent)
        .collect();
    tries.insert(0, outage.began);
    let longest = tries.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or(Duration::MAX);
    (longest < entry.ttl / 2).then(|| {
        Violation::new(format!(
            "a client that kept trying lost its session to the outage \"{}\"",
            outage.name
        ))
        .with("session", session)
        .with("outage", format!("{} to {healed}", outage.began))
        .with("answered", call.done)
    })
}

/// The session was held when the outage began, and its end was told within a TTL of the outage's.
fn spans_outage(fault: &Fault, call: &Call, entry: &Held) -> bool {
    let Some(healed) = fault.healed.filter(|_| fault.kind.postgres_outage) else { return false };
    let held_then = entry.spans.iter().any(|(from, to)| *from < fault.began && *to > fault.began);
    held_then && call.done > fault.began && call.done < healed.after(entry.ttl)
}

/// A session that a client still holds when the log is read must live in it.
fn gone(history: &History, session: &str, entry: &Held, folded: &Folded<'_>) -> Option<Violation> {
    let until = entry.spans().last().map(|(_, to)| *to)?;
    let still_held = until.unix_ms(history.began) + folded.offset_ms - DRIFT_MS > folded.reading.now_ms;
    if entry.cut != Moment(u64::MAX) || !still_held {
        return None;
    }
    let live = folded.fold.sessions.get(session).is_some_and(super::super::fold::Session::is_live);
    (!live).then(|| Violation::new("a client holds a session that the log has not").with("session", session))
}

/// The last acknowledged limit of each pool is the one in force, unless a later change may have been carried out.
fn limits_stand(history: &History, folded: &Folded<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (license, pool) in &folded.fold.pools {
        let of_pool = |call: &&Call| matches!(&call.act, Act::SetSeats { license: l, .. } if l == license);
        let changes: Vec<_> = history.calls.iter().filter(of_pool).collect();
        let Some(last) = changes.iter().rposition(|call| call.ok().is_some()) else { continue };
        let Act::SetSeats { seats, .. } = &changes[last].act else { continue };
        let later = changes[last + 1..].iter().any(|call| call.unknown());
        if !later && pool.seats != i64::from(*seats) {
            violations.push(
                Violation::new(format!("a limit of {seats} was answered, {} is in force", pool.seats))
                    .with("license", license)
                    .with("request", &changes[last].request_id),
            );
        }
    }
    violations
}
