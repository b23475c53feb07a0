//! `loadtests check`: plays, examines, prints.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::examine::examine;
use super::play::play;
use super::report::Report;
use super::site::{Site, SiteOptions, Stores, Tokens};
use super::workload::Workload;
use crate::stand::{Stand, StandOptions, server_path};

/// What to check, and how.
pub struct CheckOptions {
    /// What is played.
    pub workload: Workload,
    /// Against what.
    pub system: CheckedSystem,
    /// Where the report goes as JSON.
    pub json: Option<PathBuf>,
}

/// The system that is checked.
pub enum CheckedSystem {
    /// Started for this run: Postgres, Redis, an issuer, and so many replicas.
    Private {
        /// The service's binary; by default the one beside this program.
        server: Option<PathBuf>,
        /// So many.
        replicas: usize,
    },
    /// Running already.
    Running {
        /// Base URLs.
        replicas: Vec<String>,
        /// Base URLs of their metrics listeners.
        metrics: Vec<String>,
        /// Where tokens come from.
        tokens: Tokens,
        /// What may be read.
        stores: Stores,
    },
}

/// Plays, examines and prints. What was started is ended before this returns.
///
/// # Errors
/// When something cannot be started or read, and when an invariant was violated.
pub async fn check(options: CheckOptions) -> Result<()> {
    let CheckOptions { mut workload, system, json } = options;
    println!("seed {}: the same seed plans the same acts", workload.seed);
    let report = match system {
        CheckedSystem::Private { server, replicas } => {
            let server = server_path(server)?;
            eprintln!("starting Postgres, Redis, an issuer and {replicas} of {}", server.display());
            let ttl_seconds = u32::try_from(workload.ttl.as_secs()).ok();
            let stand =
                Stand::start(&server, StandOptions { replicas, ttl_seconds, ..StandOptions::default() })
                    .await?;
            workload.expect.conflicts &= replicas > 1;
            let site = stand.site(&workload).await?;
            let report = run(&site, &workload).await?;
            drop(site);
            stand.stop().await?;
            report
        }
        CheckedSystem::Running { replicas, metrics, tokens, stores } => {
            // What stands before several replicas may be named once: whether they met is not for us to demand.
            workload.expect.conflicts &= replicas.len() > 1;
            let tokens = Arc::new(tokens);
            let site = match &*tokens {
                Tokens::Minted(_) => {
                    let (tenants, seats) = (workload.tenants, workload.seats);
                    let options = SiteOptions { replicas, metrics, tokens, stores, tenants, seats };
                    Site::furnish(options).await?
                }
                Tokens::Given(_) => Site::given(replicas, metrics, tokens, stores)?,
            };
            run(&site, &workload).await?
        }
    };
    print!("{report}");
    if let Some(path) = &json {
        fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    match report.violations().len() {
        0 => Ok(()),
        n => bail!("{n} violations; play it again with --seed {}", report.seed),
    }
}

async fn run(site: &Site, workload: &Workload) -> Result<Report> {
    eprintln!(
        "{} clients for {} s on {} replicas and {} tenants",
        workload.clients,
        workload.duration.as_secs(),
        site.replicas.len(),
        site.tenants.len()
    );
    let history = play(site, workload).await?;
    eprintln!("{} calls; waiting until the system is at rest", history.calls.len());
    examine(&history, site).await
}
