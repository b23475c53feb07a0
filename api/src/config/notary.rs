//! How the log is sealed.

use std::time::Duration;

use clap::Args;

/// The notary: one replica is it at a time.
#[derive(Debug, Clone, Copy, Args)]
pub struct NotaryConfig {
    /// Least seconds between two signed checkpoints of the log; there is none while nothing happens
    #[arg(long, env, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub notary_seal_seconds: u32,
}

impl NotaryConfig {
    /// The pause between two rounds of the notary.
    #[must_use]
    pub fn every(&self) -> Duration {
        Duration::from_secs(self.notary_seal_seconds.into())
    }
}
