//! Everything that a trial needs, started for it alone: Postgres, Redis, an issuer, replicas, and a proxy on each way
//! between them. Only the checker reads the stores directly.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use engines::{Postgres, PostgresOptions, Redis, RedisOptions, Scratch};
use loadtests::check::{Site, SiteOptions, Stores, Tokens};
use loadtests::{Issuer, Issuing, JwtKey};
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::proxy::{Proxy, Upstream};
use crate::redis::RedisClient;
use crate::replica::{Replica, server_binary};

const DATABASE: &str = "license";
const AUDIENCE: &str = "coditect-license";
const TOKEN_LIFETIME: Duration = Duration::from_secs(48 * 3600);

/// RSA-4096 takes a while to make: one key for all trials of a process.
static SIGNING_KEY: OnceCell<String> = OnceCell::const_new();

/// Fills a database.
pub type Prepare = Box<dyn FnOnce(String, String) -> Pin<Box<dyn Future<Output = Result<()>>>>>;

/// What a stand is made of.
pub struct StandOptions {
    /// How many replicas.
    pub replicas: usize,
    /// `SESSION_TTL_SECONDS`.
    pub ttl: Duration,
    /// Settings of Postgres besides ours.
    pub postgres: Vec<(&'static str, &'static str)>,
    /// Settings of Redis besides ours.
    pub redis: Vec<(&'static str, String)>,
    /// Variables of the Redis process.
    pub redis_environment: Vec<(String, String)>,
    /// In place of our Redis.
    pub redis_url: Option<String>,
    /// Variables of single replicas, at their first start only.
    pub first_start: BTreeMap<usize, Vec<(String, String)>>,
    /// Variables of all replicas.
    pub environment: Vec<(String, String)>,
    /// Fills the empty database before the program migrates it: the owner's and the superuser's URL.
    pub prepare: Option<Prepare>,
    /// Where Postgres keeps its data, in place of a folder of the stand.
    pub postgres_dir: Option<PathBuf>,
}

impl StandOptions {
    /// Two replicas and a TTL of 3 s.
    pub fn new() -> Self {
        Self {
            replicas: 2,
            ttl: Duration::from_secs(3),
            postgres: Vec::new(),
            redis: Vec::new(),
            redis_environment: Vec::new(),
            redis_url: None,
            first_start: BTreeMap::new(),
            environment: Vec::new(),
            prepare: None,
            postgres_dir: None,
        }
    }
}

impl Default for StandOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What runs, in the order in which it is dropped: the replicas first, their folder last.
pub struct Stand {
    /// The replicas.
    pub replicas: Vec<Replica>,
    /// Between the clients and each replica.
    pub client_ways: Vec<Proxy>,
    /// Between each replica and Postgres.
    pub postgres_ways: Vec<Proxy>,
    /// Between each replica and Redis; leads to nothing if another Redis was named.
    pub redis_ways: Vec<Proxy>,
    /// Between the checker and Redis, which a failover may move elsewhere.
    pub redis_way_of_the_checker: Proxy,
    /// Redises besides, kept until the verdict.
    pub more_redis: Vec<Redis>,
    /// The TTL.
    pub ttl: Duration,
    /// Mints tokens that the service accepts.
    pub tokens: Arc<Tokens>,
    /// Redis.
    pub redis: Redis,
    /// Postgres.
    pub postgres: Postgres,
    redis_url: String,
    _issuer: Issuer,
    dir: Scratch,
}

impl Stand {
    /// Starts everything and waits until all replicas are ready.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(mut options: StandOptions) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let binary = server_binary()?;
        let dir = Scratch::new()?;
        let postgres = Postgres::start(postgres_options(&options, dir.path())).await.context("Postgres")?;
        postgres.create_database(DATABASE).await?;
        let redis = Redis::start(redis_options(&options, dir.path())).await.context("Redis")?;
        let key = JwtKey::generate()?;
        let issuer = Issuer::start(key.jwk()).await?;
        let signing_key = dir.path().join("signing.pem");
        let pem = SIGNING_KEY.get_or_try_init(|| async { loadtests::signing_key_pem() }).await?;
        std::fs::write(&signing_key, pem)?;
        if let Some(prepare) = options.prepare.take() {
            prepare(postgres.url(DATABASE), postgres.superuser_url(DATABASE)).await?;
        }
        migrate(&binary, &postgres.url(DATABASE)).await?;

        let mut environment = vec![
            ("OIDC_ISSUER".to_owned(), issuer.url().to_owned()),
            ("OIDC_AUDIENCE".to_owned(), AUDIENCE.to_owned()),
            ("SIGNING_KEY_FILE".to_owned(), signing_key.display().to_string()),
            ("SESSION_TTL_SECONDS".to_owned(), options.ttl.as_secs().to_string()),
            ("HEARTBEAT_INTERVAL_SECONDS".to_owned(), "1".to_owned()),
            ("RATE_LIMIT_PER_USER_PER_MINUTE".to_owned(), "0".to_owned()),
            ("RATE_LIMIT_PER_TENANT_PER_SECOND".to_owned(), "0".to_owned()),
            ("SHUTDOWN_GRACE_SECONDS".to_owned(), "10".to_owned()),
            ("LOG_FORMAT".to_owned(), "text".to_owned()),
            ("RUST_LOG".to_owned(), "warn".to_owned()),
        ];
        environment.extend(options.environment.iter().cloned());
        let issuing = Issuing {
            key,
            issuer: issuer.url().to_owned(),
            audience: AUDIENCE.into(),
            tenant_claim: "tenant_id".into(),
            lifetime: TOKEN_LIFETIME,
        };
        let redis_way_of_the_checker = Proxy::start(Upstream::Unix(redis.socket().to_owned())).await?;
        let direct = format!("redis://{}", redis_way_of_the_checker.address());
        let redis_url = options.redis_url.clone().unwrap_or(direct);
        let mut stand = Self {
            replicas: Vec::new(),
            client_ways: Vec::new(),
            postgres_ways: Vec::new(),
            redis_ways: Vec::new(),
            redis_way_of_the_checker,
            more_redis: Vec::new(),
            ttl: options.ttl,
            tokens: Arc::new(Tokens::Minted(issuing)),
            redis,
            postgres,
            redis_url,
            _issuer: issuer,
            dir,
        };
        for n in 0..options.replicas {
            let besides = options.first_start.get(&n).cloned().unwrap_or_default();
            stand.add_replica(&binary, environment.clone(), options.redis_url.clone()).await?;
            stand.replicas[n].launch(&besides)?;
        }
        for replica in &mut stand.replicas {
            replica.wait_ready().await?;
        }
        Ok(stand)
    }

    async fn add_replica(
        &mut self,
        binary: &Path,
        mut environment: Vec<(String, String)>,
        redis_url: Option<String>,
    ) -> Result<()> {
        let postgres = Proxy::start(Upstream::Unix(self.postgres_socket())).await?;
        let redis = Proxy::start(Upstream::Unix(self.redis.socket().to_owned())).await?;
        let database = format!("postgres://coditect@{}/{DATABASE}", postgres.address());
        environment.push(("DATABASE_URL".into(), database));
        environment
            .push(("REDIS_URL".into(), redis_url.unwrap_or_else(|| format!("redis://{}", redis.address()))));
        let name = format!("replica-{}", self.replicas.len());
        let replica = Replica::new(&name, binary, self.dir.path(), environment)?;
        let address = replica.url.trim_start_matches("http://").parse()?;
        self.client_ways.push(Proxy::start(Upstream::Tcp(address)).await?);
        self.postgres_ways.push(postgres);
        self.redis_ways.push(redis);
        self.replicas.push(replica);
        Ok(())
    }

    fn postgres_socket(&self) -> PathBuf {
        self.postgres.socket_dir().join(".s.PGSQL.5432")
    }

    /// A folder of the stand.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes the tenants that are played with.
    ///
    /// # Errors
    /// When they cannot be made.
    pub async fn furnish(&self, tenants: usize, seats: u32) -> Result<Site> {
        let options = SiteOptions {
            replicas: self.client_ways.iter().map(|way| format!("http://{}", way.address())).collect(),
            metrics: self.replicas.iter().map(|replica| replica.metrics.clone()).collect(),
            tokens: self.tokens.clone(),
            stores: Stores {
                database_url: Some(self.postgres.superuser_url(DATABASE)),
                redis_url: Some(self.redis_url.clone()),
            },
            tenants,
            seats,
        };
        Site::furnish(options).await
    }

    /// A connection with all rights, past the proxies.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn superuser(&self) -> Result<tokio_postgres::Client> {
        let url = self.postgres.superuser_url(DATABASE);
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Commands to Redis, past the proxies.
    pub fn redis_client(&self) -> RedisClient {
        RedisClient::unix(self.redis.socket())
    }

    /// A metric, summed over all replicas that run.
    pub async fn metric(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for replica in &self.replicas {
            sum += replica.metric(name).await.unwrap_or(0.0);
        }
        sum
    }
}

fn postgres_options(options: &StandOptions, dir: &Path) -> PostgresOptions {
    let place = options.postgres_dir.clone().unwrap_or_else(|| dir.join("postgres"));
    // A commit reaches the operating system, which no fault of ours takes down; it need not reach the disk.
    let mut postgres = PostgresOptions::new(place).setting("fsync", "off");
    for (name, value) in &options.postgres {
        postgres = postgres.setting(*name, *value);
    }
    postgres
}

fn redis_options(options: &StandOptions, dir: &Path) -> RedisOptions {
    let mut redis = RedisOptions::new(dir.join("redis"));
    for (name, value) in &options.redis {
        redis = redis.setting(*name, value.clone());
    }
    for (name, value) in &options.redis_environment {
        redis = redis.variable(name.clone(), value.clone());
    }
    redis
}

async fn migrate(binary: &Path, url: &str) -> Result<()> {
    let output = Command::new(binary).arg("migrate").env("DATABASE_URL", url).output().await?;
    ensure!(output.status.success(), "migrate: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
