//! What happened: a run in which nothing went wrong has shown nothing.

/// What happened in a schedule, or in many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    counts: std::collections::BTreeMap<&'static str, u64>,
}

/// What a run must have met to have shown anything.
const NEEDED: [&str; 18] = [
    "granted",
    "renewed",
    "denied",
    "released",
    "ended",
    "alive",
    "beats beside a batch",
    "conflicts",
    "repeats",
    "repairs",
    "lies",
    "crashes",
    "outages",
    "answers lost",
    "sent twice",
    "late",
    "revoked",
    "keys of ended sessions",
];

impl Tally {
    pub fn count(&mut self, what: &'static str, by: u64) {
        *self.counts.entry(what).or_default() += by;
    }

    pub fn add(&mut self, other: &Self) {
        for (what, by) in &other.counts {
            self.count(what, *by);
        }
    }

    pub fn require_everything(&self) {
        for what in NEEDED {
            assert!(self.counts.get(what).is_some_and(|count| *count > 0), "no {what} in {self:?}");
        }
    }
}
