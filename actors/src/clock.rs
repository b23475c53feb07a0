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
    /// Milliseconds since `base` when an answer last counted.
    observed: Arc<AtomicI64>,
}

/// An answer that came this quickly counts.
const PROMPT: std::time::Duration = std::time::Duration::from_millis(100);

/// How long a prompt answer is better than a slow one, in milliseconds.
const GOOD_FOR_MILLIS: i64 = 30_000;

impl PostgresClock {
    /// Starts from a time that Postgres answered to a statement sent at `sent`.
    #[must_use]
    pub fn new(sent: Instant, answered: Time) -> Self {
        Self { base: sent, at_base: Arc::new(AtomicI64::new(answered.millis())), observed: Arc::default() }
    }

    /// Corrects the estimate by another answer, unless that was slow in coming while better ones are at hand: the
    /// estimate would run ahead by as much.
    pub fn observe(&self, sent: Instant, answered: Time) {
        let now = i64::try_from(self.base.elapsed().as_millis()).unwrap_or(i64::MAX);
        let is_recent = now.saturating_sub(self.observed.load(Ordering::Relaxed)) < GOOD_FOR_MILLIS;
        if sent.elapsed() > PROMPT && is_recent {
            return;
        }
        self.observed.store(now, Ordering::Relaxed);
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
