//! I12: a run proves nothing unless it contained what it was meant to.

use super::super::history::{Act, Call, History};
use super::super::report::{Verdict, Violation};
use super::Folded;

/// Judges I12.
pub(super) fn really(history: &History, folded: Option<&Folded<'_>>) -> Verdict {
    let expect = history.expect;
    let (mut checked, mut violations, mut notes) = (0, Vec::new(), Vec::new());
    let in_log =
        |kind: &str| folded.map_or(0, |f| f.reading.rows.iter().filter(|row| row.kind == kind).count());
    let is_acquire = |call: &&Call| matches!(call.act, Act::Acquire { .. });
    let acquires = || history.calls.iter().filter(is_acquire);
    let granted = acquires().filter(|call| call.ok().is_some()).count().max(in_log("seat_acquired"));
    let denied = acquires()
        .filter(|call| call.refused() == Some("no_seats_available"))
        .count()
        .max(in_log("seat_denied"));
    let counted = |name: &str| {
        let counted = history.noticed.counted.as_ref()?;
        Some(counted.get(name).copied().unwrap_or_default() as usize)
    };
    for (wanted, name, found) in [
        (expect.grants, "grants", Some(granted)),
        (expect.denials, "denials", Some(denied)),
        (expect.conflicts, "conflicts", counted("conflicts")),
        (expect.repairs, "repairs", counted("repairs")),
    ] {
        match found {
            Some(n) => {
                checked += 1;
                notes.push(format!("{name}: {n}"));
                if wanted && n == 0 {
                    violations.push(Violation::new(format!("no {name} occurred during the run")));
                }
            }
            None if wanted => {
                notes.push(format!("{name}: not checked, no metrics were given (--metrics-url)"))
            }
            None => {}
        }
    }
    let (mut shown, mut hidden) = (0, Vec::new());
    for fault in &history.faults {
        checked += 1;
        match &fault.evidence {
            Some(evidence) => {
                shown += 1;
                notes.push(format!("\"{}\" happened: {evidence}", fault.name));
            }
            None => hidden.push(fault),
        }
    }
    for fault in hidden {
        violations.push(
            Violation::new(format!("nothing shows that \"{}\" happened", fault.name))
                .with("began", fault.began),
        );
    }
    if shown < expect.faults {
        violations.push(Violation::new(format!("{shown} faults happened, {} were expected", expect.faults)));
    }
    Verdict::of(checked, violations, notes)
}
