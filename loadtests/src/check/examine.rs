//! Gathers what the stores and the API say, and judges the history by it.

use std::collections::BTreeMap;

use anyhow::Result;

use super::evidence::{self, Evidence};
use super::history::{Act, Call, History, Origin};
use super::judge;
use super::report::Report;
use super::site::Site;

/// Waits until the system is at rest, reads it, and judges.
///
/// # Errors
/// When a store that was named cannot be read.
pub async fn examine(history: &History, site: &Site) -> Result<Report> {
    let evidence = evidence::gather(history, site).await?;
    Ok(report(history, &evidence))
}

/// Judges by what was read.
pub(crate) fn report(history: &History, evidence: &Evidence) -> Report {
    Report {
        seed: history.seed,
        counts: counts(history, evidence),
        verdicts: judge::judge(history, evidence),
    }
}

fn counts(history: &History, evidence: &Evidence) -> BTreeMap<String, u64> {
    let count =
        |wanted: &dyn Fn(&Call) -> bool| history.calls.iter().filter(|call| wanted(call)).count() as u64;
    let mut counts = BTreeMap::from([
        ("calls".to_owned(), history.calls.len() as u64),
        ("acquires granted".to_owned(), count(&|c| c.ok().is_some_and(|body| body["status"] == "granted"))),
        ("acquires renewed".to_owned(), count(&|c| c.ok().is_some_and(|body| body["status"] == "renewed"))),
        ("acquires denied".to_owned(), count(&|c| c.refused() == Some("no_seats_available"))),
        ("heartbeats ok".to_owned(), count(&|c| matches!(c.act, Act::Heartbeat { .. }) && c.ok().is_some())),
        ("released".to_owned(), count(&|c| matches!(c.act, Act::Release { .. }) && c.ok().is_some())),
        ("revoked".to_owned(), count(&|c| matches!(c.act, Act::Revoke { .. }) && c.ok().is_some())),
        ("limit changes".to_owned(), count(&|c| matches!(c.act, Act::SetSeats { .. }) && c.ok().is_some())),
        (
            "suspended".to_owned(),
            count(&|c| matches!(c.refused(), Some("license_inactive" | "tenant_inactive"))),
        ),
        ("unknown".to_owned(), count(&|c| c.unknown())),
        ("duplicates".to_owned(), count(&|c| c.origin == Origin::Duplicate)),
        ("late".to_owned(), count(&|c| matches!(c.origin, Origin::Late(_)))),
        ("retries".to_owned(), count(&|c| matches!(c.origin, Origin::Retry(_)))),
        ("users removed".to_owned(), count(&|c| matches!(c.act, Act::RemoveUser { .. }) && c.ok().is_some())),
        ("faults".to_owned(), history.faults.len() as u64),
    ]);
    if let Some(reading) = &evidence.reading {
        counts.insert("events".into(), reading.rows.len() as u64);
    }
    counts
}
