//! How long things live.

use std::time::Duration;

use clap::Args;

/// Sessions and tokens, in seconds.
#[derive(Debug, Clone, Copy, Args)]
pub struct SessionConfig {
    /// A session ends after so many seconds without a heartbeat
    #[arg(long, env, default_value_t = 360, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub session_ttl_seconds: u32,
    /// Seconds between heartbeats that clients are told
    #[arg(long, env, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub heartbeat_interval_seconds: u32,
    /// Seconds that a license token outlives its issue, unless its license says otherwise
    #[arg(long, env, default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(60..=31_536_000))]
    pub offline_grace_seconds: u32,
}

impl SessionConfig {
    /// How long a seat lives without a heartbeat.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        Duration::from_secs(self.session_ttl_seconds.into())
    }

    /// What clients are told.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_secs(self.told_interval_seconds().into())
    }

    /// Seconds between heartbeats that clients are told. An interval that is no shorter than the TTL would cost every
    /// obedient client its seat: five sixths of the TTL take its place, as in the defaults.
    #[must_use]
    pub fn told_interval_seconds(&self) -> u32 {
        if self.heartbeat_interval_seconds < self.session_ttl_seconds {
            self.heartbeat_interval_seconds
        } else {
            (self.session_ttl_seconds * 5 / 6).max(1)
        }
    }
}
