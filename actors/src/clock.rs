//! What Postgres's clock shows now, as this process best knows it.
//!
//! Only Postgres's own clock decides (protocol, rule 6); this estimate picks what is worth asking for. It is never
//! behind: an answer's time is counted from when its statement was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use events::Time;

/// An estimate of Postgres's clock. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PostgresClock {
    base: Instant,
    /// Unix milliseconds of Postgres at `base`.
    at_base: Arc<AtomicI64>,
}

impl PostgresClock {
    /// Starts from a time that Postgres answered to a statement sent at `sent`.
    #[must_use]
    pub fn new(sent: Instant, answered: Time) -> Self {
        Self { base: sent, at_base: Arc::new(AtomicI64::new(answered.millis())) }
    }

    /// Corrects the estimate by another answer.
    pub fn observe(&self, sent: Instant, answered: Time) {
        let elapsed =
            i64::try_from(sent.saturating_duration_since(self.base).as_millis()).unwrap_or(i64::MAX);
        self.at_base.store(answered.millis().saturating_sub(elapsed), Ordering::Relaxed);
    }

    /// The estimate, in milliseconds like every stored time.
    #[must_use]
    pub fn now(&self) -> Time {
        let elapsed = i64::try_from(self.base.elapsed().as_millis()).unwrap_or(i64::MAX);
        let millis = self.at_base.load(Ordering::Relaxed).saturating_add(elapsed);
        Time::from_millis(millis).unwrap_or_else(|| chrono::Utc::now().into())
    }
}
