//! A private installation for one measurement: Postgres with fsync on, Redis, an issuer, the service.

mod tenants;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_lc_rs::rsa::KeySize;
use engines::{Postgres, PostgresOptions, Redis, RedisOptions, Scratch};

use crate::check::{Site, SiteOptions, Stores, Tokens, Workload};
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

/// How much of it, and how it is set.
#[derive(Clone, Debug)]
pub struct StandOptions {
    /// Processes of the service, all on the same Postgres and Redis.
    pub replicas: usize,
    /// `SESSION_TTL_SECONDS`; `None`: the service's default.
    pub ttl_seconds: Option<u32>,
    /// The service's `REDIS_URL`; `None`: a private Redis.
    pub redis_url: Option<String>,
}

impl Default for StandOptions {
    fn default() -> Self {
        Self { replicas: 1, ttl_seconds: None, redis_url: None }
    }
}

/// What runs, in the order in which it is dropped: the servers first, their folder last.
pub struct Stand {
    servers: Vec<Replica>,
    /// Where the service's first replica listens.
    pub endpoint: Endpoint,
    /// Base URLs of all replicas.
    pub urls: Vec<String>,
    /// Base URLs of their metrics listeners.
    pub metrics: Vec<String>,
    /// Mints tokens that the service accepts.
    pub issuing: Issuing,
    issuer: Issuer,
    redis: Redis,
    postgres: Postgres,
    dir: Scratch,
}

/// One process of the service, while it runs, and how it is started.
struct Replica {
    server: PathBuf,
    envs: Vec<(&'static str, String)>,
    process: Option<Process>,
}

impl Stand {
    /// Starts everything and waits until the service is ready.
    ///
    /// # Errors
    /// When something is missing or does not start; the message shows its log.
    pub async fn start(server: &Path, options: StandOptions) -> Result<Self> {
        let dir = Scratch::new()?;
        let postgres = Postgres::start(postgres_options(dir.path())).await?;
        postgres.create_database(DATABASE).await?;
        let redis = Redis::start(RedisOptions::new(dir.path().join("redis"))).await?;
        let key = JwtKey::generate()?;
        let issuer = Issuer::start(key.jwk()).await?;
        let signing_key = dir.path().join("signing.pem");
        fs::write(&signing_key, keys::to_pem(&keys::generate(KeySize::Rsa4096)?)?)?;

        let mut envs = environment(&postgres, &redis, &issuer, &signing_key);
        envs.extend(options.redis_url.map(|url| ("REDIS_URL", url)));
        if let Some(ttl) = options.ttl_seconds {
            envs.push(("SESSION_TTL_SECONDS", ttl.to_string()));
            envs.push(("HEARTBEAT_INTERVAL_SECONDS", (ttl / 3).max(1).to_string()));
        }
        Process::start(server, &["migrate"], &envs, &dir.path().join("migrate.log"))?.finish().await?;
        let mut stand = Self {
            servers: Vec::new(),
            endpoint: Endpoint::parse("http://127.0.0.1")?,
            urls: Vec::new(),
            metrics: Vec::new(),
            issuing: Issuing {
                key,
                issuer: issuer.url().to_owned(),
                audience: AUDIENCE.into(),
                tenant_claim: "tenant_id".into(),
                lifetime: TOKEN_LIFETIME,
            },
            issuer,
            redis,
            postgres,
            dir,
        };
        for _ in 0..options.replicas.max(1) {
            let (listen, counted) =
                (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
            let mut envs = envs.clone();
            envs.extend([("LISTEN_ADDR", listen.clone()), ("METRICS_ADDR", counted.clone())]);
            stand.urls.push(format!("http://{listen}"));
            stand.metrics.push(format!("http://{counted}"));
            stand.servers.push(Replica { server: server.to_owned(), envs, process: None });
        }
        stand.endpoint = Endpoint::parse(&stand.urls[0])?;
        for n in 0..stand.servers.len() {
            stand.start_replica(n).await?;
        }
        Ok(stand)
    }

    /// Starts a replica, for the first time or again, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start; the message shows its log.
    pub async fn start_replica(&mut self, n: usize) -> Result<()> {
        let replica = &mut self.servers[n];
        let log = self.dir.path().join(format!("serve-{n}.log"));
        let mut process = Process::start(&replica.server, &["serve"], &replica.envs, &log)?;
        process.wait_until(&Endpoint::parse(&self.urls[n])?, "/ready", |status| status == 200).await?;
        replica.process = Some(process);
        Ok(())
    }

    /// Kills a replica as `kill -9` does; answers how it ended.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill_replica(&mut self, n: usize) -> Result<String> {
        let process = self.servers[n].process.take().with_context(|| format!("replica {n} does not run"))?;
        let pid = process.id().unwrap_or_default();
        let status = process.kill().await?;
        Ok(format!("process {pid}: {status}"))
    }

    /// The process id of the service's first replica.
    pub fn server_pid(&self) -> Option<u32> {
        self.servers.first()?.process.as_ref()?.id()
    }

    /// The database, for the role that owns it.
    pub fn database_url(&self) -> String {
        self.postgres.url(DATABASE)
    }

    /// Redis.
    pub fn redis_url(&self) -> String {
        self.redis.url()
    }

    /// Tenants of its own for a check of it.
    ///
    /// # Errors
    /// When the service does not make them.
    pub async fn site(&self, workload: &Workload) -> Result<Site> {
        Site::furnish(SiteOptions {
            replicas: self.urls.clone(),
            metrics: self.metrics.clone(),
            tokens: Arc::new(Tokens::Minted(self.issuing.clone())),
            stores: Stores { database_url: Some(self.database_url()), redis_url: Some(self.redis_url()) },
            tenants: workload.tenants,
            seats: workload.seats,
        })
        .await
    }

    /// Ends everything, the service first.
    ///
    /// # Errors
    /// When Postgres or Redis does not stop in order.
    pub async fn stop(self) -> Result<()> {
        for process in self.servers.into_iter().filter_map(|replica| replica.process) {
            process.stop(SERVER_GRACE).await;
        }
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

/// What all replicas have in common.
fn environment(
    postgres: &Postgres,
    redis: &Redis,
    issuer: &Issuer,
    signing_key: &Path,
) -> Vec<(&'static str, String)> {
    vec![
        ("DATABASE_URL", postgres.url(DATABASE)),
        ("REDIS_URL", redis.url()),
        ("OIDC_ISSUER", issuer.url().to_owned()),
        ("OIDC_AUDIENCE", AUDIENCE.to_owned()),
        ("SIGNER", "local".to_owned()),
        ("SIGNING_KEY_FILE", signing_key.display().to_string()),
        ("RATE_LIMIT_PER_USER_PER_MINUTE", "0".to_owned()),
        ("RATE_LIMIT_PER_TENANT_PER_SECOND", "0".to_owned()),
        ("RUST_LOG", "warn".to_owned()),
    ]
}

/// The service's binary: the one named, else the one beside our own.
///
/// # Errors
/// When there is none.
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
