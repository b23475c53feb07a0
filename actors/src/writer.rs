//! Joins the batches of many pools into one statement.
//!
//! While a statement is under way, jobs gather; when a lane is free, they go together. Alone, a job waits for nobody. While
//! answers queue for a signature, a lane that is free waits a moment for more: a statement costs a good part of a
//! millisecond however few jobs share it, and the cores have better to do.
//! Delivery: a job that was sent is sent again, the same, until its outcome is known; it is never undone on a timeout.
//! Only a job that was never sent fails at once.

mod lane;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use events::{Appended, EventLog, HeartbeatWrite, LogError, NameClaim, StreamWrite, Time};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use uuid::Uuid;

use crate::clock::PostgresClock;
use crate::fail_point;

/// Statements under way at a time, each on a connection of its own.
const LANES: usize = 2;

/// Jobs that may wait: at most one of each live pool, and a few administrative ones.
const QUEUE: usize = 32_768;

/// Bound of a statement, in events; a job that is larger by itself goes alone.
const MAX_EVENTS: usize = 2_000;

/// Answers that wait for a signature before jobs are worth gathering: some 6 ms of work for two cores (RSA-4096, 1.5 ms each).
const BACKLOG: usize = 8;

/// Longest time that jobs gather then, heartbeats and releases too. Short beside the wait for a signature when a crowd comes.
const GATHER: Duration = Duration::from_millis(10);

/// Longest silence that is not an outage yet.
const MAX_GAP: Duration = Duration::from_secs(15);

/// What one pool, or one administrative act, writes.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// All or nothing; goes in a statement of its own.
    pub whole: bool,
    /// Streams written to.
    pub streams: Vec<StreamWrite>,
    /// Names to hold or let go.
    pub names: Vec<NameClaim>,
    /// Heartbeats, all of one pool.
    pub heartbeats: Vec<HeartbeatWrite>,
}

impl Job {
    /// The streams that a job touches: two jobs of one pool never go in one statement. They would be judged by the
    /// same version, or move the same seat.
    fn touches(&self) -> impl Iterator<Item = Uuid> {
        let streams = self.streams.iter().map(|stream| stream.stream_id);
        streams.chain(self.heartbeats.first().map(|beat| beat.stream_id))
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
        tasks.push(tokio::spawn(dispatch(waiting, ticks, lanes, backlog.clone())));
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

/// Fills groups as lanes become free.
async fn dispatch(
    mut waiting: mpsc::Receiver<Queued>,
    mut ticks: mpsc::Receiver<oneshot::Sender<()>>,
    mut lanes: mpsc::Receiver<mpsc::Sender<Work>>,
    backlog: Backlog,
) {
    let mut held_over = None;
    while let Some(lane) = lanes.recv().await {
        // Also while there is always more to write than one statement holds, the beacon has its turn.
        if let Ok(done) = ticks.try_recv() {
            if lane.send(Work::Tick(done)).await.is_err() {
                return;
            }
            continue;
        }
        let work = match held_over.take() {
            Some(first) => {
                let group;
                (group, held_over) = fill(first, &mut waiting, &backlog).await;
                Work::Write(group)
            }
            None => tokio::select! {
                biased;
                Some(done) = ticks.recv() => Work::Tick(done),
                first = waiting.recv() => {
                    let Some(first) = first else { return };
                    let group;
                    (group, held_over) = fill(first, &mut waiting, &backlog).await;
                    Work::Write(group)
                }
            },
        };
        if lane.send(work).await.is_err() {
            return;
        }
    }
}

/// What goes in one statement.
struct Group {
    jobs: Vec<Queued>,
    touched: HashSet<Uuid>,
    events: usize,
}

impl Group {
    fn of(first: Queued) -> Self {
        Self { touched: first.job.touches().collect(), events: first.job.len(), jobs: vec![first] }
    }

    /// Takes a job along, or gives it back if it may not go with the others.
    fn take(&mut self, next: Queued) -> Option<Queued> {
        let again = next.job.touches().any(|stream| self.touched.contains(&stream));
        if next.job.whole || again || self.events + next.job.len() > MAX_EVENTS {
            return Some(next);
        }
        self.events += next.job.len();
        self.touched.extend(next.job.touches());
        self.jobs.push(next);
        None
    }
}

/// Everything that waits, or comes while it is worth waiting for, and fits; and the first job that does not.
async fn fill(
    first: Queued,
    waiting: &mut mpsc::Receiver<Queued>,
    backlog: &Backlog,
) -> (Vec<Queued>, Option<Queued>) {
    if first.job.whole {
        return (vec![first], None);
    }
    let mut group = Group::of(first);
    let until = tokio::time::Instant::now() + GATHER;
    loop {
        let next = match waiting.try_recv() {
            Ok(next) => next,
            Err(_) if backlog.is_long() => match tokio::time::timeout_at(until, waiting.recv()).await {
                Ok(Some(next)) => next,
                Ok(None) | Err(_) => return (group.jobs, None),
            },
            Err(_) => return (group.jobs, None),
        };
        if let Some(held_over) = group.take(next) {
            return (group.jobs, Some(held_over));
        }
    }
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

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::{BACKLOG, Backlog, Job, Queued, fill};

    fn queued() -> Queued {
        Queued { job: Job::default(), reply: oneshot::channel().0, span: tracing::Span::none() }
    }

    /// How many go in a statement if a second job comes a moment after the first.
    async fn together(backlog: &Backlog) -> usize {
        let (queue, mut waiting) = mpsc::channel(4);
        let ((group, held_over), _) =
            tokio::join!(fill(queued(), &mut waiting, backlog), queue.send(queued()));
        assert!(held_over.is_none());
        group.len()
    }

    #[tokio::test]
    async fn jobs_gather_only_while_answers_wait_for_signatures() {
        let backlog = Backlog::default();
        let mut signing: Vec<_> = (1..BACKLOG).map(|_| backlog.begin()).collect();
        assert_eq!(together(&backlog).await, 1);
        signing.push(backlog.begin());
        assert_eq!(together(&backlog).await, 2);
        signing.pop();
        assert_eq!(together(&backlog).await, 1);
    }
}
