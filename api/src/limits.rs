//! Requests that a caller may make: per user and per tenant, counted after verification, by each replica for itself.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use events::{TenantId, UserId};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::config::LimitConfig;
use crate::problem::Problem;

/// How often counters that are full again are dropped: what is kept is bounded by the callers of one interval.
const FORGET_EVERY: Duration = Duration::from_secs(30);

/// The counters of this replica. Cheap to clone.
#[derive(Clone)]
pub struct RateLimits {
    per_user: Option<Arc<DefaultKeyedRateLimiter<(TenantId, UserId)>>>,
    per_tenant: Option<Arc<DefaultKeyedRateLimiter<TenantId>>>,
}

impl RateLimits {
    /// Counters that are all full.
    #[must_use]
    pub fn new(config: &LimitConfig) -> Self {
        let per_user = config.per_user_per_minute().map(|most| keyed(Quota::per_minute(most)));
        let per_tenant =
            config.per_tenant_per_second().map(|most: NonZeroU32| keyed(Quota::per_second(most)));
        let limits = Self { per_user, per_tenant };
        tokio::spawn(limits.clone().forget());
        limits
    }

    async fn forget(self) {
        loop {
            tokio::time::sleep(FORGET_EVERY).await;
            if let Some(users) = &self.per_user {
                users.retain_recent();
                users.shrink_to_fit();
            }
            if let Some(tenants) = &self.per_tenant {
                tenants.retain_recent();
            }
        }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub fn check(&self, tenant_id: TenantId, user_id: &UserId) -> Result<(), Problem> {
        if let Some(users) = &self.per_user {
            check(users, &(tenant_id, user_id.clone()))?;
        }
        if let Some(tenants) = &self.per_tenant {
            check(tenants, &tenant_id)?;
        }
        Ok(())
    }
}

fn keyed<K: Hash + Eq + Clone>(quota: Quota) -> Arc<DefaultKeyedRateLimiter<K>> {
    Arc::new(RateLimiter::keyed(quota))
}

fn check<K: Hash + Eq + Clone>(limiter: &DefaultKeyedRateLimiter<K>, key: &K) -> Result<(), Problem> {
    limiter.check_key(key).map_err(|full| {
        let wait = full.wait_time_from(DefaultClock::default().now());
        Problem::RateLimited { retry_after_seconds: wait.as_secs() + 1 }
    })
}
