//! Which replica folds: a row with a time on it, by Postgres's clock. It saves work and keeps nothing safe.

use std::time::{Duration, Instant};

use events::{EventLog, LogError};
use uuid::Uuid;

/// For how long a replica may be silent before another takes over.
const TERM: Duration = Duration::from_millis(2_500);

/// How often it says that it is there.
const RENEW: Duration = Duration::from_millis(500);

pub(super) struct Lease {
    holder: Uuid,
    renewed: Option<Instant>,
}

impl Lease {
    pub fn new() -> Self {
        Self { holder: Uuid::now_v7(), renewed: None }
    }

    /// Whether this replica folds. Asks Postgres only as often as it must.
    pub async fn hold(&mut self, log: &EventLog) -> Result<bool, LogError> {
        if self.renewed.is_some_and(|at| at.elapsed() < RENEW) {
            return Ok(true);
        }
        self.renewed = None;
        let begun = Instant::now();
        let client = log.database().get().await?;
        let statement = client.prepare_cached(include_str!("../sql/lease.sql")).await?;
        let term = TERM.as_secs_f64();
        let held = client.query_opt(&statement, &[&self.holder, &term]).await?.is_some();
        if held {
            self.renewed = Some(begun);
        }
        Ok(held)
    }
}
