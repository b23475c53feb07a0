//! `engines run`: a command between the start and the end of both engines.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use engines::{Postgres, PostgresOptions, Redis, RedisOptions, Scratch, descendants, end_tree};
use rustix::process::{Pid, Signal as Raw};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

/// How long the command may take to end after it was told to.
const GRACE: Duration = Duration::from_secs(5);

/// Runs `command` and answers with its exit code.
pub(crate) fn run(command: &[&str], fast: bool) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let code = runtime.block_on(beside_engines(command, fast));
    // Whatever still blocks a thread must not delay the end.
    runtime.shutdown_background();
    code
}

async fn beside_engines(command: &[&str], fast: bool) -> Result<ExitCode> {
    // From here on a signal is noticed, and everything that was started is dropped in order.
    let mut told = Told::listen()?;
    let scratch = Scratch::new()?;
    let mut postgres = PostgresOptions::new(scratch.path().join("postgres"));
    if fast {
        for name in ["fsync", "synchronous_commit", "full_page_writes"] {
            postgres = postgres.setting(name, "off");
        }
    }
    let redis = RedisOptions::new(scratch.path().join("redis"));
    let (postgres, redis) = tokio::select! {
        started = async { tokio::try_join!(Postgres::start(postgres), Redis::start(redis)) } => started?,
        signal = told.next() => return Ok(code_of_signal(signal)),
    };
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .env("TEST_POSTGRES_DIR", postgres.socket_dir())
        .env("TEST_REDIS_URL", redis.url())
        .spawn()
        .with_context(|| format!("cannot run {}", command[0]))?;
    let code = tokio::select! {
        status = child.wait() => code_of(status?),
        signal = told.next() => {
            end(&mut child, signal, &mut told).await;
            code_of_signal(signal)
        }
    };
    // The data go away anyway: no checkpoint.
    if postgres.is_running() {
        let _ = postgres.stop_immediately().await;
    }
    Ok(code)
}

/// Ends the command and what it started. A second signal ends the patience.
async fn end(child: &mut Child, signal: Raw, told: &mut Told) {
    let Some(root) = child.id() else { return };
    let mut family: HashSet<u32> = descendants(root).into_iter().collect();
    family.insert(root);
    // A terminal tells everybody itself; told twice, some programs leave without tidying up.
    if !(signal == Raw::INT && std::io::stdin().is_terminal()) {
        for pid in &family {
            send(*pid, signal);
        }
    }
    tokio::select! {
        _ = timeout(GRACE, child.wait()) => {}
        _ = told.next() => {}
    }
    if child.id().is_some() {
        family.extend(descendants(root));
        let _ = end_tree(root);
        let _ = child.wait().await;
    }
    for pid in family {
        send(pid, Raw::KILL);
    }
}

fn send(pid: u32, signal: Raw) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The signals that ask us to end.
struct Told {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Told {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Raw {
        tokio::select! {
            _ = self.interrupt.recv() => Raw::INT,
            _ = self.terminate.recv() => Raw::TERM,
            _ = self.hangup.recv() => Raw::HUP,
        }
    }
}

/// A command that died of a signal answers as in a shell.
fn code_of(status: ExitStatus) -> ExitCode {
    let number = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(number).unwrap_or(1))
}

fn code_of_signal(signal: Raw) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(1))
}
