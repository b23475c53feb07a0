//! Open loop: requests fall due at fixed times, and latency counts from then.
//!
//! A closed loop that meets a stall of ten seconds sends nothing for ten seconds and records one slow
//! request. Clients would have sent theirs all the same and all have waited: leaving them out is called
//! coordinated omission. Here a request that could not be sent in time (its client still waits for the last
//! answer, every connection is taken, the generator itself was late) has been waiting since it fell due.

mod client;
mod pool;
mod recorder;
mod report;
mod run;
mod scenario;
mod stage;
mod text;
mod timetable;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};

use crate::crowd::{Crowd, User};
use crate::http::Endpoint;
use crate::stand::{Stand, StandOptions, create_tenants, server_path};
use crate::target::{Credential, Target};
use crate::token::Issuing;

pub use client::{Client, Next, Script};
pub use report::Report;
pub use run::{Run, drive};
pub use scenario::{Goal, Scenario, ScenarioName};

/// A scenario, and the server that it runs against.
pub struct LoadOptions {
    /// What the clients do.
    pub scenario: Scenario,
    /// At most so many connections; by default one for each client, up to 1,000.
    pub connections: Option<usize>,
    /// The server.
    pub place: Place,
    /// Where the report goes as JSON.
    pub json: Option<PathBuf>,
    /// Where the report goes as text, besides the terminal.
    pub report: Option<PathBuf>,
    /// Whether a missed goal is a failure.
    pub check: bool,
}

/// Where the server is.
pub enum Place {
    /// Started for this run, with Postgres, Redis and an issuer of its own.
    Private {
        /// The service's binary; by default the one beside this program.
        server: Option<PathBuf>,
    },
    /// Running already.
    Remote {
        /// `http://host:port`
        url: String,
        /// Who may call it.
        callers: Callers,
    },
}

/// The callers of a server that is not ours.
pub enum Callers {
    /// Tokens made elsewhere; clients share them in turn.
    Tokens(Vec<String>),
    /// Tokens minted with a key that the server trusts.
    Minted {
        /// The key and what goes into every token.
        issuing: Issuing,
        /// Existing tenants; if there are none they are created.
        tenants: Vec<String>,
    },
}

/// Runs the scenario and reports. Everything that was started is ended before this returns.
pub async fn load(options: LoadOptions) -> Result<()> {
    let LoadOptions { scenario, connections, place, json, report: text, check } = options;
    let report = match place {
        Place::Private { server } => {
            let server = server_path(server)?;
            eprintln!("starting Postgres, Redis, an issuer and {}", server.display());
            let stand = Stand::start(&server, StandOptions::default()).await?;
            let crowd = minted(&stand.endpoint, &stand.issuing, &[], &scenario).await?;
            let run = prepare(&scenario, &stand.endpoint, crowd, connections, stand.server_pid());
            let report = drive(run).await?;
            stand.stop().await?;
            report
        }
        Place::Remote { url, callers } => {
            let endpoint = Endpoint::parse(&url)?;
            let crowd = match callers {
                Callers::Tokens(tokens) => given(tokens)?,
                Callers::Minted { issuing, tenants } => {
                    minted(&endpoint, &issuing, &tenants, &scenario).await?
                }
            };
            drive(prepare(&scenario, &endpoint, crowd, connections, None)).await?
        }
    };
    println!("{}", report.text());
    if let Some(path) = text {
        fs::write(path, report.text())?;
    }
    if let Some(path) = json {
        fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    if check && !report.goal_met() {
        bail!("the scenario's goal was missed");
    }
    Ok(())
}

fn prepare(
    scenario: &Scenario,
    endpoint: &Endpoint,
    crowd: Crowd,
    connections: Option<usize>,
    server_pid: Option<u32>,
) -> Run {
    const MOST_CONNECTIONS: usize = 1_000;
    Run {
        target: Arc::new(Target::new(endpoint.clone(), Credential::Header)),
        scenario: scenario.clone(),
        crowd,
        connections: connections.unwrap_or(scenario.clients.min(MOST_CONNECTIONS)).max(1),
        server_pid,
    }
}

async fn minted(
    endpoint: &Endpoint,
    issuing: &Issuing,
    tenants: &[String],
    scenario: &Scenario,
) -> Result<Crowd> {
    const MOST_USERS: usize = 10_000;
    let mut tenants = tenants.to_vec();
    if tenants.is_empty() {
        eprintln!("creating {} tenants", scenario.tenants);
        let prefix = Target::new(endpoint.clone(), Credential::Header).new_machine();
        tenants = create_tenants(endpoint, issuing, &prefix, scenario.tenants, scenario.seats).await?;
    }
    let users = scenario.clients.min(MOST_USERS);
    eprintln!("minting {} tokens", users.max(tenants.len()));
    Crowd::mint(issuing, &tenants, users)
}

fn given(tokens: Vec<String>) -> Result<Crowd> {
    if tokens.is_empty() {
        bail!("no tokens: give --token, --token-file or --token-key");
    }
    let user = |(n, token)| User::new(format!("token-{n}"), token);
    let users = tokens.into_iter().enumerate().map(user).collect::<Result<_>>()?;
    Ok(Crowd { users, tenants: 1 })
}
