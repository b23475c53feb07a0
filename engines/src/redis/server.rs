//! The directory of a Redis and the process that serves it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::RedisOptions;
use crate::layout::{self, Layout};
use crate::running::Running;
use crate::{find, launch};

/// Reading an append-only file takes time.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a server whose owner was killed may take to end.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub(crate) struct Server {
    options: RedisOptions,
    layout: Layout,
    socket: PathBuf,
    program: PathBuf,
}

impl Server {
    pub(crate) fn prepare(options: RedisOptions) -> Result<Self> {
        let program = find::find_redis()?.path;
        let layout = Layout::claim(&options.dir, None)?;
        let socket = layout.socket_dir.join("redis.sock");
        let server = Self { options, layout, socket, program };
        layout::private(&server.data(), None)?;
        Ok(server)
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.options.port
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.layout.root.join("redis.log")
    }

    /// Two directories: a run without persistence must not read what one with persistence left.
    fn data(&self) -> PathBuf {
        self.layout.root.join(if self.options.persistence { "data" } else { "empty" })
    }

    /// Starts the server and waits until it answers.
    pub(crate) async fn launch(&self) -> Result<Arc<Running>> {
        self.wait_for_predecessor().await?;
        let running = Running::launch("Redis", self.command()?)?;
        let start = Instant::now();
        while start.elapsed() < START_LIMIT {
            if let Some(status) = running.ended() {
                bail!("Redis ended at its start, {status}:\n{}", launch::last_lines(&self.log()));
            }
            if self.ping().await.is_some_and(|answer| answer.starts_with(b"+PONG")) {
                return Ok(Arc::new(running));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        bail!(
            "Redis does not answer within {} s:\n{}",
            START_LIMIT.as_secs(),
            launch::last_lines(&self.log())
        )
    }

    fn command(&self) -> Result<Command> {
        let mut command = launch::command(&self.program, None, "TERM")?;
        command.current_dir(&self.layout.root);
        launch::log_to(&mut command, &self.log())?;
        command.args(["--port", &self.options.port.unwrap_or(0).to_string(), "--bind", "127.0.0.1"]);
        command.args(["--unixsocketperm", "700", "--unixsocket"]).arg(&self.socket);
        command.args(["--daemonize", "no", "--maxmemory-policy", "noeviction", "--save", ""]);
        command.args(["--appendonly", if self.options.persistence { "yes" } else { "no" }]);
        command.arg("--pidfile").arg(self.layout.root.join("redis.pid"));
        command.arg("--dir").arg(self.data());
        command.envs(self.options.variables.iter().map(|(name, value)| (name, value)));
        for (name, value) in &self.options.settings {
            command.arg(format!("--{name}")).arg(value);
        }
        Ok(command)
    }

    /// The claim on the directory is ours, so a server that still answers is ending: its owner was killed.
    async fn wait_for_predecessor(&self) -> Result<()> {
        let start = Instant::now();
        while self.ping().await.is_some() {
            if start.elapsed() > PREDECESSOR_LIMIT {
                bail!("another Redis answers at {}: end it", self.socket.display());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    async fn ping(&self) -> Option<Vec<u8>> {
        timeout(ANSWER_LIMIT, async {
            let mut stream = UnixStream::connect(&self.socket).await.ok()?;
            stream.write_all(b"PING\r\n").await.ok()?;
            let mut answer = vec![0; 64];
            let length = stream.read(&mut answer).await.ok()?;
            answer.truncate(length);
            (length > 0).then_some(answer)
        })
        .await
        .ok()?
    }
}
