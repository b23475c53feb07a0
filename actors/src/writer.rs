//! Joins the batches of many pools into one statement.
//!
//! While a statement is under way, jobs gather; then they go together. Alone, a job waits for nobody. A statement costs a good
//! part of a millisecond however few jobs share it, so a second one begins beside the first only once it is worth it, or
//! the first takes its time; and while answers queue for a signature, jobs gather although nothing is under way.
//! Delivery: a job that was sent is sent again, the same, until its outcome is known; it is never undone on a timeout.
//! Only a job that was never sent fails at once, or is dropped once nobody waits for it.

mod dispatch;
mod lane;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use events::{
    Appended, EventLog, HeartbeatWrite, LicenseId, LogError, NameClaim, SessionId, StreamWrite, Time, UserId,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use uuid::Uuid;

use crate::clock::PostgresClock;
use crate::fail_point;
use dispatch::Dispatch;

/// Statements under way at a time, each on a connection of its own.
const LANES: usize = 2;

/// Events that make a statement beside another worth it (docs/adr/0016).
const COMPANY: usize = 24;

/// Jobs that may wait: a pool has one under way, and each heartbeat is one. Whoever comes later waits for a place.
const QUEUE: usize = 32_768;

/// Answers that wait for a signature before jobs are worth gathering: some 12 ms of work for two cores (RSA-4096, 1.5 ms
/// each), in which a statement is written and its callers come back.
const BACKLOG: usize = 16;

/// Longest silence that is not an outage yet.
const MAX_GAP: Duration = Duration::from_secs(15);

/// What one batch of a pool, one heartbeat, or one administrative act writes.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// All or nothing; goes in a statement of its own.
    pub whole: bool,
    /// Streams written to.
    pub streams: Vec<StreamWrite>,
    /// Names to hold or let go.
    pub names: Vec<NameClaim>,
    /// Heartbeats, each session at most once.
    pub heartbeats: Vec<HeartbeatWrite>,
}

impl Job {
    /// A sign of life of one session.
    pub(crate) fn heartbeat(
        license_id: LicenseId,
        session_id: SessionId,
        user_id: UserId,
        request_id: Option<String>,
    ) -> Self {
        let (event_id, stream_id) = (Uuid::now_v7(), license_id.0);
        let beat = HeartbeatWrite { event_id, stream_id, session_id, user_id, request_id, key: None };
        Self { heartbeats: vec![beat], ..Self::default() }
    }

    fn len(&self) -> usize {
        self.heartbeats.len() + self.streams.iter().map(|stream| stream.events.len()).sum::<usize>()
    }
}

struct Queued {
    job: Job,
    reply: oneshot::Sender<Result<Appended, LogError>>,
    /// The append's own span: the statement, which serves several, is shown under the first's.
    span: tracing::Span,
}

impl Queued {
    /// Whether somebody waits for it; what was never sent need not be otherwise.
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }
}

/// What a lane is given: the beacon goes the way of the appends, or it would not be their sign of life.
enum Work {
    Write(Vec<Queued>),
    Tick(oneshot::Sender<()>),
}

/// How many answers wait for a signature.
#[derive(Debug, Clone, Default)]
struct Backlog(Arc<AtomicUsize>);

impl Backlog {
    fn begin(&self) -> Signing {
        self.0.fetch_add(1, Ordering::Relaxed);
        Signing(self.clone())
    }

    fn is_long(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= BACKLOG
    }
}

/// An answer that waits for a signature, until this is dropped.
#[derive(Debug)]
pub struct Signing(Backlog);

impl Drop for Signing {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The only way from this process into the log. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Queued>,
    clock: PostgresClock,
    up: watch::Receiver<bool>,
    backlog: Backlog,
    tasks: Arc<Vec<AbortHandle>>,
}

/// What the lanes share.
#[derive(Clone)]
struct Shared {
    log: EventLog,
    clock: PostgresClock,
    ttl: Duration,
    up: watch::Sender<bool>,
}

impl Writer {
    /// Starts the lanes and the beacon.
    ///
    /// # Errors
    /// When the database does not answer now: there is no clock to begin with.
    pub async fn start(log: EventLog, ttl: Duration) -> Result<Self, LogError> {
        let sent = Instant::now();
        let at = EventLog::tick_beacon_on(&log.database().get().await?, gap(ttl)).await?;
        let clock = PostgresClock::new(sent, at);
        let (up, is_up) = watch::channel(true);
        metrics::gauge!("license_postgres_up").set(1.0);
        let shared = Shared { log, clock: clock.clone(), ttl, up };
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (free, lanes) = mpsc::channel(LANES);
        let mut tasks: Vec<_> =
            (0..LANES).map(|_| tokio::spawn(lane::run(shared.clone(), free.clone()))).collect();
        let (tick, ticks) = mpsc::channel(1);
        let backlog = Backlog::default();
        let (held_over, free) = (None, Vec::with_capacity(LANES));
        let dispatch = Dispatch { waiting, held_over, ticks, lanes, free, backlog: backlog.clone() };
        tasks.push(tokio::spawn(dispatch.run()));
        tasks.push(tokio::spawn(beacon(gap(ttl), tick)));
        let tasks = Arc::new(tasks.iter().map(JoinHandle::abort_handle).collect());
        Ok(Self { queue, clock, up: is_up, backlog, tasks })
    }

    /// Writes a job; the answer names only the job's own refusals.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: nothing was written. [`LogError::Rejected`]: it never will be.
    #[tracing::instrument(name = "append", skip_all)]
    pub async fn append(&self, job: Job) -> Result<Appended, LogError> {
        if fail_point::is_on("skip_append") {
            return Ok(Appended { at: self.now(), refused: Vec::new() });
        }
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(Queued { job, reply, span: tracing::Span::current() })
            .await
            .map_err(|_| LogError::Unavailable("the writer has stopped".to_owned()))?;
        answer.await.map_err(|_| LogError::Unknown("the writer stopped".to_owned()))?
    }

    /// Notes that an answer waits for a signature, until what is returned is dropped.
    #[must_use]
    pub fn signing(&self) -> Signing {
        self.backlog.begin()
    }

    /// Ends the lanes and the beacon: this process is about to end, and nobody waits for an answer any more.
    pub fn stop(&self) {
        for task in self.tasks.iter() {
            task.abort();
        }
    }

    /// What Postgres's clock shows.
    #[must_use]
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Corrects the clock by a time read from Postgres.
    pub(crate) fn observe(&self, sent: Instant, at: Time) {
        self.clock.observe(sent, at);
    }

    /// Whether Postgres answered last time.
    #[must_use]
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Whether jobs can be written at all; `false` if its tasks have failed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.queue.is_closed()
    }
}

/// A silence that counts as an outage: a third of the TTL at most (protocol, rule 7), and shorter than the time that a
/// client has between a heartbeat that failed and its deadline.
fn gap(ttl: Duration) -> Duration {
    (ttl / 3).min(MAX_GAP)
}

/// Ticks the beacon three times a gap; the first tick after an outage says that it is over.
async fn beacon(gap: Duration, ticks: mpsc::Sender<oneshot::Sender<()>>) {
    let mut every = tokio::time::interval(gap / 3);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let (done, ticked) = oneshot::channel();
        if ticks.send(done).await.is_err() {
            return;
        }
        let _ = ticked.await;
    }
}
