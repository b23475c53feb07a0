//! I2, I6 and the log's half of I10: what holds in every prefix of a pool's log.

use super::super::fold::{Fold, Step};
use super::super::report::{Verdict, Violation};
use super::Folded;

/// I2: the limit and the standing that were in force when a grant was written allowed it.
pub(super) fn no_grant_exceeds(folded: &Folded<'_>) -> Verdict {
    let (mut checked, mut violations) = (0, Vec::new());
    Fold::watched(&folded.reading.rows, |step| {
        if step.row.kind != "seat_acquired" {
            return;
        }
        checked += 1;
        for what in wrong(step) {
            violations.push(
                Violation::new(what)
                    .with("license", &step.row.stream)
                    .with("session", step.row.session.as_deref().unwrap_or("none"))
                    .with("cursor", step.row.cursor())
                    .with("version", step.after.version),
            );
        }
    });
    Verdict::of(checked, violations, Vec::new())
}

/// What is wrong with a grant.
fn wrong(step: &Step<'_>) -> Vec<String> {
    let (before, after, row) = (step.before, step.after, step.row);
    let mut wrong = Vec::new();
    if after.live as i64 > before.seats {
        wrong.push(format!("a grant makes {} of {} seats", after.live, before.seats));
    }
    if !before.active {
        wrong.push("a grant in a license that is suspended".to_owned());
    }
    if !step.tenant_active {
        wrong.push("a grant in a tenant that is suspended".to_owned());
    }
    if step.user_removed {
        wrong.push("a grant to a user who was removed".to_owned());
    }
    if before.valid_from_ms.is_some_and(|from| row.at_ms < from)
        || before.valid_until_ms.is_some_and(|until| row.at_ms >= until)
    {
        wrong.push("a grant outside of the license's time".to_owned());
    }
    let said = (row.data["seats_used"].as_i64(), row.data["seats_total"].as_i64());
    if said != (Some(after.live as i64), Some(before.seats)) {
        wrong.push(format!("a grant says {said:?} seats, the log {} of {}", after.live, before.seats));
    }
    wrong
}

/// I6: the log that was read twice, in pages of different sizes, folds to the same bytes.
pub(super) fn folds_alike(folded: &Folded<'_>) -> Verdict {
    let (first, second) = (folded.fold.bytes(), Fold::of(&folded.reading.again).bytes());
    let mut violations = Vec::new();
    if first != second {
        let same = first.iter().zip(&second).take_while(|(a, b)| a == b).count();
        let around = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[same.saturating_sub(60)..bytes.len().min(same + 60)]).into_owned()
        };
        violations.push(
            Violation::new(format!("two readings fold to {} and {} bytes", first.len(), second.len()))
                .with("first", around(&first))
                .with("second", around(&second)),
        );
    }
    Verdict::of(folded.reading.rows.len() as u64, violations, vec![format!("{} bytes", first.len())])
}

/// I10 in the log: a grant to a user and machine that hold a live session.
pub(super) fn twins(folded: &Folded<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    Fold::watched(&folded.reading.rows, |step| {
        if let Some(twin) = &step.twin {
            violations.push(
                Violation::new("a grant to a holder of a live session")
                    .with("license", &step.row.stream)
                    .with("sessions", format!("{twin} {}", step.row.session.as_deref().unwrap_or("none")))
                    .with("cursor", step.row.cursor()),
            );
        }
    });
    violations
}
