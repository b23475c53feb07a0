//! What the clients do, and how much of it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is played. The same seed plans the same acts; what comes of them depends on the service's answers.
#[derive(Clone, Debug)]
pub struct Workload {
    /// From which every choice is drawn.
    pub seed: u64,
    /// Virtual clients, each a user of one tenant.
    pub clients: usize,
    /// For how long they begin new acts.
    pub duration: Duration,
    /// Tenants over which they are spread, besides the one of the probes.
    pub tenants: usize,
    /// Seats of each pool; fewer than its clients, or nobody is ever refused.
    pub seats: u32,
    /// The service's `SESSION_TTL_SECONDS`; the pace of everything follows it.
    pub ttl: Duration,
    /// A request without an answer for so long is given up: its outcome is unknown.
    pub request_timeout: Duration,
    /// How often which act happens.
    pub mix: Mix,
    /// What must have occurred for the run to prove anything.
    pub expect: Expect,
    /// How late an expiry may be, and a first success after a fault.
    pub patience: Patience,
    /// Where the history goes, as JSON lines, while it happens.
    pub history: Option<PathBuf>,
}

/// How often which act happens.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Of a hundred acquires, so many carry an `Idempotency-Key`.
    pub keyed_percent: u8,
    /// Of a hundred sessions, so many end without a release.
    pub crash_percent: u8,
    /// Of a hundred sessions, in so many one request is sent twice at the same time.
    pub duplicate_percent: u8,
    /// Of a hundred sessions, in so many one request is sent again long after.
    pub late_percent: u8,
    /// Between two changes of a pool's limit; `None`: never.
    pub limit_change_every: Option<Duration>,
    /// Between two suspensions of a license or tenant; `None`: never.
    pub suspension_every: Option<Duration>,
    /// Between two revocations; `None`: never.
    pub revocation_every: Option<Duration>,
    /// Between two removals of a user, who is added again soon; `None`: never.
    pub removal_every: Option<Duration>,
    /// Between two attempts on another tenant's things; `None`: never.
    pub trespass_every: Option<Duration>,
}

/// What must have occurred (I12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expect {
    /// Seats were granted.
    pub grants: bool,
    /// Acquires were refused for want of a seat.
    pub denials: bool,
    /// Two replicas wrote to the same pool at the same time. Needs two replicas.
    pub conflicts: bool,
    /// A mirror was written or repaired.
    pub repairs: bool,
    /// So many faults were marked, and happened.
    pub faults: usize,
}

/// How late things may be (I8). The longest time that the driver itself stood still is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patience {
    /// From the deadline of a crashed holder's session to its expiry.
    pub expiry: Duration,
    /// From the end of a fault to the next acquire that succeeds.
    pub recovery: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { expiry: Duration::from_secs(2), recovery: Duration::from_secs(5) }
    }
}

impl Workload {
    /// A run of 15 s on a service with a TTL of 3 s.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            seed,
            clients: 40,
            duration: Duration::from_secs(15),
            tenants: 2,
            seats: 10,
            ttl: Duration::from_secs(3),
            request_timeout: Duration::from_secs(2),
            mix: Mix::default(),
            expect: Expect::default(),
            patience: Patience::default(),
            history: None,
        }
    }
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            keyed_percent: 50,
            crash_percent: 20,
            duplicate_percent: 25,
            late_percent: 20,
            limit_change_every: Some(Duration::from_millis(1_500)),
            suspension_every: Some(Duration::from_secs(4)),
            revocation_every: Some(Duration::from_millis(1_200)),
            removal_every: Some(Duration::from_millis(2_500)),
            trespass_every: Some(Duration::from_millis(300)),
        }
    }
}

impl Mix {
    /// Clients alone: no admin changes anything.
    #[must_use]
    pub fn clients_only() -> Self {
        Self {
            limit_change_every: None,
            suspension_every: None,
            revocation_every: None,
            removal_every: None,
            ..Self::default()
        }
    }
}

impl Default for Expect {
    fn default() -> Self {
        Self { grants: true, denials: true, conflicts: true, repairs: true, faults: 0 }
    }
}
