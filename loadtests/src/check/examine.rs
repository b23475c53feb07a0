//! Gathers what the stores and the API say, and judges the history by it.

use std::collections::BTreeMap;

use anyhow::Result;

use super::history::History;
use super::report::{Invariant, Report, Verdict, Violation};
use super::site::Site;
use super::{judge, log};

/// Waits until the system is at rest, reads it, and judges.
///
/// # Errors
/// When a store that was named cannot be read.
pub async fn examine(history: &History, site: &Site) -> Result<Report> {
    let mut verdicts: BTreeMap<_, _> = Invariant::ALL
        .into_iter()
        .map(|invariant| (invariant, Verdict::NotChecked { why: "this version does not".into() }))
        .collect();
    let mut counts = BTreeMap::new();
    if let Some(url) = &site.stores.database_url {
        let tenants: Vec<_> = history.tenants.iter().map(|tenant| tenant.id.clone()).collect();
        let reading = log::read(url, &tenants).await?;
        counts.insert("events".into(), reading.rows.len() as u64);
        verdicts.insert(Invariant::I4, judge::versions::gapless(&reading));
    }
    verdicts.insert(Invariant::I12, occurred(history));
    counts.insert("calls".into(), history.calls.len() as u64);
    counts.insert("ok".into(), history.calls.iter().filter(|call| call.ok().is_some()).count() as u64);
    counts.insert("unknown".into(), history.calls.iter().filter(|call| call.unknown()).count() as u64);
    Ok(Report { seed: history.seed, counts, verdicts })
}

fn occurred(history: &History) -> Verdict {
    let shown = history.faults.iter().filter(|fault| fault.evidence.is_some()).count();
    let mut violations = Vec::new();
    if shown < history.expect.faults {
        violations.push(Violation::new(format!(
            "{shown} faults happened, {} were expected",
            history.expect.faults
        )));
    }
    Verdict::of(history.faults.len() as u64, violations, Vec::new())
}
