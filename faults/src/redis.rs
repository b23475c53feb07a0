//! Commands to a Redis from outside, by its own command line client.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// Where a Redis is asked.
#[derive(Debug, Clone)]
pub struct RedisClient {
    target: Vec<String>,
}

impl RedisClient {
    /// Over its unix socket.
    pub fn unix(socket: impl Into<PathBuf>) -> Self {
        Self { target: vec!["-s".into(), socket.into().display().to_string()] }
    }

    /// On a port of the loopback.
    pub fn port(port: u16) -> Self {
        Self { target: vec!["-h".into(), "127.0.0.1".into(), "-p".into(), port.to_string()] }
    }

    /// Runs one command; answers what it printed.
    ///
    /// # Errors
    /// When Redis does not answer, or answers with an error.
    pub async fn run(&self, words: &[&str]) -> Result<String> {
        let program =
            if cfg!(unix) && has("valkey-cli") && !has("redis-cli") { "valkey-cli" } else { "redis-cli" };
        let output = Command::new(program)
            .args(["-e", "--no-auth-warning"])
            .args(&self.target)
            .args(words)
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("cannot run {program} (it comes with the server)"))?;
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "redis {words:?}: {text} {error}");
        Ok(text)
    }

    /// The keys of all pools.
    ///
    /// # Errors
    /// As [`RedisClient::run`].
    pub async fn keys(&self) -> Result<Vec<String>> {
        Ok(self.run(&["KEYS", "coditect:*"]).await?.lines().map(str::to_owned).collect())
    }
}

fn has(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
