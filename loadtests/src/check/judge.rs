//! The invariants, one file for each group of them. All of it is pure: a history and what was read go in, a
//! verdict comes out, so that a test can falsify either and see the verdict turn.

mod answers;
mod holds;
mod isolation;
mod lasting;
mod limits;
mod log_order;
mod occurred;
mod once;
mod recovery;
pub(crate) mod rest;
mod versions;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod made;
#[cfg(test)]
mod mutations;

use std::collections::BTreeMap;

use super::evidence::Evidence;
use super::fold::Fold;
use super::history::History;
use super::log::{Reading, Row};
use super::report::{Invariant, Verdict};

/// What an invariant that needs the log says without one.
const NO_LOG: &str = "needs the database (--database-url)";

/// A log and what it says.
pub(crate) struct Folded<'a> {
    pub reading: &'a Reading,
    pub fold: Fold,
    /// What to add to a moment's Unix milliseconds to get Postgres's.
    pub offset_ms: i64,
    /// What each request wrote.
    pub requests: BTreeMap<&'a str, Vec<&'a Row>>,
}

impl<'a> Folded<'a> {
    fn of(reading: &'a Reading) -> Self {
        let mut requests = BTreeMap::<_, Vec<_>>::new();
        for row in &reading.rows {
            if let Some(request) = &row.request {
                requests.entry(request.as_str()).or_default().push(row);
            }
        }
        let (fold, offset_ms) = (Fold::of(&reading.rows), reading.clock_offset_ms);
        Self { reading, fold, offset_ms, requests }
    }

    /// What a request wrote.
    fn written(&self, request: &str) -> &[&'a Row] {
        self.requests.get(request).map_or(&[], Vec::as_slice)
    }
}

/// Judges all of them.
pub(crate) fn judge(history: &History, evidence: &Evidence) -> BTreeMap<Invariant, Verdict> {
    let folded = evidence.reading.as_ref().map(Folded::of);
    let with_log = |judge: &dyn Fn(&Folded<'_>) -> Verdict| match &folded {
        Some(folded) => judge(folded),
        None => Verdict::NotChecked { why: NO_LOG.into() },
    };
    Invariant::ALL
        .into_iter()
        .map(|invariant| {
            let verdict = match invariant {
                Invariant::I1 => holds::within_the_limit(history),
                Invariant::I2 => with_log(&|folded| log_order::no_grant_exceeds(folded)),
                Invariant::I3 => with_log(&|folded| answers::have_events(history, folded)),
                Invariant::I4 => with_log(&|folded| versions::gapless(folded.reading)),
                Invariant::I5 => rest::all_agree(evidence, folded.as_ref()),
                Invariant::I6 => with_log(&|folded| log_order::folds_alike(folded)),
                Invariant::I7 => lasting::answered_is_there(history, folded.as_ref()),
                Invariant::I8 => recovery::in_time(history, folded.as_ref()),
                Invariant::I9 => once::changes_nothing(history, folded.as_ref()),
                Invariant::I10 => holds::one_session_a_holder(history, folded.as_ref()),
                Invariant::I11 => isolation::own_things_only(history, folded.as_ref()),
                Invariant::I12 => occurred::really(history, folded.as_ref()),
            };
            (invariant, verdict)
        })
        .collect()
}
