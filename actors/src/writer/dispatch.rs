//! Which jobs go together in a statement, and when: everything that waits, once a lane is free. A second statement begins
//! beside another only once it is worth it, or the other takes its time; and while answers wait for signatures jobs gather
//! although nothing is under way. Jobs that clash never share a statement.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use events::{Event, HeartbeatWrite, SessionId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Backlog, COMPANY, Job, LANES, Queued, Work};

/// Bound of a statement, in events; a job that is larger by itself goes alone.
const MAX_EVENTS: usize = 2_000;

/// Longest time that fewer wait for the other statement to end: it may stand before a lock that concerns them little.
const BESIDE: Duration = Duration::from_millis(5);

/// Longest time that grants gather while answers wait for signatures: they wait for their signatures anyway.
const GATHER_GRANTS: Duration = Duration::from_millis(40);

/// Longest time that other jobs gather then. Short beside the wait for a signature when a crowd comes.
const GATHER: Duration = Duration::from_millis(10);

/// Fills groups as lanes become free.
pub(super) struct Dispatch {
    pub waiting: mpsc::Receiver<Queued>,
    /// The first job that did not go with the group before it.
    pub held_over: Option<Queued>,
    pub ticks: mpsc::Receiver<oneshot::Sender<()>>,
    pub lanes: mpsc::Receiver<mpsc::Sender<Work>>,
    pub free: Vec<mpsc::Sender<Work>>,
    pub backlog: Backlog,
}

impl Dispatch {
    /// Runs until the writer stops.
    pub async fn run(mut self) {
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
        loop {
            let first = match self.held_over.take() {
                Some(first) => first,
                None => tokio::select! {
                    biased;
                    Some(done) = self.ticks.recv() => return Some(Work::Tick(done)),
                    first = self.waiting.recv() => first?,
                },
            };
            if first.is_wanted() {
                return Some(Work::Write(self.fill(first).await));
            }
        }
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
            if !next.is_wanted() {
                continue;
            }
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
            } else if self.free.len() < LANES && group.events < COMPANY {
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

/// How long a job may wait for company while answers wait for signatures.
fn patience(job: &Job) -> Duration {
    let mut events = job.streams.iter().flat_map(|stream| &stream.events);
    let grants =
        job.heartbeats.is_empty() && events.all(|new| matches!(new.event, Event::SeatAcquired { .. }));
    if grants { GATHER_GRANTS } else { GATHER }
}

/// What goes in one statement.
struct Group {
    jobs: Vec<Queued>,
    /// Streams that are written to.
    written: HashSet<Uuid>,
    /// Pools that have heartbeats in it.
    beating: HashSet<Uuid>,
    /// The sessions that these keep alive, and the first job that does.
    beaten: HashMap<SessionId, usize>,
    events: usize,
    begun: Instant,
    /// When the least patient of them goes.
    until: Instant,
}

impl Group {
    fn of(first: Queued) -> Self {
        let begun = Instant::now();
        let mut group = Self {
            jobs: Vec::new(),
            written: HashSet::new(),
            beating: HashSet::new(),
            beaten: HashMap::new(),
            events: 0,
            begun,
            until: begun + patience(&first.job),
        };
        group.add(first);
        group
    }

    /// Whether a job may not go with the others. Two decisions on one stream would be judged by the same version, and a
    /// statement moves a seat once: heartbeats of one session go together only where one answers both. A heartbeat must not
    /// wait for a lock that its pool's decisions wait for (docs/adr/0015).
    fn clashes(&self, job: &Job) -> bool {
        let streams = &mut job.streams.iter().map(|stream| &stream.stream_id);
        streams.any(|id| self.written.contains(id) || self.beating.contains(id))
            || job.heartbeats.iter().any(|beat| {
                self.written.contains(&beat.stream_id)
                    || self.beaten.get(&beat.session_id).is_some_and(|index| !self.answers(*index, beat))
            })
    }

    /// Whether the heartbeat that a job has for the same session does for this one as well.
    fn answers(&self, index: usize, beat: &HeartbeatWrite) -> bool {
        let same = |other: &HeartbeatWrite| {
            (other.session_id, other.stream_id, &other.user_id)
                == (beat.session_id, beat.stream_id, &beat.user_id)
                && other.key.is_none()
        };
        beat.key.is_none() && self.jobs[index].job.heartbeats.iter().any(same)
    }

    /// Takes a job along, or gives it back if it may not go with the others.
    fn take(&mut self, next: Queued) -> Option<Queued> {
        if next.job.whole || self.clashes(&next.job) || self.events + next.job.len() > MAX_EVENTS {
            return Some(next);
        }
        self.until = self.until.min(Instant::now() + patience(&next.job));
        self.add(next);
        None
    }

    fn add(&mut self, next: Queued) {
        self.events += next.job.len();
        self.written.extend(next.job.streams.iter().map(|stream| stream.stream_id));
        for beat in &next.job.heartbeats {
            self.beating.insert(beat.stream_id);
            self.beaten.entry(beat.session_id).or_insert(self.jobs.len());
        }
        self.jobs.push(next);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use events::{Appended, IdempotencyKey, LicenseId, LogError, SessionId, StreamWrite, TenantId, UserId};

    use super::super::{BACKLOG, Backlog, Job, LANES, Queued};
    use super::{Dispatch, Group};

    type Waits = oneshot::Receiver<Result<Appended, LogError>>;

    /// A job, and who waits for its answer.
    fn queued(job: Job) -> (Queued, Waits) {
        let (reply, answer) = oneshot::channel();
        (Queued { job, reply, span: tracing::Span::none() }, answer)
    }

    /// How many go in a statement if a second job comes a moment after the first, with so many lanes free.
    async fn together(backlog: &Backlog, free: usize) -> usize {
        let (queue, waiting) = mpsc::channel(4);
        let ((_ticks, ticks), (_lanes, lanes)) = (mpsc::channel(1), mpsc::channel(LANES));
        let free = (0..free).map(|_| mpsc::channel(1).0).collect();
        let mut dispatch =
            Dispatch { waiting, held_over: None, ticks, lanes, free, backlog: backlog.clone() };
        let ((first, _one), (second, _other)) = (queued(Job::default()), queued(Job::default()));
        // Dropped: nobody waits for it.
        assert!(queue.send(queued(Job::default()).0).await.is_ok());
        let (group, _) = tokio::join!(dispatch.fill(first), queue.send(second));
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

    #[test]
    fn jobs_that_clash_go_in_two_statements() {
        let (one, other) = (LicenseId::mint(), LicenseId::mint());
        let (ada, bob) = (SessionId::mint(), SessionId::mint());
        let beat = |license_id, session_id| {
            Job::heartbeat(license_id, session_id, UserId::new("ada").unwrap(), None)
        };
        let decision = |license_id: LicenseId| {
            let mut job = Job::default();
            job.streams.push(StreamWrite {
                stream_id: license_id.0,
                tenant_id: TenantId(license_id.0),
                product: None,
                expected: 1,
                standing: None,
                events: Vec::new(),
            });
            job
        };
        let together = |first: Job, second: Job| !Group::of(queued(first).0).clashes(&second);
        assert!(together(beat(one, ada), beat(one, bob)), "heartbeats of one pool");
        let keyed = |session_id| {
            let mut job = beat(one, session_id);
            let key = Some(IdempotencyKey { key: "key".to_owned(), request_hash: Vec::new() });
            job.heartbeats.iter_mut().for_each(|beat| beat.key.clone_from(&key));
            job
        };
        assert!(together(beat(one, ada), beat(one, ada)), "heartbeats of one session, of which one will do");
        assert!(!together(keyed(ada), beat(one, ada)), "one that stores a key, and another");
        assert!(!together(beat(one, ada), keyed(ada)), "another, and one that stores a key");
        assert!(together(decision(one), decision(other)), "decisions of two pools");
        assert!(!together(decision(one), decision(one)), "decisions of one pool");
        assert!(together(beat(one, ada), decision(other)), "a heartbeat and another pool's decision");
        assert!(!together(beat(one, ada), decision(one)), "a heartbeat and its pool's decision");
        assert!(!together(decision(one), beat(one, ada)), "a decision and its pool's heartbeat");
    }

    #[tokio::test]
    async fn a_few_jobs_wait_for_the_statement_that_is_under_way() {
        assert_eq!(together(&Backlog::default(), LANES - 1).await, 2);
    }
}
