//! The proof of one event, archived or not.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use events::TenantId;
use uuid::Uuid;

use super::open;
use crate::config::DatabaseConfig;

/// What to prove.
#[derive(Debug, Clone, Args)]
pub struct ProveOptions {
    #[command(flatten)]
    database: DatabaseConfig,
    /// Whose event
    #[arg(long)]
    tenant: TenantId,
    /// Its id
    #[arg(long)]
    event: Uuid,
    /// The folder of archived heartbeats, should the event be one of them
    #[arg(long, value_name = "DIR")]
    archives: Option<PathBuf>,
}

/// The proof that an event is in the sealed log, as `verify --proof` reads it.
///
/// # Errors
/// When there is no such event, it is not sealed yet, or something cannot be read.
pub async fn prove(options: &ProveOptions) -> anyhow::Result<String> {
    let log = open(&options.database.database_url).await?;
    let mut proof = audit::event_proof(&log, options.tenant, options.event).await?;
    if let (None, Some(folder)) = (&proof, &options.archives) {
        proof = audit::archived_proof(&log, options.tenant, options.event, folder).await?;
    }
    let Some(proof) = proof else {
        bail!(
            "--event: the tenant has no such event in its sealed log; a heartbeat may be archived: --archives"
        );
    };
    serde_json::to_string_pretty(&proof).context("the proof")
}
