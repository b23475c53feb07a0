//! What happened, as the clients saw it. Times are of one monotonic clock, the driver's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::site::Tenant;
use super::workload::{Expect, Patience};

/// Microseconds since the play began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// Later by `by`.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Time since an earlier moment; none if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub enum Act {
    /// A seat.
    Acquire { product: String, machine: String, key: Option<String> },
    /// A sign of life.
    Heartbeat { session: String },
    /// The seat goes back.
    Release { session: String },
    /// An admin changes a pool's limit.
    SetSeats { license: String, seats: u32 },
    /// An admin suspends a license, or lets it work again.
    SetLicenseActive { license: String, active: bool },
    /// An admin suspends a tenant, or lets it work again.
    SetTenantActive { active: bool },
    /// An admin ends a session.
    Revoke { session: String },
    /// An admin removes a user, and with it its sessions.
    RemoveUser { removed: String },
    /// An admin adds a removed user again.
    AddUser { added: String },
    /// Somebody reaches for what is another tenant's: `tenant` is the victim.
    Trespass { method: String, path: String, session: Option<String>, victim: String },
}

/// Why a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "origin", content = "of", rename_all = "snake_case")]
pub enum Origin {
    /// For the first time.
    Fresh,
    /// Again, since the outcome of this call is unknown.
    Retry(u64),
    /// At the same time as another of the same act.
    Duplicate,
    /// Long after this call was over.
    Late(u64),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the answer's")]
pub enum Outcome {
    /// Answered with success.
    Ok { status: u16, body: Value },
    /// Answered with a refusal, which changes nothing.
    Refused { status: u16, code: String, body: Value },
    /// No answer, or one that leaves open whether it took effect (503 and other 5xx).
    Unknown { why: String },
}

/// One request and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Counts up.
    pub id: u64,
    /// Its `X-Request-Id`, which its events carry.
    pub request_id: String,
    /// Which part of the driver sent it.
    pub actor: String,
    /// The caller's tenant.
    pub tenant: String,
    /// The caller.
    pub user: String,
    /// What was asked for.
    #[serde(flatten)]
    pub act: Act,
    /// Why.
    #[serde(flatten)]
    pub origin: Origin,
    /// Which replica.
    pub replica: usize,
    /// When it was sent.
    pub sent: Moment,
    /// When its answer was there, or it was given up.
    pub done: Moment,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Call {
    /// The answer of a success.
    #[must_use]
    pub fn ok(&self) -> Option<&Value> {
        match &self.outcome {
            Outcome::Ok { body, .. } => Some(body),
            Outcome::Refused { .. } | Outcome::Unknown { .. } => None,
        }
    }

    /// The code of a refusal.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Refused { code, .. } => Some(code),
            Outcome::Ok { .. } | Outcome::Unknown { .. } => None,
        }
    }

    /// Whether its outcome is unknown.
    #[must_use]
    pub fn unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown { .. })
    }
}

/// What a fault takes away, so that the checker knows what it may excuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultKind {
    /// Postgres could not be reached by any replica: an outage in the sense of the protocol's rule 7.
    pub postgres_outage: bool,
}

impl FaultKind {
    /// Postgres gone for all replicas.
    #[must_use]
    pub fn postgres_outage() -> Self {
        Self { postgres_outage: true }
    }
}

/// Something that was broken on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What.
    pub name: String,
    /// What it takes away.
    pub kind: FaultKind,
    /// From when.
    pub began: Moment,
    /// Until when; none if it was never repaired.
    pub healed: Option<Moment>,
    /// What shows that it really happened; none if nothing does.
    pub evidence: Option<String>,
}

/// Everything that the clients did and were told, and what was noticed beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct History {
    /// The plan's seed.
    pub seed: u64,
    /// Wall clock of [`Moment`] 0, by the driver's machine.
    pub began: SystemTime,
    /// When the last request was over.
    pub ended: Moment,
    /// Whose pools were played with, with their limits when it began.
    pub tenants: Vec<Tenant>,
    /// In the order in which they were sent.
    pub calls: Vec<Call>,
    /// In the order in which they began.
    pub faults: Vec<Fault>,
    /// What was noticed while it went on.
    pub noticed: Noticed,
    /// What the run was expected to contain.
    pub expect: Expect,
    /// The time to live that clients were paced by.
    pub ttl: Duration,
    /// How late an expiry may be, and a first success after a fault.
    pub patience: Patience,
}

/// What the driver noticed while the play went on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Noticed {
    /// What the replicas counted during the run, added up over restarts; none if no metrics were given.
    pub counted: Option<BTreeMap<String, f64>>,
    /// Each end of an outage that the beacon told of, by Postgres's clock, in Unix milliseconds.
    pub recoveries_ms: BTreeSet<i64>,
    /// The longest time for which the driver itself did not get the processor.
    pub longest_stall: Duration,
}

impl Moment {
    /// The same instant as Unix milliseconds of the driver's wall clock.
    #[must_use]
    pub fn unix_ms(self, began: SystemTime) -> i64 {
        let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        i64::try_from(began)
            .unwrap_or(i64::MAX)
            .saturating_add(i64::try_from(self.0 / 1_000).unwrap_or(i64::MAX))
    }
}
