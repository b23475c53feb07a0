//! A server that was started: its main process, and all that belongs to it.

use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal as Raw;

use crate::{Signal, keeper, processes};

const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The main process of a server. Dropping it kills the whole server, unless it has ended.
pub(crate) struct Running {
    name: &'static str,
    pid: u32,
    child: Mutex<Child>,
}

impl Running {
    pub(crate) fn launch(name: &'static str, command: Command) -> Result<Self> {
        let child = keeper::spawn(command)?;
        Ok(Self { name, pid: child.id(), child: Mutex::new(child) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it ended, or `None` while it runs.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        match signal {
            Signal::Stop => self.whole(processes::freeze),
            Signal::Continue => self.whole(processes::thaw),
            Signal::Kill => {
                self.whole(processes::end_tree)?;
                self.child().wait()?;
                Ok(())
            }
            Signal::Interrupt => self.main(Raw::INT),
            Signal::Terminate => self.main(Raw::TERM),
        }
    }

    /// Sends a signal to the main process alone.
    pub(crate) fn main(&self, signal: Raw) -> Result<()> {
        self.whole(|pid| processes::send(pid, signal))
    }

    /// Runs `act` on the process id while it is certainly ours: the lock keeps others from collecting the child, and only a collected
    /// child's id can be given to somebody else.
    fn whole(&self, act: impl FnOnce(u32) -> Result<()>) -> Result<()> {
        let mut child = self.child();
        if let Some(status) = child.try_wait()? {
            bail!("{} does not run, it ended with {status}", self.name);
        }
        act(self.pid)
    }

    /// Waits for the end; `false` when `limit` has passed.
    pub(crate) async fn wait(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.ended().is_none() {
            if start.elapsed() > limit {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        true
    }

    fn wait_blocking(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.ended().is_none() {
            if start.elapsed() > limit {
                return false;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        true
    }

    /// Ends it from a place that cannot await: politely, then by force.
    pub(crate) fn end(&self, polite: Raw, limit: Duration) {
        // A frozen server does not hear; thawing one that runs does nothing.
        let told = self.signal(Signal::Continue).and_then(|()| self.main(polite));
        if told.is_err() || !self.wait_blocking(limit) {
            let _ = self.signal(Signal::Kill);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = self.signal(Signal::Kill);
        }
    }
}
