//! `project`: folds the log into the read models, and nothing else, unless it has a key: then it may be the notary.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use audit::Notary;
use events::{Database, EventLog};

use crate::app;
use crate::config::ProjectConfig;
use crate::signing::{KeyRing, Schedule, Signer};
use crate::telemetry;

/// Connections to Postgres.
const CONNECTIONS: usize = 8;

/// Longest time of one statement: a page of a log that is read from its beginning takes some.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause before a signer that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(5);

/// Runs until `stop`.
///
/// # Errors
/// When a setting cannot be used, or Postgres does not answer at the start.
pub async fn run(config: &ProjectConfig, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let _telemetry = telemetry::start(&config.telemetry)?;
    let signer = match config.seal.signing() {
        Some(signing) => {
            let schedule = signing.schedule(config.seal.offline_grace_seconds);
            Some((app::signer(&signing).await?, schedule))
        }
        None => None,
    };
    telemetry::serve_metrics(config.metrics_addr)?;
    let database = Database::new(&config.database.database_url, CONNECTIONS, STATEMENT_TIMEOUT)
        .context("DATABASE_URL")?;
    events::require_current_schema(&database).await?;
    let log = EventLog::new(database);
    tracing::info!(metrics = %config.metrics_addr, "projecting");
    tokio::select! {
        () = projections::run(log.clone()) => {}
        () = seal(log, signer, config.notary.every()) => {}
        () = stop => {}
    }
    Ok(())
}

/// A candidate for the notary, if there is a signer. One that does not answer keeps no projection from its work.
async fn seal(log: EventLog, signer: Option<(Arc<dyn Signer>, Schedule)>, every: Duration) {
    let Some((signer, schedule)) = signer else {
        tracing::info!("no signer is set: `serve` seals the log, this process does not");
        return std::future::pending().await;
    };
    let ring = loop {
        match KeyRing::open(signer.clone(), log.clone(), schedule).await {
            Ok(ring) => break ring,
            Err(error) => tracing::warn!(%error, "the notary has no key yet"),
        }
        tokio::time::sleep(RETRY).await;
    };
    tracing::info!("this process may be the notary");
    Notary::new(log, Arc::new(ring)).run(every).await;
}
