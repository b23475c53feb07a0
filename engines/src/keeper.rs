//! The thread that starts every server.
//!
//! Trap: the parent-death signal fires when the *thread* that spawned the child ends, not the process. A server started from a test's
//! thread or from a worker of a runtime would die with it. This thread lives as long as the process.

use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};

use anyhow::{Context, Result};

struct Job {
    command: Command,
    answer: Sender<io::Result<Child>>,
}

static JOBS: OnceLock<Sender<Job>> = OnceLock::new();

/// Spawns `command` from the thread that never ends.
pub(crate) fn spawn(command: Command) -> Result<Child> {
    let program = format!("{command:?}");
    let (answer, child) = mpsc::channel();
    jobs().send(Job { command, answer }).ok().context("the thread that starts servers is gone")?;
    child
        .recv()
        .context("the thread that starts servers gave no answer")?
        .with_context(|| format!("cannot run {program}"))
}

fn jobs() -> &'static Sender<Job> {
    JOBS.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for mut job in jobs {
                // Who asked may have given up; then the child is nobody's and must not stay.
                if let Err(mpsc::SendError(Ok(mut child))) = job.answer.send(job.command.spawn()) {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        sender
    })
}
