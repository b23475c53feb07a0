//! Processes, seen through `/proc`.
//!
//! Trap: every Postgres backend opens a session of its own, so a process group reaches only the postmaster. The tree of parents does not lie
//! as long as the main process cannot fork: it is stopped before the others are looked for.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

/// How long a process may take to obey `SIGSTOP` or `SIGKILL`.
const OBEY_LIMIT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

struct Stat {
    state: char,
    parent: u32,
}

/// `/proc/PID/stat` is `pid (name) state parent …`, and the name may hold blanks and brackets.
fn stat(pid: u32) -> Option<Stat> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Stat { state, parent })
}

/// Whether the process runs or is frozen; one that has ended and waits to be collected does not count.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|it| !matches!(it.state, 'Z' | 'X'))
}

fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|it| !matches!(it.state, 'T' | 't' | 'Z' | 'X'))
}

/// Everything that `root` started and what those started, without `root`.
pub fn descendants(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some((pid, known)) = pid.and_then(|pid| stat(pid).map(|known| (pid, known))) {
            children.entry(known.parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        let born = children.remove(&parent).unwrap_or_default();
        open.extend(&born);
        found.extend(born);
    }
    found
}

/// Sends one signal to one process; one that is gone already is no failure.
pub(crate) fn send(pid: u32, signal: Signal) -> Result<()> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a process id")?;
    match rustix::process::kill_process(target, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot send {signal:?} to process {pid}")),
    }
}

/// Freezes `root` and all that it started. Afterwards none of them runs and none can be born.
pub(crate) fn freeze(root: u32) -> Result<()> {
    let start = Instant::now();
    send(root, Signal::STOP)?;
    loop {
        let mut restless: Vec<u32> = descendants(root);
        restless.push(root);
        restless.retain(|pid| is_running(*pid));
        if restless.is_empty() {
            return Ok(());
        }
        if start.elapsed() > OBEY_LIMIT {
            bail!("processes {restless:?} do not stop");
        }
        for pid in restless {
            send(pid, Signal::STOP)?;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Undoes [`freeze`]; the main process last, so that it finds its children awake.
pub(crate) fn thaw(root: u32) -> Result<()> {
    for pid in descendants(root) {
        send(pid, Signal::CONT)?;
    }
    send(root, Signal::CONT)
}

/// Kills `root` and all that it started, and waits until none is alive. Children of other parents are not looked for.
pub fn end_tree(root: u32) -> Result<()> {
    // Freezing first leaves nobody who could start another.
    let frozen = freeze(root);
    let mut all: HashSet<u32> = descendants(root).into_iter().collect();
    all.insert(root);
    for pid in &all {
        send(*pid, Signal::KILL)?;
    }
    let start = Instant::now();
    while all.iter().any(|pid| is_alive(*pid)) {
        if start.elapsed() > OBEY_LIMIT {
            bail!("processes of {root} survive SIGKILL");
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    frozen
}
