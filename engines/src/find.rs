//! Where the programs are. Debian keeps `initdb` off the `PATH`.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// `CREATE DATABASE … STRATEGY` came with this version.
const OLDEST_POSTGRES: u32 = 15;
const POSTGRES_MISSING: &str =
    "initdb not found: install postgresql (apt-get install postgresql) or set PG_BIN";
const REDIS_MISSING: &str =
    "redis-server not found: install redis (apt-get install redis-server) or set REDIS_SERVER";

/// A program that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Postgres: the directory of its programs. Redis: the program.
    pub path: PathBuf,
    /// As the program says it, such as `15.18`.
    pub version: String,
}

impl Found {
    /// The number before the first dot.
    pub fn major(&self) -> u32 {
        let digits: String = self.version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    }
}

/// The newest Postgres of this machine; with `major`, the newest of that version (data cannot be opened by another).
pub fn find_postgres(major: Option<u32>) -> Result<Found> {
    let mut seen = Vec::new();
    for dir in postgres_dirs()? {
        let found = Found { version: version(&dir.join("postgres"))?, path: dir };
        let wanted = major.map_or(found.major() >= OLDEST_POSTGRES, |major| found.major() == major);
        if wanted {
            return Ok(found);
        }
        seen.push(found.version);
    }
    match (seen.is_empty(), major) {
        (true, _) => bail!(POSTGRES_MISSING),
        (false, Some(major)) => bail!(
            "the data are of Postgres {major}, but only {} was found: install postgresql-{major} or remove the data",
            seen.join(", ")
        ),
        (false, None) => {
            bail!("Postgres {OLDEST_POSTGRES} or later is needed, but only {} was found", seen.join(", "))
        }
    }
}

/// Directories that hold both `initdb` and `postgres`, best first.
fn postgres_dirs() -> Result<Vec<PathBuf>> {
    let complete = |dir: &PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    if let Some(dir) = named_by("PG_BIN") {
        if !complete(&dir) {
            bail!("PG_BIN is {}, which does not hold initdb and postgres", dir.display());
        }
        return Ok(vec![dir]);
    }
    let mut dirs = versioned_dirs();
    dirs.extend(pg_config_dir());
    dirs.extend(on_path("initdb").and_then(|initdb| Some(initdb.parent()?.to_owned())));
    dirs.retain(complete);
    Ok(dirs)
}

/// Debian's directories, the newest version first.
fn versioned_dirs() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, dir)| dir).collect()
}

fn pg_config_dir() -> Option<PathBuf> {
    let answer = Command::new(on_path("pg_config")?).arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim_end()))
}

/// Redis, or Valkey, which speaks the same.
pub fn find_redis() -> Result<Found> {
    if let Some(path) = named_by("REDIS_SERVER") {
        return Ok(Found { version: version(&path)?, path });
    }
    match on_path("redis-server").or_else(|| on_path("valkey-server")) {
        Some(path) => Ok(Found { version: version(&path)?, path }),
        None => bail!(REDIS_MISSING),
    }
}

/// A path in the environment; an empty one counts as none.
fn named_by(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A program on the `PATH`, or where a service's `PATH` does not look.
pub(crate) fn on_path(program: impl AsRef<Path>) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(&program))
        .find(|candidate| candidate.is_file())
}

/// `postgres (PostgreSQL) 15.18 (Debian …)`, `Redis server v=7.0.15 sha=…`.
fn version(program: &Path) -> Result<String> {
    let answer = Command::new(program)
        .arg(OsStr::new("--version"))
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&answer.stdout);
    let word = text
        .split_whitespace()
        .map(|word| word.trim_start_matches("v="))
        .find(|word| word.starts_with(|it: char| it.is_ascii_digit()));
    Ok(word.with_context(|| format!("{} does not say its version", program.display()))?.to_owned())
}
