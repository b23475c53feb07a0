//! Servers for tests: shared by all, with a database for each.

mod database;
mod template;

use std::env;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tokio::sync::OnceCell;

pub use database::TestDatabase;

use crate::postgres::{Address, SOCKET_PORT};
use crate::{Postgres, PostgresOptions, Redis, RedisOptions, Scratch};

/// The directory of a Postgres's unix socket, which both `coditect` and the superuser `postgres` may enter without a password.
pub(crate) const POSTGRES_DIR: &str = "TEST_POSTGRES_DIR";
/// The URL of a Redis.
pub(crate) const REDIS_URL: &str = "TEST_REDIS_URL";

static SHARED: OnceCell<TestEngines> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A Postgres and a Redis that tests share.
pub struct TestEngines {
    postgres: Address,
    redis_url: String,
    // Held, never read. A static is not dropped: the kernel's death signal and the scratch directory's attendant end these.
    _private: Option<Private>,
}

/// Dropped in this order: the servers before their directory.
struct Private {
    _redis: Redis,
    _postgres: Postgres,
    _scratch: Scratch,
}

impl TestEngines {
    /// The engines that `engines run` has started around the tests; without it, private ones that end with this process.
    pub async fn shared() -> Result<&'static Self> {
        SHARED.get_or_try_init(Self::find_or_start).await
    }

    async fn find_or_start() -> Result<Self> {
        match (env::var_os(POSTGRES_DIR), env::var(REDIS_URL)) {
            (Some(socket_dir), Ok(redis_url)) => {
                let postgres = Address { socket_dir: PathBuf::from(socket_dir), port: SOCKET_PORT };
                Ok(Self { postgres, redis_url, _private: None })
            }
            _ => Self::start().await,
        }
    }

    /// Starts private ones.
    async fn start() -> Result<Self> {
        let scratch = Scratch::new()?;
        let postgres = PostgresOptions::new(scratch.path().join("postgres"));
        let redis = RedisOptions::new(scratch.path().join("redis"));
        let (postgres, redis) = tokio::try_join!(Postgres::start(postgres), Redis::start(redis))?;
        Ok(Self {
            postgres: Address { socket_dir: postgres.socket_dir().to_owned(), port: SOCKET_PORT },
            redis_url: redis.url(),
            _private: Some(Private { _redis: redis, _postgres: postgres, _scratch: scratch }),
        })
    }

    /// The URL of the Redis. It is shared: give every test a key prefix of its own, [`Self::unique_name`].
    pub fn redis_url(&self) -> &str {
        &self.redis_url
    }

    /// The superuser's URL of a database.
    pub fn superuser_url(&self, database: &str) -> String {
        self.postgres.superuser_url(database)
    }

    /// A new, empty database, removed when the value is dropped.
    pub async fn database(&self) -> Result<TestDatabase> {
        TestDatabase::create(&self.postgres, &Self::unique_name(), None).await
    }

    /// A new copy of a database to which nobody is connected, removed when the value is dropped.
    pub async fn database_from(&self, template: &str) -> Result<TestDatabase> {
        TestDatabase::create(&self.postgres, &Self::unique_name(), Some(template)).await
    }

    /// A new copy of the database `template`, removed when the value is dropped. The first test that asks, in whatever process, makes the
    /// template: `fill` is given an empty database, and nothing may stay connected to it. A copy takes a fraction of what a schema takes.
    ///
    /// Tests that share engines share templates, so the name must change with what `fill` does.
    pub async fn database_like<F>(&self, template: &str, fill: F) -> Result<TestDatabase>
    where
        F: AsyncFnOnce(&TestDatabase) -> Result<()>,
    {
        template::ensure(&self.postgres, template, fill).await?;
        self.database_from(template).await
    }

    /// A name that no other test has, in this process or another: lower-case letters, digits and underscores.
    pub fn unique_name() -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        format!("test_{}_{now}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
