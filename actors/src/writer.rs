//! Joins the batches of many pools into one statement.
//!
//! While a statement is under way, jobs gather; when a lane is free, they go together. Alone, a job waits for nobody.
//! Delivery: a job that was sent is sent again, the same, until its outcome is known; it is never undone on a timeout.
//! Only a job that was never sent fails at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use events::{Appended, Batch, EventLog, HeartbeatWrite, LogError, NameClaim, Refused, StreamWrite, Time};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::clock::PostgresClock;

/// Statements under way at a time, each on a connection of its own.
const LANES: usize = 2;

/// Jobs that may wait: at most one of each live pool, and a few administrative ones.
const QUEUE: usize = 32_768;

/// Bound of a statement, in events; a job that is larger by itself goes alone.
const MAX_EVENTS: usize = 2_000;

/// Longest silence of a statement before its outcome counts as unknown. Longer than the database's own limit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// Wait before the same is sent again: doubles from the first to the last.
const RESEND: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(500));

/// Longest silence that is not an outage yet.
const MAX_GAP: Duration = Duration::from_secs(15);

/// How often a rolled back statement (a deadlock, say) is sent again before its jobs fail.
const MAX_ROLLBACKS: u32 = 40;

/// What one pool, or one administrative act, writes.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// All or nothing; goes in a statement of its own.
    pub whole: bool,
    /// Streams written to.
    pub streams: Vec<StreamWrite>,
    /// Names to hold or let go.
    pub names: Vec<NameClaim>,
    /// Heartbeats.
    pub heartbeats: Vec<HeartbeatWrite>,
}

impl Job {
    fn len(&self) -> usize {
        self.heartbeats.len() + self.streams.iter().map(|stream| stream.events.len()).sum::<usize>()
    }
}

struct Queued {
    job: Job,
    reply: oneshot::Sender<Result<Appended, LogError>>,
}

/// What a lane is given: the beacon goes the way of the appends, or it would not be their sign of life.
enum Work {
    Write(Vec<Queued>),
    Tick(oneshot::Sender<()>),
}

/// The only way from this process into the log. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Queued>,
    clock: PostgresClock,
    up: watch::Receiver<bool>,
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
            (0..LANES).map(|_| tokio::spawn(lane(shared.clone(), free.clone()))).collect();
        let (tick, ticks) = mpsc::channel(1);
        tasks.push(tokio::spawn(dispatch(waiting, ticks, lanes)));
        tasks.push(tokio::spawn(beacon(gap(ttl), tick)));
        let tasks = Arc::new(tasks.iter().map(JoinHandle::abort_handle).collect());
        Ok(Self { queue, clock, up: is_up, tasks })
    }

    /// Writes a job; the answer names only the job's own refusals.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: nothing was written. [`LogError::Rejected`]: it never will be.
    #[tracing::instrument(name = "append", skip_all)]
    pub async fn append(&self, job: Job) -> Result<Appended, LogError> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(Queued { job, reply })
            .await
            .map_err(|_| LogError::Unavailable("the writer has stopped".to_owned()))?;
        answer.await.map_err(|_| LogError::Unknown("the writer stopped".to_owned()))?
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
                (group, held_over) = fill(first, &mut waiting);
                Work::Write(group)
            }
            None => tokio::select! {
                biased;
                Some(done) = ticks.recv() => Work::Tick(done),
                first = waiting.recv() => {
                    let Some(first) = first else { return };
                    let group;
                    (group, held_over) = fill(first, &mut waiting);
                    Work::Write(group)
                }
            },
        };
        if lane.send(work).await.is_err() {
            return;
        }
    }
}

/// Everything that waits and fits, and the first job that does not.
fn fill(first: Queued, waiting: &mut mpsc::Receiver<Queued>) -> (Vec<Queued>, Option<Queued>) {
    let mut events = first.job.len();
    if first.job.whole {
        return (vec![first], None);
    }
    let mut streams: HashSet<_> = first.job.streams.iter().map(|stream| stream.stream_id).collect();
    let mut group = vec![first];
    while let Ok(next) = waiting.try_recv() {
        let again = next.job.streams.iter().any(|stream| streams.contains(&stream.stream_id));
        if next.job.whole || again || events + next.job.len() > MAX_EVENTS {
            return (group, Some(next));
        }
        events += next.job.len();
        streams.extend(next.job.streams.iter().map(|stream| stream.stream_id));
        group.push(next);
    }
    (group, None)
}

/// One connection's worth of statements.
async fn lane(shared: Shared, free: mpsc::Sender<mpsc::Sender<Work>>) {
    let (mine, mut given) = mpsc::channel(1);
    let mut connection = None;
    while free.send(mine.clone()).await.is_ok() {
        match given.recv().await {
            Some(Work::Write(group)) => write(&shared, &mut connection, group).await,
            Some(Work::Tick(done)) => {
                tick(&shared, &mut connection).await;
                let _ = done.send(());
            }
            None => return,
        }
    }
}

/// Writes a group and hands each job its part of the answer.
async fn write(shared: &Shared, connection: &mut Option<deadpool_postgres::Object>, group: Vec<Queued>) {
    let batch = batch_of(shared.ttl, &group);
    metrics::histogram!("license_event_append_batch_size")
        .record(group.iter().map(|one| one.job.len() as f64).sum::<f64>());
    match send_until_known(shared, connection, &batch).await {
        Ok(appended) => hand_out(group, &appended),
        Err(error) if group.len() > 1 && matches!(error, LogError::Rejected(_)) => {
            // One job that the database rejects must not take the others with it.
            tracing::error!(%error, jobs = group.len(), "a group was rejected: each of its jobs goes alone");
            for one in group {
                let result =
                    send_until_known(shared, connection, &batch_of(shared.ttl, std::slice::from_ref(&one)))
                        .await;
                let _ = one.reply.send(result);
            }
        }
        Err(error) => {
            tracing::warn!(%error, jobs = group.len(), "an append failed");
            for one in group {
                let _ = one.reply.send(Err(again(&error)));
            }
        }
    }
}

/// The same failure for another job of the group.
fn again(error: &LogError) -> LogError {
    match error {
        LogError::Rejected(text) => LogError::Rejected(text.clone()),
        other => LogError::Unavailable(other.to_string()),
    }
}

fn batch_of(ttl: Duration, group: &[Queued]) -> Batch {
    let mut batch = Batch { ttl, ..Batch::default() };
    for Queued { job, .. } in group {
        batch.whole |= job.whole;
        batch.streams.extend(job.streams.iter().cloned());
        batch.names.extend(job.names.iter().cloned());
        batch.heartbeats.extend(job.heartbeats.iter().cloned());
    }
    // Two replicas that move the same seats take them in the same order.
    batch.heartbeats.sort_by_key(|beat| beat.session_id);
    batch
}

fn hand_out(group: Vec<Queued>, appended: &Appended) {
    let mut by_stream: HashMap<_, Vec<&Refused>> = HashMap::new();
    let mut by_session = HashMap::new();
    for refused in &appended.refused {
        match (refused.stream(), refused.heartbeat()) {
            (Some(stream), _) => by_stream.entry(stream).or_default().push(refused),
            (None, Some((session, _))) => {
                by_session.insert(session, refused);
            }
            (None, None) => {}
        }
    }
    for Queued { job, reply } in group {
        let of_streams =
            job.streams.iter().filter_map(|one| by_stream.get(&one.stream_id)).flatten().copied();
        let of_beats = job.heartbeats.iter().filter_map(|one| by_session.get(&one.session_id)).copied();
        let refused: Vec<_> = of_streams.chain(of_beats).cloned().collect();
        let conflicts = refused.iter().filter(|one| matches!(one, Refused::Conflict { .. })).count();
        metrics::counter!("license_append_conflicts_total").increment(conflicts as u64);
        count_events(&job, &refused);
        let _ = reply.send(Ok(Appended { at: appended.at, refused }));
    }
}

fn count_events(job: &Job, refused: &[Refused]) {
    for stream in &job.streams {
        if refused.iter().any(|one| one.stream() == Some(stream.stream_id)) {
            continue;
        }
        for new in &stream.events {
            metrics::counter!("license_events_appended_total", "type" => new.event.name()).increment(1);
        }
    }
    let beats = job.heartbeats.len() - refused.iter().filter(|one| one.heartbeat().is_some()).count();
    if beats > 0 {
        metrics::counter!("license_events_appended_total", "type" => "seat_heartbeat")
            .increment(beats as u64);
    }
}

/// Sends a batch until its outcome is known, the same each time.
async fn send_until_known(
    shared: &Shared,
    connection: &mut Option<deadpool_postgres::Object>,
    batch: &Batch,
) -> Result<Appended, LogError> {
    let mut maybe_written = false;
    let mut rollbacks = 0;
    let mut pause = RESEND.0;
    loop {
        let sent = Instant::now();
        match send(shared, connection, batch).await {
            Ok(appended) => {
                shared.clock.observe(sent, appended.at);
                set_up(shared, true);
                metrics::histogram!("license_event_append_duration_seconds")
                    .record(sent.elapsed().as_secs_f64());
                return Ok(appended);
            }
            Err(LogError::RolledBack(_)) if rollbacks < MAX_ROLLBACKS => rollbacks += 1,
            Err(error @ LogError::Unknown(_)) => {
                tracing::warn!(%error, "the outcome of an append is unknown: sending it again");
                maybe_written = true;
                discard(connection);
                set_up(shared, false);
            }
            Err(error @ LogError::Unavailable(_)) => {
                discard(connection);
                set_up(shared, false);
                if !maybe_written {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RESEND.1);
    }
}

async fn send(
    shared: &Shared,
    connection: &mut Option<deadpool_postgres::Object>,
    batch: &Batch,
) -> Result<Appended, LogError> {
    let client = open(shared, connection).await?;
    tokio::time::timeout(ANSWER_TIMEOUT, EventLog::append_on(client, batch))
        .await
        .unwrap_or_else(|_| Err(LogError::Unknown("no answer in time".to_owned())))
}

/// Closes a connection that may still have a statement under way: the pool must not hand it to anybody.
fn discard(connection: &mut Option<deadpool_postgres::Object>) {
    if let Some(connection) = connection.take() {
        drop(deadpool_postgres::Object::take(connection));
    }
}

async fn open<'a>(
    shared: &Shared,
    connection: &'a mut Option<deadpool_postgres::Object>,
) -> Result<&'a deadpool_postgres::Object, LogError> {
    if connection.as_ref().is_none_or(|client| client.is_closed()) {
        *connection = Some(shared.log.database().get().await?);
    }
    connection.as_ref().ok_or_else(|| LogError::Unavailable("no connection".to_owned()))
}

fn set_up(shared: &Shared, up: bool) {
    let changed = shared.up.send_if_modified(|was| std::mem::replace(was, up) != up);
    if changed {
        metrics::gauge!("license_postgres_up").set(if up { 1.0 } else { 0.0 });
        tracing::warn!(up, "Postgres");
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

async fn tick(shared: &Shared, connection: &mut Option<deadpool_postgres::Object>) {
    let sent = Instant::now();
    let tick = async { EventLog::tick_beacon_on(open(shared, connection).await?, gap(shared.ttl)).await };
    match tokio::time::timeout(ANSWER_TIMEOUT, tick).await {
        Ok(Ok(at)) => {
            shared.clock.observe(sent, at);
            set_up(shared, true);
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the beacon was not ticked");
            discard(connection);
            set_up(shared, false);
        }
        Err(_) => {
            discard(connection);
            set_up(shared, false);
        }
    }
}
