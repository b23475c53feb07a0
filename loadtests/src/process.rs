//! A server started for a measurement: its own process group, its output in a file, ended with ours.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::http::{Call, Connection, Endpoint};

const START_LIMIT: Duration = Duration::from_secs(120);
const DROP_GRACE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);
const LOG_TAIL_LINES: usize = 15;

/// A running process. Dropping it ends it too, but blocks meanwhile; [`Process::stop`] does not.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output going to `log`. A Ctrl-C of the terminal reaches only us (another
    /// process group), so that we end it in order; if we are killed outright, the kernel ends it.
    pub fn start(program: &Path, args: &[&str], envs: &[(&str, String)], log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let mut command = guarded(program);
        command.args(args).envs(envs.iter().map(|(name, value)| (*name, value)));
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        Ok(Self { name: program.display().to_string(), child, log: log.to_owned() })
    }

    /// Runs to its end, which must be a success.
    pub async fn finish(mut self) -> Result<()> {
        let status = self.child.wait().await?;
        if status.success() { Ok(()) } else { bail!(self.obituary(status)) }
    }

    /// Waits until a GET of this path is answered as `ready` wants it.
    pub async fn wait_until(
        &mut self,
        endpoint: &Endpoint,
        path: &'static str,
        ready: fn(u16) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        let mut connection = Connection::new(endpoint);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!(self.obituary(status));
            }
            if connection.call(&Call::get(path)).await.is_ok_and(|answer| ready(answer.status)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} is not ready after {} s; its log ends:\n{}",
                    self.name,
                    START_LIMIT.as_secs(),
                    self.tail()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The process id while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// SIGTERM, then, after `grace`, SIGKILL.
    pub async fn stop(mut self, grace: Duration) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            self.signal(Signal::KILL);
            // Killed: it cannot fail to end, and how it ended is of no interest.
            drop(self.child.wait().await);
        }
    }

    /// SIGKILL, to it and to what it has started; answers how it ended.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn kill(mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL);
        Ok(self.child.wait().await?)
    }

    fn signal(&self, signal: Signal) {
        let group = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(group) = group {
            // It may have ended by itself in this instant.
            let _ = kill_process_group(group, signal);
        }
    }

    fn obituary(&self, status: ExitStatus) -> String {
        format!("{} ended ({status}); its log ends:\n{}", self.name, self.tail())
    }

    fn tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

impl Drop for Process {
    /// Blocks until the process has ended, and so also what it started: were we to end first, the kernel's
    /// signal would cut its own tidying short.
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + DROP_GRACE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                return self.signal(Signal::KILL);
            }
            std::thread::sleep(POLL);
        }
    }
}

/// The program under `setpriv --pdeathsig`, where there is one (util-linux, so on every Debian).
fn guarded(program: &Path) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        return Command::new(program);
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "SIGTERM", "--"]).arg(program);
    command
}

/// A port of the loopback that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_ended_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let process =
            Process::start(Path::new("/bin/sh"), &["-c", "sleep 300 & echo $!; wait"], &[], &log).unwrap();
        let child = loop {
            if let Ok(pid) = fs::read_to_string(&log).unwrap().trim().parse::<u32>() {
                break pid;
            }
            tokio::time::sleep(POLL).await;
        };
        assert!(crate::usage::usage(child).is_some());
        process.stop(Duration::from_secs(5)).await;
        let gone = || fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|s| !s.contains(") Z "));
        for _ in 0..100 {
            if !gone() {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        panic!("the child outlived its parent");
    }

    #[tokio::test]
    async fn a_failed_start_shows_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-c", "echo DATABASE_URL is missing; exit 3"];
        let process = Process::start(Path::new("/bin/sh"), &args, &[], &dir.path().join("log")).unwrap();
        let error = process.finish().await.unwrap_err().to_string();
        assert!(error.contains("DATABASE_URL is missing"), "{error}");
    }
}
