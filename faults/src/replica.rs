//! One replica: `coditect-license serve` as a process of its own, which can be killed, frozen, ended in order, and
//! started again at the same address.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

const START_LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The binary under test: the one that `FAULTS_SERVER` names, else the one beside the tests. It must be built with the
/// feature `fail-points`, or the tests that use them fail.
///
/// # Errors
/// When there is none.
pub fn server_binary() -> Result<PathBuf> {
    let path = match std::env::var_os("FAULTS_SERVER") {
        Some(named) => PathBuf::from(named),
        None => {
            let own = std::env::current_exe()?;
            let target = own.ancestors().nth(2).context("not below a target folder")?;
            target.join("coditect-license")
        }
    };
    path.canonicalize().with_context(|| {
        format!("no server at {}: cargo build -p api --features fail-points", path.display())
    })
}

/// The ports of replicas: below those that the system gives to others, so that a replica that is started again finds its
/// own as it left it.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on, and that this process has not given away yet.
///
/// # Errors
/// When there is none.
pub fn port() -> Result<u16> {
    let first = u16::try_from(std::process::id() % 500)? * 40;
    for _ in 0..PORTS.len() {
        let n = (first + NEXT_PORT.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let port = PORTS.start + n;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}

/// One replica. Dropping it kills the process.
pub struct Replica {
    binary: PathBuf,
    environment: Vec<(String, String)>,
    /// Its name in messages, and of its log.
    pub name: String,
    /// Base URL of the API.
    pub url: String,
    /// Base URL of the metrics listener.
    pub metrics: String,
    log: PathBuf,
    child: Option<Child>,
    /// How often it was started.
    pub starts: u32,
}

impl Replica {
    /// A replica that does not run yet.
    ///
    /// # Errors
    /// When no port is free.
    pub fn new(
        name: &str,
        binary: &Path,
        dir: &Path,
        mut environment: Vec<(String, String)>,
    ) -> Result<Self> {
        let listen = format!("127.0.0.1:{}", port()?);
        let metrics = format!("127.0.0.1:{}", port()?);
        environment.push(("LISTEN_ADDR".into(), listen.clone()));
        environment.push(("METRICS_ADDR".into(), metrics.clone()));
        Ok(Self {
            binary: binary.to_owned(),
            environment,
            name: name.to_owned(),
            url: format!("http://{listen}"),
            metrics: format!("http://{metrics}"),
            log: dir.join(format!("{name}.log")),
            child: None,
            starts: 0,
        })
    }

    /// Runs another binary from its next start on.
    pub fn set_binary(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    /// Changes a setting, from its next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the process, with these variables besides.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn launch(&mut self, besides: &[(String, String)]) -> Result<()> {
        ensure!(self.pid().is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new("setpriv");
        // If the test is killed outright, the kernel ends its replicas.
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.binary).arg("serve");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.envs(besides.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.process_group(0).kill_on_drop(true);
        self.child = Some(command.spawn().with_context(|| format!("start {}", self.binary.display()))?);
        self.starts += 1;
        Ok(())
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it ends instead, or is not ready in time.
    pub async fn start(&mut self, besides: &[(String, String)]) -> Result<()> {
        self.launch(besides)?;
        self.wait_ready().await
    }

    /// Waits until `/ready` answers 200.
    ///
    /// # Errors
    /// When it ends instead, or is not ready in time.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build()?;
        loop {
            if let Some(status) = self.ended()? {
                bail!("{} ended ({status}):\n{}", self.name, self.last_lines());
            }
            let answer = client.get(format!("{}/ready", self.url)).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return Ok(());
            }
            ensure!(begun.elapsed() < START_LIMIT, "{} is not ready:\n{}", self.name, self.last_lines());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{} does not run", self.name))?;
        Ok(kill_process(pid, signal)?)
    }

    /// `kill -9`; answers how it ended.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.wait_end(Duration::from_secs(5)).await
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM; answers how it ended.
    ///
    /// # Errors
    /// When it does not run, or not end within the time.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_end(limit).await
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not.
    pub async fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let child = self.child.as_mut().with_context(|| format!("{} was not started", self.name))?;
        let status = tokio::time::timeout(limit, child.wait())
            .await
            .with_context(|| format!("{} did not end within {limit:?}", self.name))??;
        self.child = None;
        Ok(status)
    }

    /// Memory that it holds, in KiB.
    ///
    /// # Errors
    /// When it does not run.
    pub fn memory_kib(&self) -> Result<u64> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("no VmRSS")?.parse()?)
    }

    /// A metric of this process, summed over its labels; 0 if it was never counted.
    ///
    /// # Errors
    /// When the listener does not answer.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
        let text = client.get(format!("{}/metrics", self.metrics)).send().await?.text().await?;
        let mut sum = 0.0;
        for line in text.lines().filter(|line| line.starts_with(name)) {
            let rest = &line[name.len()..];
            if rest.starts_with(['{', ' ']) {
                sum += line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
            }
        }
        Ok(sum)
    }

    /// All that it has logged.
    ///
    /// # Errors
    /// When there is no log.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// How often its log says this.
    pub fn logged(&self, text: &str) -> usize {
        self.log().unwrap_or_default().matches(text).count()
    }

    fn last_lines(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}
