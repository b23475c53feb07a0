//! `loadtests load`: a scenario, scaled, and the server that it runs against.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use crate::load::{Callers, LoadOptions, Place, Scenario, ScenarioName};
use crate::token::{Issuing, JwtKey};

/// `loadtests load`.
#[derive(Debug, Args)]
pub struct LoadArguments {
    /// What the clients do.
    #[arg(value_enum)]
    scenario: ScenarioName,
    /// Virtual clients; without --rate the rate changes in proportion.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    clients: Option<u32>,
    /// For how long requests fall due.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    duration_seconds: Option<u64>,
    /// Requests a second, of all clients together.
    #[arg(long)]
    rate: Option<f64>,
    /// Tenants over which the clients are spread.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    tenants: Option<u32>,
    /// Seats of each tenant.
    #[arg(long)]
    seats: Option<u32>,
    /// At most so many connections [default: one for each client, up to 1000].
    #[arg(long)]
    connections: Option<usize>,
    #[command(flatten)]
    server: ServerArguments,
    /// Writes the report as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the report as text to this file.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Fails if the scenario's goal is missed.
    #[arg(long)]
    check: bool,
}

/// Which server, and who calls it.
#[derive(Debug, Args)]
struct ServerArguments {
    /// The binary of the server to start [default: `coditect-license` beside this program].
    #[arg(long, conflicts_with = "url")]
    server: Option<PathBuf>,
    /// A server that runs already, instead of a private one: `http://host:port`.
    #[arg(long)]
    url: Option<String>,
    /// A caller's JWT; may be repeated.
    #[arg(long, requires = "url")]
    token: Vec<String>,
    /// A file with a JWT in each line.
    #[arg(long, requires = "url")]
    token_file: Option<PathBuf>,
    /// RSA private key (PKCS#8 PEM) whose public half the server's issuer publishes: mints the tokens here.
    #[arg(long, requires_all = ["url", "token_issuer", "token_audience"], conflicts_with_all = ["token", "token_file"])]
    token_key: Option<PathBuf>,
    /// The `kid` that the issuer publishes it by.
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
    /// An existing tenant for the minted tokens; may be repeated. Without one, tenants are created.
    #[arg(long = "tenant", requires = "token_key")]
    tenant_ids: Vec<String>,
}

impl LoadArguments {
    /// The options that they mean.
    pub fn into_options(self) -> Result<LoadOptions> {
        let scenario = self.scaled();
        // Tokens must outlast the run.
        let lifetime = scenario.duration * 2 + Duration::from_secs(3_600);
        Ok(LoadOptions {
            connections: self.connections,
            place: self.server.place(lifetime)?,
            json: self.json,
            report: self.report,
            check: self.check,
            scenario,
        })
    }

    fn scaled(&self) -> Scenario {
        let mut scenario = self.scenario.scenario();
        if let Some(clients) = self.clients {
            scenario.rate *= f64::from(clients) / scenario.clients as f64;
            scenario.clients = clients as usize;
        }
        scenario.rate = self.rate.unwrap_or(scenario.rate).max(0.001);
        scenario.duration = self.duration_seconds.map_or(scenario.duration, Duration::from_secs);
        scenario.tenants =
            self.tenants.map_or(scenario.tenants, |tenants| tenants as usize).min(scenario.clients);
        scenario.seats = self.seats.unwrap_or(scenario.seats);
        scenario
    }
}

impl ServerArguments {
    fn place(self, lifetime: Duration) -> Result<Place> {
        let Some(url) = self.url else { return Ok(Place::Private { server: self.server }) };
        let callers = match self.token_key {
            Some(path) => {
                let pem = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                let issuing = Issuing {
                    key: JwtKey::from_pem(&pem)?.with_kid(self.token_kid),
                    issuer: self.token_issuer.unwrap_or_default(),
                    audience: self.token_audience.unwrap_or_default(),
                    tenant_claim: self.token_tenant_claim,
                    lifetime,
                };
                Callers::Minted { issuing, tenants: self.tenant_ids }
            }
            None => {
                let mut tokens = self.token;
                if let Some(path) = self.token_file {
                    let text =
                        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                    tokens.extend(text.split_whitespace().map(str::to_owned));
                }
                Callers::Tokens(tokens)
            }
        };
        Ok(Place::Remote { url, callers })
    }
}
