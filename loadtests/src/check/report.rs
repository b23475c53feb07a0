//! What the checker found, one verdict an invariant.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// The protocol's invariants ("What a checker asserts").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Invariant {
    /// At no instant do more clients hold an answer "granted" than the limit allows.
    I1,
    /// In no prefix of a pool's log does a grant exceed the limit in force.
    I2,
    /// Every "granted", "ok" and "released" that a client got has its event.
    I3,
    /// Versions 1 to n without gap or repeat.
    I4,
    /// At rest Redis, the seats table, the fold of the log and the read API agree.
    I5,
    /// Folding twice gives the same bytes.
    I6,
    /// Whatever is killed, everything answered is there.
    I7,
    /// A crashed holder's seat is free in time; after a fault an acquire succeeds soon.
    I8,
    /// A duplicate or late request changes nothing.
    I9,
    /// One live session per pool, user and machine.
    I10,
    /// A tenant sees and touches only its own.
    I11,
    /// The fault really happened, and what it should have met really occurred.
    I12,
}

impl Invariant {
    /// All of them, in order.
    pub const ALL: [Self; 12] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
        Self::I11,
        Self::I12,
    ];

    /// What it says.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::I1 => "at no instant do more clients hold a seat than the limit in force allows",
            Self::I2 => "in no prefix of a pool's log does a grant exceed the limit in force",
            Self::I3 => "every granted, ok and released has its event",
            Self::I4 => "versions 1 to n without gap or repeat",
            Self::I5 => "at rest Redis == seats table == fold of the log == read API",
            Self::I6 => "folding twice gives the same bytes",
            Self::I7 => "everything answered is there",
            Self::I8 => "a crashed holder's seat is free in time, and a fault is over soon",
            Self::I9 => "a duplicate or late request changes nothing",
            Self::I10 => "one live session per pool, user and machine",
            Self::I11 => "a tenant sees and touches only its own",
            Self::I12 => "what the run should contain really occurred",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// One contradiction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What is wrong, in a sentence.
    pub what: String,
    /// What shows it: session ids, cursors, request ids, times.
    pub evidence: BTreeMap<&'static str, String>,
}

impl Violation {
    /// Without evidence yet.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), evidence: BTreeMap::new() }
    }

    /// Adds a piece of evidence.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.evidence.insert(name, value.to_string());
        self
    }
}

/// What became of one invariant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is explained")]
pub enum Verdict {
    /// It held; so many things were looked at. Some part may not have been checked.
    Ok { checked: u64, notes: Vec<String> },
    /// It could not be checked.
    NotChecked { why: String },
    /// It did not hold.
    Violated { violations: Vec<Violation> },
}

impl Verdict {
    /// From what was looked at and what was found.
    #[must_use]
    pub fn of(checked: u64, violations: Vec<Violation>, notes: Vec<String>) -> Self {
        if violations.is_empty() { Self::Ok { checked, notes } } else { Self::Violated { violations } }
    }
}

/// What the checker found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The play's seed.
    pub seed: u64,
    /// What happened, in numbers.
    pub counts: BTreeMap<String, u64>,
    /// One verdict an invariant.
    pub verdicts: BTreeMap<Invariant, Verdict>,
}

/// Most violations of one invariant that the text shows; JSON has all.
const SHOWN: usize = 5;

impl Report {
    /// All contradictions.
    #[must_use]
    pub fn violations(&self) -> Vec<(Invariant, &Violation)> {
        let mut found = Vec::new();
        for (invariant, verdict) in &self.verdicts {
            if let Verdict::Violated { violations } = verdict {
                found.extend(violations.iter().map(|violation| (*invariant, violation)));
            }
        }
        found
    }

    /// Whether this invariant was contradicted.
    #[must_use]
    pub fn is_violated(&self, invariant: Invariant) -> bool {
        matches!(self.verdicts.get(&invariant), Some(Verdict::Violated { .. }))
    }

    /// Whether nothing was contradicted.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.violations().is_empty()
    }

    /// For tests: stops with the whole report unless everything that was checked held.
    #[track_caller]
    pub fn assert_ok(&self) {
        assert!(self.is_ok(), "\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        let counts: Vec<_> = self.counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
        writeln!(f, "{}", counts.join(" · "))?;
        for (invariant, verdict) in &self.verdicts {
            let says = invariant.says();
            match verdict {
                Verdict::Ok { checked, notes } => {
                    writeln!(f, "{:<4} ok           {says} ({checked} checked)", invariant.to_string())?;
                    for note in notes {
                        writeln!(f, "                  {note}")?;
                    }
                }
                Verdict::NotChecked { why } => {
                    writeln!(f, "{:<4} not checked  {says}: {why}", invariant.to_string())?;
                }
                Verdict::Violated { violations } => {
                    writeln!(
                        f,
                        "{:<4} VIOLATED     {says}: {} times",
                        invariant.to_string(),
                        violations.len()
                    )?;
                    for violation in violations.iter().take(SHOWN) {
                        writeln!(f, "     - {}", violation.what)?;
                        for (name, value) in &violation.evidence {
                            writeln!(f, "         {name}: {value}")?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
