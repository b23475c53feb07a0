//! Ends lapsed sessions of all pools, with or without a live actor, in any replica.
//!
//! A pool's own timer is first; what it missed (it is stopped, its replica is gone, its mirror has a ghost) is found
//! here by the index over `seats.due`. Two replicas may find the same: the second one's append is refused.

use std::time::{Duration, Instant};

use futures_util::StreamExt;

use crate::registry::{Pools, Request};

/// Pause between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// How long overdue a seat is before it is the reaper's: the pool's own timer goes first.
const SLACK_MS: i64 = 400;

/// Most pools of one look.
const LIMIT: i64 = 2_000;

/// Pools served at a time.
const AT_A_TIME: usize = 16;

/// Longest time that one pool is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the live sessions of the whole system are counted.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// Runs until the process ends.
pub async fn reap(pools: Pools) {
    let mut counted: Option<Instant> = None;
    loop {
        if let Err(error) = look(&pools).await {
            tracing::warn!(%error, "lapsed seats were not looked for");
            tokio::time::sleep(EVERY).await;
        }
        if counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
            if let Ok(count) = pools.log().count_seats().await {
                metrics::gauge!("license_sessions_active").set(count as f64);
            }
            counted = Some(Instant::now());
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn look(pools: &Pools) -> Result<(), events::LogError> {
    let overdue = pools.log().lapsed_pools(SLACK_MS, LIMIT).await?;
    futures_util::stream::iter(overdue)
        .for_each_concurrent(AT_A_TIME, |license_id| async move {
            let request = Request { request_id: None, deadline: Instant::now() + PATIENCE };
            if let Err(error) = pools.expire(license_id, &request).await {
                tracing::debug!(%license_id, %error, "a pool did not end its lapsed seats");
            }
        })
        .await;
    Ok(())
}
