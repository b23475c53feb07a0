//! A temporary directory for servers, which goes away even when this process is killed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::user;

const ATTENDANT: &str = include_str!("attendant.sh");

/// A temporary directory that Postgres's user can enter. Dropping it kills the servers that still run there and removes it.
///
/// A shell waits beside it for the end of this process. If the process was killed, the shell ends what still runs there, frozen or not,
/// and removes the directory.
pub struct Scratch {
    dir: TempDir,
    attendant: Child,
}

impl Scratch {
    /// Makes one below the system's temporary directory.
    pub fn new() -> Result<Self> {
        let top = reachable_top()?;
        let dir = tempfile::Builder::new()
            .prefix("engines-")
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir_in(&top)
            .with_context(|| format!("cannot make a directory in {}", top.display()))?;
        let attendant = Command::new("/bin/sh")
            .args(["-c", ATTENDANT, "attendant"])
            .arg(dir.path())
            // Ctrl-C at the terminal must not end it before us.
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run /bin/sh")?;
        Ok(Self { dir, attendant })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What was said, or the end of its input, sets the attendant to work; usually there is nothing to do but to remove files.
        if let Some(mut stdin) = self.attendant.stdin.take() {
            let _ = stdin.write_all(b"now\n");
        }
        let _ = self.attendant.wait();
    }
}

/// The temporary directory that the environment names, unless Postgres's user cannot enter it.
fn reachable_top() -> Result<PathBuf> {
    let named = std::env::temp_dir();
    let named = fs::canonicalize(&named).with_context(|| format!("cannot resolve {}", named.display()))?;
    match user::for_postgres()? {
        Some(user) if !user.reaches(&named)? => Ok(PathBuf::from("/tmp")),
        _ => Ok(named),
    }
}
