//! A clock that steps: a small library that is loaded into one process shows it another wall clock. Its monotonic clock
//! stays as it is, as on a machine whose clock is set.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

const SOURCE: &str = include_str!("clock.c");

/// The wall clock of one process.
#[derive(Debug, Clone)]
pub struct FakeClock {
    file: PathBuf,
    library: PathBuf,
}

impl FakeClock {
    /// A clock that shows the right time; its files are made in `dir`. `None` without a C compiler.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn new(dir: &Path) -> Result<Option<Self>> {
        let clock = Self { file: dir.join("clock.ahead"), library: dir.join("clock.so") };
        fs::write(&clock.file, 0_i64.to_ne_bytes()).context("the fake clock's file")?;
        let source = dir.join("clock.c");
        fs::write(&source, SOURCE)?;
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&clock.library, &source])
            .status()
            .is_ok_and(|status| status.success());
        Ok(compiled.then_some(clock))
    }

    /// Stands so many seconds ahead from now on (or behind).
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn step(&self, seconds: i64) -> Result<()> {
        let file = OpenOptions::new().write(true).open(&self.file)?;
        // In place: the process has it mapped.
        file.write_all_at(&seconds.to_ne_bytes(), 0).context("the fake clock's file")
    }

    /// What the process is started with.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("LD_PRELOAD".to_owned(), self.library.display().to_string()),
            ("FAULTS_CLOCK".to_owned(), self.file.display().to_string()),
        ]
    }
}
