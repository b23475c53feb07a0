//! A private installation for one measurement: Postgres with fsync on, Redis, an issuer, the service.

mod tenants;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use aws_lc_rs::rsa::KeySize;
use engines::{Postgres, PostgresOptions, Redis, RedisOptions, Scratch};

use crate::http::Endpoint;
use crate::issuer::Issuer;
use crate::keys;
use crate::process::{Process, free_port};
use crate::token::{Issuing, JwtKey};

pub use tenants::create_tenants;

const DATABASE: &str = "license";
const AUDIENCE: &str = "coditect-license";
/// Longer than any run.
const TOKEN_LIFETIME: Duration = Duration::from_secs(48 * 3600);
const SERVER_GRACE: Duration = Duration::from_secs(40);

/// What runs, in the order in which it is dropped: the server first, its folder last.
pub struct Stand {
    server: Process,
    /// Where the service listens.
    pub endpoint: Endpoint,
    /// Mints tokens that the service accepts.
    pub issuing: Issuing,
    issuer: Issuer,
    redis: Redis,
    postgres: Postgres,
    dir: Scratch,
}

impl Stand {
    /// Starts everything and waits until the service is ready.
    pub async fn start(server: &Path) -> Result<Self> {
        let dir = Scratch::new()?;
        let postgres = Postgres::start(postgres_options(dir.path())).await?;
        postgres.create_database(DATABASE).await?;
        let redis = Redis::start(RedisOptions::new(dir.path().join("redis"))).await?;
        let key = JwtKey::generate()?;
        let issuer = Issuer::start(key.jwk()).await?;
        let signing_key = dir.path().join("signing.pem");
        fs::write(&signing_key, keys::to_pem(&keys::generate(KeySize::Rsa4096)?)?)?;

        let listen = format!("127.0.0.1:{}", free_port()?);
        let envs = environment(&listen, &postgres, &redis, &issuer, &signing_key)?;
        Process::start(server, &["migrate"], &envs, &dir.path().join("migrate.log"))?.finish().await?;
        let mut process = Process::start(server, &["serve"], &envs, &dir.path().join("serve.log"))?;
        let endpoint = Endpoint::parse(&format!("http://{listen}"))?;
        process.wait_until(&endpoint, "/ready", |status| status == 200).await?;

        let issuing = Issuing {
            key,
            issuer: issuer.url().to_owned(),
            audience: AUDIENCE.into(),
            tenant_claim: "tenant_id".into(),
            lifetime: TOKEN_LIFETIME,
        };
        Ok(Self { server: process, endpoint, issuing, issuer, redis, postgres, dir })
    }

    /// The service's process id.
    pub fn server_pid(&self) -> Option<u32> {
        self.server.id()
    }

    /// Ends everything, the service first.
    pub async fn stop(self) -> Result<()> {
        self.server.stop(SERVER_GRACE).await;
        drop(self.issuer);
        self.redis.stop_fast().await?;
        self.postgres.stop_fast().await?;
        drop(self.dir);
        Ok(())
    }
}

/// The same settings as a small production machine; durability is not traded for speed.
fn postgres_options(dir: &Path) -> PostgresOptions {
    PostgresOptions::new(dir.join("postgres"))
        .setting("fsync", "on")
        .setting("synchronous_commit", "on")
        .setting("shared_buffers", "512MB")
        .setting("max_connections", "200")
        .setting("max_wal_size", "4GB")
}

fn environment(
    listen: &str,
    postgres: &Postgres,
    redis: &Redis,
    issuer: &Issuer,
    signing_key: &Path,
) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("DATABASE_URL", postgres.url(DATABASE)),
        ("REDIS_URL", redis.url()),
        ("OIDC_ISSUER", issuer.url().to_owned()),
        ("OIDC_AUDIENCE", AUDIENCE.to_owned()),
        ("SIGNER", "local".to_owned()),
        ("SIGNING_KEY_FILE", signing_key.display().to_string()),
        ("LISTEN_ADDR", listen.to_owned()),
        ("METRICS_ADDR", format!("127.0.0.1:{}", free_port()?)),
        ("RATE_LIMIT_PER_USER_PER_MINUTE", "0".to_owned()),
        ("RATE_LIMIT_PER_TENANT_PER_SECOND", "0".to_owned()),
        ("RUST_LOG", "warn".to_owned()),
    ])
}

/// The service's binary: the one named, else the one beside our own.
pub fn server_path(named: Option<PathBuf>) -> Result<PathBuf> {
    let path = match named {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("coditect-license"),
    };
    path.canonicalize().with_context(|| {
        format!(
            "no server at {}: build it (`cargo build --release`) or name it with --server",
            path.display()
        )
    })
}
