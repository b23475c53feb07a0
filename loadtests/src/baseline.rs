//! Another server with the same three endpoints, to compare with: a folder with a script `run` that starts
//! it in the foreground, configured by `PORT`, `PG_PORT`, `REDIS_PORT`, `STATE`, `TENANTS` and `SEATS`.
//! It puts the key that its callers' JWTs are signed with into `$STATE/keys/jwt.pem`, and its tenants are
//! called `tenant-0000` and so on.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::http::Endpoint;
use crate::process::{Process, free_port};
use crate::token::{Issuing, JwtKey};

const GRACE: Duration = Duration::from_secs(30);

/// Where the folder is, and where it keeps what it makes.
#[derive(Clone, Debug)]
pub struct BaselineOptions {
    /// The folder with the script.
    pub dir: PathBuf,
    /// `STATE`.
    pub state: PathBuf,
}

/// The running server.
pub struct Baseline {
    process: Process,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Mints tokens that it accepts.
    pub issuing: Issuing,
}

impl Baseline {
    /// Starts it with so many tenants of so many seats.
    pub async fn start(options: &BaselineOptions, tenants: usize, seats: u32) -> Result<Self> {
        fs::create_dir_all(&options.state)?;
        let state = options.state.canonicalize()?;
        let run = options.dir.join("run").canonicalize().context("the baseline's folder has no `run`")?;
        let port = free_port()?;
        let envs = [
            ("STATE", state.display().to_string()),
            ("PORT", port.to_string()),
            ("PG_PORT", free_port()?.to_string()),
            ("REDIS_PORT", free_port()?.to_string()),
            ("TENANTS", tenants.to_string()),
            ("SEATS", seats.to_string()),
        ];
        let mut process = Process::start(&run, &[], &envs, &state.join("run.log"))?;
        let endpoint = Endpoint::parse(&format!("http://127.0.0.1:{port}"))?;
        // It has no readiness; that it answers at all must do.
        process.wait_until(&endpoint, "/", |_| true).await?;
        let issuing = Issuing {
            key: JwtKey::from_pem(&fs::read_to_string(state.join("keys/jwt.pem"))?)?,
            issuer: "https://idp.example".into(),
            audience: "license-server".into(),
            tenant_claim: "tenant".into(),
            lifetime: Duration::from_secs(48 * 3600),
        };
        Ok(Self { process, endpoint, issuing })
    }

    /// Its tenants' names.
    pub fn tenants(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("tenant-{n:04}")).collect()
    }

    /// Ends it, and what it has started.
    pub async fn stop(self) {
        self.process.stop(GRACE).await;
    }
}
