//! Recomputes everything, and names the first thing that is not as it was sealed.
//!
//! Three layers, each checked against the one above: public checkpoints form a signed chain; tenants' heads hang below
//! them; the leaves of a tenant's tree give the heads' roots, and the events give the leaves. A leaf index (event ids and
//! leaf hashes, stored by the notary, authenticated by the roots) is what lets a finding name one event.

mod archives;
mod chain;
mod files;
mod merge;
mod offline;

mod online;
mod places;
mod state;

pub(crate) use files::{ArchivedLine, LeafLine, leaves};
pub(crate) use merge::Runs;

use std::fmt;

use uuid::Uuid;

pub use files::{Kept, read_kept};

pub(crate) use offline::{EventLines, LeafLines};
pub use offline::{OfflineOptions, verify_export};
pub use online::{OnlineOptions, verify_database};

/// What was found to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// An event is not what was sealed.
    Changed,
    /// A sealed event is gone, others after it are there.
    Removed,
    /// An event that was never sealed stands among sealed ones.
    Inserted,
    /// A sealed event stands in another place.
    Reordered,
    /// Sealed events are gone from the end.
    Cut,
    /// The salt of a personal field is gone although the field was not erased.
    SaltMissing,
    /// Events, or the leaf index, were rewritten: the sealed root is another.
    Rewritten,
    /// What is kept beside the log, to decide by, is not what the log says.
    StateChanged,
    /// A checkpoint or head is not what was signed, or what the one after it names.
    CheckpointChanged,
    /// A checkpoint or head is missing, or the chain was rewound.
    CheckpointMissing,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Inserted => "inserted",
            Self::Reordered => "reordered",
            Self::Cut => "cut from the end",
            Self::SaltMissing => "salt missing",
            Self::Rewritten => "rewritten",
            Self::StateChanged => "state changed",
            Self::CheckpointChanged => "checkpoint changed",
            Self::CheckpointMissing => "checkpoint missing",
        })
    }
}

/// The first thing that is wrong with a tenant's log, or with the chain of checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whose log; `None`: the public chain.
    pub tenant_id: Option<Uuid>,
    /// What.
    pub wrong: Wrong,
    /// The event, as far as one can be named.
    pub event_id: Option<Uuid>,
    /// The leaf's index in the tenant's tree, from 0.
    pub index: Option<u64>,
    /// The checkpoint.
    pub checkpoint: Option<u64>,
    /// In words.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.wrong)?;
        if let Some(tenant) = self.tenant_id {
            write!(f, ": tenant {tenant}")?;
        }
        if let Some(event) = self.event_id {
            write!(f, ", event {event}")?;
        }
        if let Some(index) = self.index {
            write!(f, ", leaf {index}")?;
        }
        if let Some(number) = self.checkpoint {
            write!(f, ", checkpoint {number}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// What a verification found, and how much it looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong: the first of each tenant, and of the chain. Empty: everything is as it was sealed.
    pub findings: Vec<Finding>,
    /// Public checkpoints checked.
    pub checkpoints: u64,
    /// Tenants checked.
    pub tenants: u64,
    /// Events recomputed.
    pub events: u64,
    /// Events that no checkpoint covers yet.
    pub unsealed: u64,
    /// Archived events that were not recomputed, because their file was not given.
    pub not_recomputed: u64,
    /// Events of which personal fields were erased.
    pub erased: u64,
    /// What a reader should know about the strength of the result.
    pub notes: Vec<String>,
}
