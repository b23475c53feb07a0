//! What the suite came to, one line a fault: kept in files, since each test file is a process of its own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What became of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All invariants held, and the fault happened.
    Held(String),
    /// This machine cannot do it.
    Skipped(String),
    /// It did not hold, or was not finished.
    Failed,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Line {
    pub(crate) test: String,
    pub(crate) fault: String,
    pub(crate) outcome: Outcome,
}

fn folder() -> Result<PathBuf> {
    // A program lies in `<target>/<profile>`, a test in `<target>/<profile>/deps`.
    let own = std::env::current_exe()?;
    let place = own.parent().context("no folder of this program")?;
    let profile = if place.ends_with("deps") { place.parent().unwrap_or(place) } else { place };
    let folder = profile.parent().context("not below a target folder")?.join("faults");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

impl Line {
    /// This machine cannot do it: says so on the way, and in the table.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn skip(test: &str, fault: &str, why: &str) -> Result<()> {
        eprintln!("{test}: skipped: {why}");
        Self { test: test.to_owned(), fault: fault.to_owned(), outcome: Outcome::Skipped(why.to_owned()) }
            .keep()
    }

    /// A test without a trial begins: until it says otherwise, it has failed.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn begin(test: &str, fault: &str) -> Result<()> {
        Self { test: test.to_owned(), fault: fault.to_owned(), outcome: Outcome::Failed }.keep()
    }

    /// A test without a trial holds.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn held(test: &str, fault: &str, measured: &str) -> Result<()> {
        eprintln!("{test}: {measured}");
        let outcome = Outcome::Held(measured.to_owned());
        Self { test: test.to_owned(), fault: fault.to_owned(), outcome }.keep()
    }

    pub(crate) fn keep(&self) -> Result<()> {
        let (word, text) = match &self.outcome {
            Outcome::Held(text) => ("held", text.as_str()),
            Outcome::Skipped(why) => ("skipped", why.as_str()),
            Outcome::Failed => ("FAILED", ""),
        };
        let line = json!({ "test": self.test, "fault": self.fault, "result": word, "text": text });
        fs::write(folder()?.join(format!("{}.json", self.test)), line.to_string())?;
        Ok(())
    }
}

/// Forgets earlier results.
///
/// # Errors
/// When they cannot be removed.
pub fn forget() -> Result<()> {
    Ok(fs::remove_dir_all(folder()?)?)
}

/// Prints the table; answers whether nothing failed.
///
/// # Errors
/// When there is none.
pub fn print() -> Result<bool> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder()?)? {
        let line: Value = serde_json::from_slice(&fs::read(entry?.path())?)?;
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        lines.push([text("test"), text("fault"), text("result"), text("text")]);
    }
    anyhow::ensure!(!lines.is_empty(), "nothing was run");
    lines.sort();
    println!("| test | fault | result | measured |\n|---|---|---|---|");
    for [test, fault, result, text] in &lines {
        println!("| `{test}` | {fault} | {result} | {text} |");
    }
    let of = |word: &str| lines.iter().filter(|line| line[2] == word).count();
    let failed = of("FAILED");
    println!("\n{} faults: {} held, {} skipped, {failed} failed", lines.len(), of("held"), of("skipped"));
    Ok(failed == 0)
}
