//! Seals the log as it grows: one notary among all replicas, by a lease in Postgres.
//!
//! A round reads what readers may see (never past a transaction that still runs, so never skipping), adds each event to
//! its tenant's tree, and, if any tree grew, seals: one signature for all of them. A tenant without events costs
//! nothing. What a round adds and how far it read change in one transaction; a seal is one transaction too, after its
//! signature, so that no transaction waits for a signer. A round that dies is done again.

mod fold;
mod seal;

pub(crate) use fold::STORED_LEVELS;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use events::EventLog;
use uuid::Uuid;

use crate::{AuditError, NotarySigner};

/// How long the notary's replica may be silent before another takes over.
const LEASE: Duration = Duration::from_secs(30);

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Seals the log. Cheap to clone; each clone is the same candidate for the lease.
#[derive(Clone)]
pub struct Notary {
    log: EventLog,
    signer: Arc<dyn NotarySigner>,
    me: Uuid,
    asked: Arc<Mutex<Option<fold::Instant>>>,
}

/// What a round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// Another replica is the notary.
    Elsewhere,
    /// Nothing is new since the last checkpoint.
    Nothing,
    /// The number of the latest checkpoint that it made.
    Sealed(u64),
}

impl Notary {
    /// A notary for this log.
    #[must_use]
    pub fn new(log: EventLog, signer: Arc<dyn NotarySigner>) -> Self {
        Self { log, signer, me: Uuid::now_v7(), asked: Arc::default() }
    }

    /// Seals at most once in `every`, until the process ends.
    pub async fn run(self, every: Duration) {
        loop {
            let pause = match self.round().await {
                Ok(Round::Sealed(number)) => {
                    metrics::gauge!("license_notary_checkpoint").set(number as f64);
                    tracing::debug!(number, "sealed");
                    every
                }
                Ok(_) => every,
                Err(error) => {
                    tracing::warn!(%error, "the notary stands still");
                    every.max(RETRY)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads what is new and seals it, if this replica is, or becomes, the notary.
    ///
    /// # Errors
    /// When the database or the signer cannot be asked; nothing is lost.
    pub async fn round(&self) -> Result<Round, AuditError> {
        loop {
            if !self.take_lease().await? {
                return Ok(Round::Elsewhere);
            }
            if !fold::page(&self.log, self.me, &self.asked).await? {
                break;
            }
        }
        let mut sealed = Round::Nothing;
        while let Some(number) = seal::seal(&self.log, self.signer.as_ref(), self.me).await? {
            sealed = Round::Sealed(number);
            if !self.take_lease().await? {
                break;
            }
        }
        Ok(sealed)
    }

    /// Becomes or stays the notary, unless another replica's lease holds.
    async fn take_lease(&self) -> Result<bool, AuditError> {
        let client = self.log.database().get().await?;
        let held = client
            .query_one("select holder is distinct from $1 and lease_until > now() from notary", &[&self.me])
            .await?;
        if held.get::<_, bool>(0) {
            return Ok(false);
        }
        let taken = client
            .execute(
                "update notary set holder = $1, lease_until = now() + make_interval(secs => $2)
                 where holder is not distinct from $1 or lease_until <= now()",
                &[&self.me, &LEASE.as_secs_f64()],
            )
            .await?;
        Ok(taken == 1)
    }
}
