//! How a server's command line is built: its own process group, no terminal, another user if need be, a death signal.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::find;
use crate::user::User;

/// A log larger than this is put aside when the server starts.
const LOG_LIMIT_BYTES: u64 = 16 * 1024 * 1024;

/// A command for `program` as `user`, which gets `death_signal` when this process ends, however it ends.
///
/// Its own process group keeps the terminal's Ctrl-C away: whoever owns the server ends it, in order.
pub(crate) fn command(program: &Path, user: Option<&User>, death_signal: &str) -> Result<Command> {
    let mut command = match (find::on_path("setpriv"), user) {
        (Some(setpriv), user) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", death_signal]);
            if let Some(user) = user {
                command.arg(format!("--reuid={}", user.uid));
                command.arg(format!("--regid={}", user.gid));
                command.arg("--clear-groups");
            }
            command.arg("--").arg(program);
            command
        }
        (None, None) => Command::new(program),
        (None, Some(_)) => {
            bail!(
                "setpriv not found: root needs it to start Postgres as another user (apt-get install util-linux)"
            )
        }
    };
    command.process_group(0).stdin(Stdio::null());
    // Settings meant for another server must not reach this one.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C");
    Ok(command)
}

/// Sends what the command says to the end of the file `log`.
pub(crate) fn log_to(command: &mut Command, log: &Path) -> Result<()> {
    let file = open_log(log).with_context(|| format!("cannot write the log {}", log.display()))?;
    command.stderr(file.try_clone()?).stdout(file);
    Ok(())
}

fn open_log(log: &Path) -> std::io::Result<File> {
    if fs::metadata(log).is_ok_and(|known| known.len() > LOG_LIMIT_BYTES) {
        fs::rename(log, log.with_extension("log.old"))?;
    }
    OpenOptions::new().create(true).append(true).open(log)
}

/// The last lines of a log, for an error's text.
pub(crate) fn last_lines(log: &Path) -> String {
    const LINES: usize = 6;
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
