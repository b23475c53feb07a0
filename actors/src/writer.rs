//! Joins the batches of many pools into one statement.
//!
//! While a statement is under way, jobs gather; then they go together. Alone, a job waits for nobody. A statement costs a good
//! part of a millisecond however few jobs share it, so a second one begins beside the first only once it is worth it, or
//! the first takes its time; and while answers queue for a signature, jobs gather although nothing is under way.
//! Delivery: a job that was sent is sent again, the same, until its outcome is known; it is never undone on a timeout.
//! Only a job that was never sent fails at once.

mod lane;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use events::{Appended, Event, EventLog, HeartbeatWrite, LogError, NameClaim, StreamWrite, Time};
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

/// Answers that wait for a signature before jobs are worth gathering: some 12 ms of work for two cores (RSA-4096, 1.5 ms
/// each), in which a statement is written and its callers come back.
const BACKLOG: usize = 16;

/// Jobs that make a statement beside another worth it.
const COMPANY: usize = 24;

/// Longest time that fewer wait for the other statement to end: it may stand before a lock that concerns them little.
const BESIDE: Duration = Duration::from_millis(5);

/// Longest time that grants gather while answers wait for signatures: they wait for their signatures anyway.
const GATHER_GRANTS: Duration = Duration::from_millis(40);

/// Longest time that other jobs gather then. Short beside the wait for a signature when a crowd comes.
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

    /// How long it may wait for company while answers wait for signatures.
    fn patience(&self) -> Duration {
        let mut events = self.streams.iter().flat_map(|stream| &stream.events);
        let grants =
            self.heartbeats.is_empty() && events.all(|new| matches!(new.event, Event::SeatAcquired { .. }));
        if grants { GATHER_GRANTS } else { GATHER }
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

/// Fills groups as lanes become free.
struct Dispatch {
    waiting: mpsc::Receiver<Queued>,
    /// The first job that did not go with the group before it.
    held_over: Option<Queued>,
    ticks: mpsc::Receiver<oneshot::Sender<()>>,
    lanes: mpsc::Receiver<mpsc::Sender<Work>>,
    free: Vec<mpsc::Sender<Work>>,
    backlog: Backlog,
}

impl Dispatch {
    /// Runs until the writer stops.
    async fn run(mut self) {
        while let Some(work) = self.next().await {
            let Some(lane) = self.free.pop() else { return };
            if lane.send(work).await.is_err() {
                return;
            }
        }
    }

    /// What the next free lane does.
    async fn next(&mut self) -> Option<Work> {
        if self.free.is_empty() {
            self.free.push(self.lanes.recv().await?);
        }
        // Also while there is always more to write than one statement holds, the beacon has its turn.
        if let Ok(done) = self.ticks.try_recv() {
            return Some(Work::Tick(done));
        }
        let first = match self.held_over.take() {
            Some(first) => first,
            None => tokio::select! {
                biased;
                Some(done) = self.ticks.recv() => return Some(Work::Tick(done)),
                first = self.waiting.recv() => first?,
            },
        };
        Some(Work::Write(self.fill(first).await))
    }

    /// Everything that waits, or comes while it is worth waiting for, and fits.
    async fn fill(&mut self, first: Queued) -> Vec<Queued> {
        if first.job.whole {
            return vec![first];
        }
        let mut group = Group::of(first);
        loop {
            let next = match self.waiting.try_recv() {
                Ok(next) => next,
                Err(_) => match self.wait_for_company(&group).await {
                    Some(next) => next,
                    None => return group.jobs,
                },
            };
            self.held_over = group.take(next);
            if self.held_over.is_some() {
                return group.jobs;
            }
        }
    }

    /// The next job, unless the group had better go.
    async fn wait_for_company(&mut self, group: &Group) -> Option<Queued> {
        loop {
            while let Ok(lane) = self.lanes.try_recv() {
                self.free.push(lane);
            }
            let until = if self.backlog.is_long() {
                group.until
            } else if self.free.len() < LANES && group.jobs.len() < COMPANY {
                group.begun + BESIDE
            } else {
                return None;
            };
            tokio::select! {
                biased;
                next = self.waiting.recv() => return next,
                lane = self.lanes.recv() => self.free.push(lane?),
                () = tokio::time::sleep_until(until) => return None,
            }
        }
    }
}

/// What goes in one statement.
struct Group {
    jobs: Vec<Queued>,
    touched: HashSet<Uuid>,
    events: usize,
    begun: tokio::time::Instant,
    /// When the least patient of them goes.
    until: tokio::time::Instant,
}

impl Group {
    fn of(first: Queued) -> Self {
        let begun = tokio::time::Instant::now();
        Self {
            touched: first.job.touches().collect(),
            events: first.job.len(),
            begun,
            until: begun + first.job.patience(),
            jobs: vec![first],
        }
    }

    /// Takes a job along, or gives it back if it may not go with the others.
    fn take(&mut self, next: Queued) -> Option<Queued> {
        let again = next.job.touches().any(|stream| self.touched.contains(&stream));
        if next.job.whole || again || self.events + next.job.len() > MAX_EVENTS {
            return Some(next);
        }
        self.events += next.job.len();
        self.touched.extend(next.job.touches());
        self.until = self.until.min(tokio::time::Instant::now() + next.job.patience());
        self.jobs.push(next);
        None
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

    use super::{BACKLOG, Backlog, Dispatch, Job, LANES, Queued};

    fn queued() -> Queued {
        Queued { job: Job::default(), reply: oneshot::channel().0, span: tracing::Span::none() }
    }

    /// How many go in a statement if a second job comes a moment after the first, with so many lanes free.
    async fn together(backlog: &Backlog, free: usize) -> usize {
        let (queue, waiting) = mpsc::channel(4);
        let ((_ticks, ticks), (_lanes, lanes)) = (mpsc::channel(1), mpsc::channel(LANES));
        let free = (0..free).map(|_| mpsc::channel(1).0).collect();
        let mut dispatch =
            Dispatch { waiting, held_over: None, ticks, lanes, free, backlog: backlog.clone() };
        let (group, _) = tokio::join!(dispatch.fill(queued()), queue.send(queued()));
        assert!(dispatch.held_over.is_none());
        group.len()
    }

    #[tokio::test]
    async fn jobs_gather_only_while_answers_wait_for_signatures() {
        let backlog = Backlog::default();
        let mut signing: Vec<_> = (1..BACKLOG).map(|_| backlog.begin()).collect();
        assert_eq!(together(&backlog, LANES).await, 1);
        signing.push(backlog.begin());
        assert_eq!(together(&backlog, LANES).await, 2);
        signing.pop();
        assert_eq!(together(&backlog, LANES).await, 1);
    }

    #[tokio::test]
    async fn a_few_jobs_wait_for_the_statement_that_is_under_way() {
        assert_eq!(together(&Backlog::default(), LANES - 1).await, 2);
    }
}
