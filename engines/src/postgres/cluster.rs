//! The data of a Postgres, made once, and the process that serves them, started as often as asked.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::PostgresOptions;
use super::address::{Address, SOCKET_PORT, SUPERUSER};
use crate::layout::{self, Layout};
use crate::running::Running;
use crate::user::{self, User};
use crate::{find, launch, processes};

/// Recovery after a kill may read a long log.
const START_LIMIT: Duration = Duration::from_secs(120);
const INITDB_LIMIT: Duration = Duration::from_secs(60);
/// How long a server whose owner was killed may take to end.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

const SETTINGS: &[(&str, &str)] = &[
    ("max_connections", "200"),
    ("shared_buffers", "128MB"),
    ("unix_socket_permissions", "0700"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("logging_collector", "off"),
];
const ACCESS: &str = include_str!("pg_hba.conf");

pub(crate) struct Cluster {
    options: PostgresOptions,
    user: Option<User>,
    layout: Layout,
    bin: PathBuf,
}

impl Cluster {
    /// Claims the directory and makes the data, unless they are there.
    pub(crate) async fn prepare(options: PostgresOptions) -> Result<Self> {
        let user = user::for_postgres()?;
        let layout = Layout::claim(&options.dir, user.as_ref())?;
        let major = fs::read_to_string(layout.root.join("data/PG_VERSION"))
            .ok()
            .and_then(|version| version.trim().parse().ok());
        let bin = find::find_postgres(major)?.path;
        let cluster = Self { options, user, layout, bin };
        if major.is_none() {
            cluster.initdb().await?;
        }
        let access = cluster.data().join("pg_hba.conf");
        fs::write(&access, ACCESS).with_context(|| format!("cannot write {}", access.display()))?;
        Ok(cluster)
    }

    pub(crate) fn address(&self) -> Address {
        Address { socket_dir: self.layout.socket_dir.clone(), port: self.options.port.unwrap_or(SOCKET_PORT) }
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.options.port
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.layout.root.join("postgres.log")
    }

    fn data(&self) -> PathBuf {
        self.layout.root.join("data")
    }

    fn command(&self, program: &str, death_signal: &str) -> Result<Command> {
        let mut command = launch::command(&self.bin.join(program), self.user.as_ref(), death_signal)?;
        command.current_dir(&self.layout.root);
        launch::log_to(&mut command, &self.log())?;
        Ok(command)
    }

    /// Makes the data under another name first: an `initdb` that was killed must not look like one that finished.
    async fn initdb(&self) -> Result<()> {
        let fresh = self.layout.root.join("data.new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).with_context(|| format!("cannot remove {}", fresh.display()))?;
        }
        layout::private(&fresh, self.user.as_ref())?;
        let mut command = self.command("initdb", "KILL")?;
        command.args(["--username", SUPERUSER, "--auth=trust", "--locale=C", "--encoding=UTF8"]);
        command.arg("--pgdata").arg(&fresh);
        let initdb = Running::launch("initdb", command)?;
        if !initdb.wait(INITDB_LIMIT).await {
            bail!("initdb does not finish within {} s", INITDB_LIMIT.as_secs());
        }
        if !initdb.ended().is_some_and(|status| status.success()) {
            bail!("initdb failed:\n{}", launch::last_lines(&self.log()));
        }
        fs::rename(&fresh, self.data()).context("cannot rename the fresh data")
    }

    /// Starts the server and waits until it answers.
    pub(crate) async fn launch(&self, address: &Address) -> Result<Arc<Running>> {
        self.wait_for_predecessor().await?;
        let start = Instant::now();
        loop {
            let running = Running::launch("Postgres", self.server(address)?)?;
            match self.ready(&running, address, start).await {
                Ok(()) => return Ok(Arc::new(running)),
                // A postmaster that was killed leaves backends behind; they notice, within moments.
                Err(error) if self.finds_old_backends() && start.elapsed() < PREDECESSOR_LIMIT => drop(error),
                Err(error) => return Err(error),
            }
            tokio::time::sleep(LOOK_AGAIN * 10).await;
        }
    }

    fn server(&self, address: &Address) -> Result<Command> {
        let listen = if self.options.port.is_some() { "127.0.0.1" } else { "" };
        let mut settings: Vec<(String, String)> =
            SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        settings.push(("listen_addresses".into(), listen.into()));
        settings.push(("port".into(), address.port.to_string()));
        settings.push(("unix_socket_directories".into(), address.socket_dir.to_string_lossy().into()));
        settings.extend(self.options.settings.iter().cloned());
        // SIGINT is Postgres's fast shutdown.
        let mut command = self.command("postgres", "INT")?;
        command.arg("-D").arg(self.data());
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        Ok(command)
    }

    async fn ready(&self, running: &Running, address: &Address, start: Instant) -> Result<()> {
        while start.elapsed() < START_LIMIT {
            if let Some(status) = running.ended() {
                bail!("Postgres ended at its start, {status}:\n{}", launch::last_lines(&self.log()));
            }
            if address.execute("SELECT").await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        bail!(
            "Postgres does not answer within {} s:\n{}",
            START_LIMIT.as_secs(),
            launch::last_lines(&self.log())
        )
    }

    fn finds_old_backends(&self) -> bool {
        launch::last_lines(&self.log()).contains("pre-existing shared memory block")
    }

    /// The claim on the directory is ours, so a postmaster that still serves it is ending: its owner was killed.
    async fn wait_for_predecessor(&self) -> Result<()> {
        let lock = self.data().join("postmaster.pid");
        let Some(pid) =
            fs::read_to_string(&lock).ok().and_then(|text| text.lines().next()?.trim().parse().ok())
        else {
            return Ok(());
        };
        let start = Instant::now();
        while processes::is_alive(pid) && self.is_served_by(pid) {
            if start.elapsed() > PREDECESSOR_LIMIT {
                bail!("another Postgres (process {pid}) serves {}: end it", self.data().display());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        // Trap: when the number belongs to another program by now (ids begin anew in every container), Postgres would refuse to start.
        if lock.exists() && processes::is_alive(pid) {
            fs::remove_file(&lock).with_context(|| format!("cannot remove the stale {}", lock.display()))?;
        }
        Ok(())
    }

    fn is_served_by(&self, pid: u32) -> bool {
        let data = self.data();
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            line.split(|byte| *byte == 0).any(|word| word == data.as_os_str().as_encoded_bytes())
        })
    }
}
