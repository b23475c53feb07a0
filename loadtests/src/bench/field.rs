//! The closed loop itself: connections that each send their next request when the last is answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use crate::crowd::Crowd;
use crate::http::{Answer, Call, Connection};
use crate::tally::{Outcome, Summary, Tally};
use crate::target::Target;

use super::work::Work;

/// When a phase ends.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sent but not counted.
    pub warm_up: Duration,
    /// Counted.
    pub measured: Duration,
}

/// A server, a crowd of callers, and the sessions they hold. Clones share all of it.
#[derive(Clone)]
pub struct Field(Arc<Inner>);

struct Inner {
    target: Arc<Target>,
    crowd: Crowd,
    connections: usize,
    turn: AtomicUsize,
    sessions: Mutex<VecDeque<Held>>,
    /// The first answer of each unexpected status, to show what went wrong.
    samples: Mutex<BTreeMap<String, String>>,
}

struct Held {
    user: usize,
    session_id: Box<str>,
}

/// What a request was about, to be settled when its answer is there.
struct Job {
    call: Call,
    held: Option<Held>,
    user: usize,
}

impl Field {
    /// Nobody holds a session yet.
    pub fn new(target: Arc<Target>, crowd: Crowd, connections: usize) -> Self {
        let (turn, sessions, samples) = (AtomicUsize::new(0), Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { target, crowd, connections, turn, sessions, samples }))
    }

    /// Runs one kind of work over all connections, or over `connections` of them.
    pub async fn measure(&self, work: Work, limits: Limits, connections: Option<usize>) -> Result<Summary> {
        let begin = Instant::now() + limits.warm_up;
        let window = Window { begin, end: begin + limits.measured, sessions_wanted: usize::MAX };
        let (tally, last) = self.run(work, window, connections.unwrap_or(self.0.connections)).await?;
        Ok(tally.summary(last.saturating_duration_since(begin)))
    }

    /// Acquires, unmeasured, until so many sessions are held.
    pub async fn fill(&self, sessions: usize) -> Result<()> {
        const LIMIT: Duration = Duration::from_secs(600);
        if self.held() >= sessions {
            return Ok(());
        }
        let now = Instant::now();
        let window = Window { begin: now, end: now + LIMIT, sessions_wanted: sessions };
        self.run(Work::Acquire, window, self.0.connections).await?;
        ensure!(
            self.held() >= sessions,
            "only {} of {sessions} sessions could be acquired: {:?}",
            self.held(),
            self.samples()
        );
        Ok(())
    }

    /// Takes every pool's seat, or renews it: afterwards every other acquire is refused.
    pub async fn occupy(&self) -> Result<()> {
        let mut connection = Connection::new(&self.0.target.endpoint);
        for n in 0..self.0.crowd.tenants {
            let call = self.0.target.acquire(self.0.crowd.user(n), &format!("holder-of-{n:05}"));
            let answer = connection.call(&call).await?;
            let full = matches!(answer.status, 200 | 409);
            ensure!(full, "the pool could not be filled: {} {:?}", answer.status, answer.body);
        }
        Ok(())
    }

    /// How many sessions the crowd holds.
    pub fn held(&self) -> usize {
        locked(&self.0.sessions).len()
    }

    /// What unexpected answers looked like, by status.
    pub fn samples(&self) -> BTreeMap<String, String> {
        locked(&self.0.samples).clone()
    }

    async fn run(&self, work: Work, window: Window, connections: usize) -> Result<(Tally, Instant)> {
        let mut workers = JoinSet::new();
        for _ in 0..connections {
            workers.spawn(worker(self.clone(), work, window));
        }
        let (mut tally, mut last) = (Tally::new()?, window.begin);
        while let Some(done) = workers.join_next().await {
            let (part, finished) = done??;
            tally.merge(&part)?;
            last = last.max(finished);
        }
        Ok((tally, last))
    }

    fn next(&self, work: Work) -> Option<Job> {
        let inner = &self.0;
        match work {
            Work::Acquire | Work::Refused => {
                let user = inner.turn.fetch_add(1, Ordering::Relaxed) % inner.crowd.users.len();
                let call = inner.target.acquire(inner.crowd.user(user), &inner.target.new_machine());
                Some(Job { call, held: None, user })
            }
            Work::Heartbeat | Work::Release => {
                let held = locked(&inner.sessions).pop_front()?;
                let user = inner.crowd.user(held.user);
                let call = match work {
                    Work::Heartbeat => inner.target.heartbeat(user, &held.session_id),
                    _ => inner.target.release(user, &held.session_id),
                };
                Some(Job { call, user: held.user, held: Some(held) })
            }
        }
    }

    fn settle(&self, work: Work, job: Job, answer: Result<Answer>) -> Outcome {
        let answer = match answer {
            Ok(answer) if answer.status == work.expected_status() => answer,
            unexpected => return self.note(unexpected),
        };
        let kept = match work {
            Work::Acquire => answer.session_id().map(|id| Held { user: job.user, session_id: id.into() }),
            Work::Heartbeat => job.held,
            Work::Release | Work::Refused => None,
        };
        if let Some(kept) = kept {
            locked(&self.0.sessions).push_back(kept);
        }
        Outcome::Expected
    }

    fn note(&self, unexpected: Result<Answer>) -> Outcome {
        let (outcome, code, text) = match unexpected {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                (Outcome::Status(answer.status), answer.status.to_string(), text)
            }
            Err(error) => (Outcome::Lost, "no answer".to_owned(), format!("{error:#}")),
        };
        locked(&self.0.samples).entry(code).or_insert(text);
        outcome
    }
}

#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
    sessions_wanted: usize,
}

/// One connection's loop. Requests in hand at the end are waited for and counted: leaving them out would
/// hide just the slow ones.
async fn worker(field: Field, work: Work, window: Window) -> Result<(Tally, Instant)> {
    const ERRORS_IN_A_ROW: usize = 1_000;
    let (mut tally, mut last, mut errors) = (Tally::new()?, window.begin, 0);
    let mut connection = Connection::new(&field.0.target.endpoint);
    connection.connect().await.context("the server is not there")?;
    while Instant::now() < window.end && errors < ERRORS_IN_A_ROW && field.held() < window.sessions_wanted {
        let Some(job) = field.next(work) else { break };
        let start = Instant::now();
        let answer = connection.call(&job.call).await;
        let finished = Instant::now();
        let outcome = field.settle(work, job, answer);
        errors = if outcome == Outcome::Expected { 0 } else { errors + 1 };
        if finished >= window.begin {
            tally.record(finished - start, outcome);
            last = finished;
        }
    }
    Ok((tally, last))
}

/// A worker that panicked left the data whole: every change under these locks is a single step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
