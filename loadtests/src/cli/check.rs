//! `loadtests check`: how long, how many, and the system that is checked.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Args;

use crate::check::{CheckOptions, CheckedSystem, Mix, Stores, Tokens, Workload};
use crate::token::{Issuing, JwtKey};

/// `loadtests check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Virtual clients; about a third more than there are seats makes for refusals.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// For how long they begin new acts.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// What every choice is drawn from [default: another one each time; it is printed].
    #[arg(long)]
    seed: Option<u64>,
    /// Tenants to make.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    tenants: u32,
    /// Seats of each pool that is made.
    #[arg(long, default_value_t = 10)]
    seats: u32,
    /// The system's SESSION_TTL_SECONDS; a private installation gets it.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    ttl_seconds: u32,
    /// A request without an answer for so long counts as unknown.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..))]
    request_timeout_ms: u64,
    /// Changes no limit, suspends and revokes nothing.
    #[arg(long)]
    no_admin: bool,
    /// A run on a private installation: so many replicas.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8), conflicts_with = "url")]
    replicas: u32,
    /// The binary of the private installation [default: `coditect-license` beside this program].
    #[arg(long, conflicts_with = "url")]
    server: Option<PathBuf>,
    #[command(flatten)]
    system: SystemArguments,
    /// Writes the history to this file while it happens, as JSON lines.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Writes the report to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A system that runs already.
#[derive(Debug, Args)]
struct SystemArguments {
    /// A replica, or what stands before several: `https://host`; may be repeated. Without one a private installation is started.
    #[arg(long)]
    url: Vec<String>,
    /// A replica's metrics listener: `http://host:9000`; may be repeated. Needed for conflicts and repairs (I12).
    #[arg(long, requires = "url")]
    metrics_url: Vec<String>,
    /// Its database, with a login that may read; needed by all invariants but I1, I10 and I11.
    #[arg(long, requires = "url")]
    database_url: Option<String>,
    /// Its Redis; needed by a part of I5.
    #[arg(long, requires = "url")]
    redis_url: Option<String>,
    /// RSA private key (PKCS#8 PEM) whose public half the system's issuer publishes: mints all tokens here, and tenants of our own are made.
    #[arg(long, requires_all = ["url", "token_issuer", "token_audience"], conflicts_with = "token_file")]
    token_key: Option<PathBuf>,
    /// A file with a user's JWT in each line: only what those users may do is played, in their own tenants.
    #[arg(long, requires = "url")]
    token_file: Option<PathBuf>,
    /// The `kid` that the issuer publishes the key by.
    #[arg(long, default_value = "loadtests")]
    token_kid: String,
    /// `iss` of the minted tokens.
    #[arg(long)]
    token_issuer: Option<String>,
    /// `aud` of the minted tokens.
    #[arg(long)]
    token_audience: Option<String>,
    /// The claim that names the tenant.
    #[arg(long, default_value = "tenant_id")]
    token_tenant_claim: String,
}

impl CheckArguments {
    /// The options that they mean.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn into_options(self) -> Result<CheckOptions> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut workload = Workload::seeded(self.seed.unwrap_or(now.as_millis() as u64 % 1_000_000));
        workload.clients = self.clients as usize;
        workload.duration = Duration::from_secs(self.seconds);
        workload.tenants = self.tenants as usize;
        workload.seats = self.seats;
        workload.ttl = Duration::from_secs(self.ttl_seconds.into());
        workload.request_timeout = Duration::from_millis(self.request_timeout_ms);
        workload.history = self.history;
        if self.no_admin {
            workload.mix = Mix::clients_only();
        }
        let system = if self.system.url.is_empty() {
            CheckedSystem::Private { server: self.server, replicas: self.replicas as usize }
        } else {
            self.system.running(workload.duration)?
        };
        Ok(CheckOptions { workload, system, json: self.json })
    }
}

impl SystemArguments {
    fn running(self, duration: Duration) -> Result<CheckedSystem> {
        let tokens = match (self.token_key, self.token_file) {
            (Some(path), _) => {
                let pem = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                Tokens::Minted(Issuing {
                    key: JwtKey::from_pem(&pem)?.with_kid(self.token_kid),
                    issuer: self.token_issuer.unwrap_or_default(),
                    audience: self.token_audience.unwrap_or_default(),
                    tenant_claim: self.token_tenant_claim,
                    // Tokens must outlast the run.
                    lifetime: duration * 2 + Duration::from_secs(3_600),
                })
            }
            (None, Some(path)) => {
                let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                Tokens::read(&text, &self.token_tenant_claim)?
            }
            (None, None) => anyhow::bail!("a running system needs --token-key or --token-file"),
        };
        let stores = Stores { database_url: self.database_url, redis_url: self.redis_url };
        Ok(CheckedSystem::Running { replicas: self.url, metrics: self.metrics_url, tokens, stores })
    }
}
