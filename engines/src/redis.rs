//! One private Redis (or Valkey).

mod server;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal as Raw;

use crate::Signal;
use crate::running::Running;
use server::Server;

/// How long a shutdown may take: with persistence it writes its data.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Where and how a [`Redis`] runs.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Holds the socket, the log and the data, if any. Made if it is missing.
    pub dir: PathBuf,
    /// Listens on this port of 127.0.0.1 too, and [`Redis::url`] names it.
    pub port: Option<u16>,
    /// Keeps the data over an end (append-only file, written every second). Without it, every start is empty.
    pub persistence: bool,
    /// Settings beyond ours, as in `redis.conf`; a later one overrides an earlier one.
    pub settings: Vec<(String, String)>,
    /// Variables of the process, such as a library to load before others.
    pub variables: Vec<(String, String)>,
}

impl RedisOptions {
    /// A server in `dir`, on a unix socket only, without persistence.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), ..Self::default() }
    }

    /// Adds one setting.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Adds one variable of the process.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Listens on a port of 127.0.0.1 too.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Keeps the data over an end.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.persistence = true;
        self
    }
}

/// A private Redis that refuses writes rather than evicting keys when it is full.
///
/// Dropping it ends it, and blocks for that time, some milliseconds.
pub struct Redis {
    server: Server,
    running: Mutex<Arc<Running>>,
    // One start or stop at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Redis {
    /// Starts a server.
    pub async fn start(options: RedisOptions) -> Result<Self> {
        let server = Server::prepare(options)?;
        let running = server.launch().await?;
        Ok(Self { server, running: Mutex::new(running), turn: tokio::sync::Mutex::new(()) })
    }

    /// Its URL: `redis+unix:///path` or, with a port, `redis://127.0.0.1:port`.
    pub fn url(&self) -> String {
        match self.server.port() {
            Some(port) => format!("redis://127.0.0.1:{port}"),
            None => format!("redis+unix://{}", self.server.socket().display()),
        }
    }

    /// Its unix socket.
    pub fn socket(&self) -> &Path {
        self.server.socket()
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.server.log()
    }

    fn running(&self) -> Arc<Running> {
        Arc::clone(&self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The process id of the server that was started last.
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// Whether it runs; a frozen one does.
    pub fn is_running(&self) -> bool {
        self.running().ended().is_none()
    }

    /// Sends a signal to it and its children. Blocks until a stop or a kill is done, a few milliseconds.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running().signal(signal)
    }

    /// Ends it without a word to anybody; what was not written is lost.
    pub async fn stop_immediately(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        self.running().signal(Signal::Kill)
    }

    /// Ends it in order; with persistence, everything is written.
    pub async fn stop_fast(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        let running = self.running();
        running.main(Raw::TERM)?;
        if running.wait(STOP_LIMIT).await {
            return Ok(());
        }
        running.signal(Signal::Kill)?;
        bail!("Redis did not stop within {} s and was killed (is it frozen?)", STOP_LIMIT.as_secs())
    }

    /// Starts it again after it was stopped or killed: same address; empty without persistence.
    pub async fn start_again(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        if self.is_running() {
            bail!("Redis still runs, as process {}", self.pid());
        }
        let running = self.server.launch().await?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
        Ok(())
    }

    /// Ends it in order and starts it again.
    pub async fn restart(&self) -> Result<()> {
        self.stop_fast().await?;
        self.start_again().await
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let running = self.running();
        if running.ended().is_none() {
            running.end(Raw::TERM, STOP_LIMIT);
        }
    }
}
