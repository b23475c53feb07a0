//! One private Postgres.

mod address;
mod cluster;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal as Raw;

pub(crate) use address::{Address, SOCKET_PORT};
use cluster::Cluster;

use crate::Signal;
use crate::running::Running;

/// How long a fast shutdown may take: it writes a checkpoint.
const FAST_LIMIT: Duration = Duration::from_secs(20);
/// How long an immediate shutdown may take: Postgres itself kills its children after five seconds.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(7);

/// Where and how a [`Postgres`] runs.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// Holds the data, the socket and the log. Made if it is missing; what an earlier run left there is used again.
    pub dir: PathBuf,
    /// Settings beyond ours, as in `postgresql.conf`; a later one overrides an earlier one.
    pub settings: Vec<(String, String)>,
    /// Listens on this port of 127.0.0.1 too. There the role `coditect` needs no password, so any user of this machine gets in.
    pub port: Option<u16>,
}

impl PostgresOptions {
    /// A server in `dir`, on a unix socket only.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), ..Self::default() }
    }

    /// Adds one setting.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Listens on a port of 127.0.0.1 too.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }
}

/// A private Postgres with a role `coditect`, which may create databases and roles but is no superuser.
///
/// Dropping it ends it fast (its data are safe) and blocks for that time, a tenth of a second or so.
pub struct Postgres {
    cluster: Cluster,
    address: Address,
    running: Mutex<Arc<Running>>,
    // One start or stop at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Postgres {
    /// Starts a server; on the first start in a directory, `initdb` makes the data (half a second).
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        let cluster = Cluster::prepare(options).await?;
        let address = cluster.address();
        let running = cluster.launch(&address).await?;
        address.ensure_role().await?;
        Ok(Self { cluster, address, running: Mutex::new(running), turn: tokio::sync::Mutex::new(()) })
    }

    /// The URL of a database for the role `coditect`, over the unix socket.
    pub fn url(&self, database: &str) -> String {
        self.address.url(database)
    }

    /// The URL of a database for the superuser, over the unix socket.
    pub fn superuser_url(&self, database: &str) -> String {
        self.address.superuser_url(database)
    }

    /// The URL of a database for the role `coditect` over TCP, if a port was asked for.
    pub fn tcp_url(&self, database: &str) -> Option<String> {
        self.cluster.port().map(|port| address::tcp_url(port, database))
    }

    /// The directory of the unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.address.socket_dir
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.cluster.log()
    }

    /// Makes an empty database that `coditect` owns.
    pub async fn create_database(&self, name: &str) -> Result<()> {
        self.address.create_database(name, None).await
    }

    /// Makes a database that `coditect` owns as a copy of `template`, to which nobody may be connected.
    pub async fn create_database_from(&self, name: &str, template: &str) -> Result<()> {
        self.address.create_database(name, Some(template)).await
    }

    /// Removes a database, if it exists, and ends its sessions.
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        self.address.drop_database(name).await
    }

    fn running(&self) -> Arc<Running> {
        Arc::clone(&self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The process id of the postmaster that was started last.
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// Whether it runs; a frozen one does.
    pub fn is_running(&self) -> bool {
        self.running().ended().is_none()
    }

    /// Sends a signal to the postmaster and its children. Blocks until a stop or a kill is done, a few milliseconds.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running().signal(signal)
    }

    /// Ends it without a checkpoint; the next start recovers from the log.
    pub async fn stop_immediately(&self) -> Result<()> {
        self.stop(Raw::QUIT, IMMEDIATE_LIMIT).await
    }

    /// Ends it in order: sessions are cut, everything is written.
    pub async fn stop_fast(&self) -> Result<()> {
        self.stop(Raw::INT, FAST_LIMIT).await
    }

    async fn stop(&self, signal: Raw, limit: Duration) -> Result<()> {
        let _turn = self.turn.lock().await;
        let running = self.running();
        running.main(signal)?;
        if running.wait(limit).await {
            return Ok(());
        }
        running.signal(Signal::Kill).context("cannot kill Postgres")?;
        bail!("Postgres did not stop within {} s and was killed (is it frozen?)", limit.as_secs())
    }

    /// Starts it again after it was stopped or killed: same data, same address.
    pub async fn start_again(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        if self.is_running() {
            bail!("Postgres still runs, as process {}", self.pid());
        }
        let running = self.cluster.launch(&self.address).await?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
        Ok(())
    }

    /// Ends it fast and starts it again.
    pub async fn restart(&self) -> Result<()> {
        self.stop_fast().await?;
        self.start_again().await
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let running = self.running();
        if running.ended().is_none() {
            running.end(Raw::INT, FAST_LIMIT);
        }
    }
}
