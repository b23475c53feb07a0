//! I8: how soon a crashed holder's seat is free, and how soon an acquire succeeds after a fault.

use std::time::Duration;

use super::super::history::{Act, Fault, History};
use super::super::report::{Verdict, Violation};
use super::Folded;

/// Judges I8. Where the driver itself stood still, so may the service have: that time is granted on top.
pub(super) fn in_time(history: &History, folded: Option<&Folded<'_>>) -> Verdict {
    let (mut checked, mut violations, mut notes) = (0, Vec::new(), Vec::new());
    let stall = history.noticed.longest_stall;
    if stall > Duration::from_millis(500) {
        notes.push(format!("the driver itself stood still for up to {} ms", stall.as_millis()));
    }
    match folded {
        Some(folded) => {
            let (expiries, latest_ms, late) = expiries(history, folded);
            checked += expiries;
            notes.push(format!("latest expiry: {latest_ms} ms after the time from which it was due"));
            violations.extend(late);
        }
        None => notes.push(format!("expiries: {}", super::NO_LOG)),
    }
    for fault in &history.faults {
        match first_success(history, fault) {
            Recovered::Unknown => notes.push(format!("\"{}\" was not over soon enough to say", fault.name)),
            Recovered::After(after) => {
                checked += 1;
                notes.push(format!(
                    "\"{}\": an acquire succeeded {} ms later",
                    fault.name,
                    after.as_millis()
                ));
                if after > history.patience.recovery + stall {
                    violations.push(too_late(fault).with("after", format!("{} ms", after.as_millis())));
                }
            }
            Recovered::Never => violations.push(too_late(fault)),
        }
    }
    Verdict::of(checked, violations, notes)
}

fn too_late(fault: &Fault) -> Violation {
    let healed = fault.healed.map_or("never".to_owned(), |healed| healed.to_string());
    Violation::new(format!("no acquire succeeded in time after \"{}\"", fault.name)).with("healed", healed)
}

enum Recovered {
    After(Duration),
    Never,
    Unknown,
}

/// The first acquire that succeeded after the fault had been repaired.
fn first_success(history: &History, fault: &Fault) -> Recovered {
    let Some(healed) = fault.healed else { return Recovered::Unknown };
    let is_acquire = |act: &Act| matches!(act, Act::Acquire { .. });
    let succeeded = history.calls.iter().filter(|call| is_acquire(&call.act) && call.ok().is_some());
    match succeeded.filter(|call| call.done >= healed).map(|call| call.done).min() {
        Some(done) => Recovered::After(done.since(healed)),
        None if history.ended.since(healed) > history.patience.recovery => Recovered::Never,
        None => Recovered::Unknown,
    }
}

/// How many sessions expired, how late the latest did, and which were too late.
fn expiries(history: &History, folded: &Folded<'_>) -> (u64, i64, Vec<Violation>) {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let patience_ms = millis(history.patience.expiry + history.noticed.longest_stall);
    let (mut checked, mut latest_ms, mut violations) = (0, 0, Vec::new());
    for (session, found) in &folded.fold.sessions {
        let (deadline_ms, freed_ms, how) = match &found.end {
            Some(end) if end.kind == "seat_expired" => {
                (end.deadline_ms.unwrap_or(found.deadline_ms), end.at_ms, "was freed")
            }
            Some(_) => continue,
            None => (found.deadline_ms, folded.reading.now_ms, "is not free"),
        };
        let due_ms = due(history, folded, deadline_ms, freed_ms);
        checked += 1;
        if how == "was freed" {
            latest_ms = latest_ms.max(freed_ms - due_ms);
        }
        if freed_ms > due_ms + patience_ms {
            violations.push(
                Violation::new(format!(
                    "a crashed holder's seat {how} {} ms after it was due",
                    freed_ms - due_ms
                ))
                .with("session", session)
                .with("license", &found.stream)
                .with("deadline (Unix ms)", deadline_ms)
                .with("granted at", &found.cursor),
            );
        }
    }
    (checked, latest_ms, violations)
}

/// From when on a session whose deadline has passed may be expected to be expired: after an outage a whole TTL later
/// (rule 7), after any other fault when it is over.
fn due(history: &History, folded: &Folded<'_>, deadline_ms: i64, freed_ms: i64) -> i64 {
    let ttl_ms = i64::try_from(history.ttl.as_millis()).unwrap_or(i64::MAX);
    let mut due_ms = deadline_ms;
    let recoveries = history.noticed.recoveries_ms.iter().copied().chain([folded.reading.recovered_ms]);
    for recovered_ms in recoveries.filter(|at| *at <= freed_ms) {
        due_ms = due_ms.max(recovered_ms + ttl_ms);
    }
    for fault in &history.faults {
        let began_ms = fault.began.unix_ms(history.began) + folded.offset_ms;
        let healed_ms =
            fault.healed.map_or(i64::MAX - ttl_ms, |h| h.unix_ms(history.began) + folded.offset_ms);
        if began_ms <= freed_ms && due_ms <= healed_ms {
            due_ms = due_ms.max(if fault.kind.postgres_outage { healed_ms + ttl_ms } else { healed_ms });
        }
    }
    due_ms
}
