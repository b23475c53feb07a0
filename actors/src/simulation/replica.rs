//! A replica: the steps of `pool/batch.rs` and `settle.rs` round the real plan, cut at each message, and the heartbeats
//! that go to the log beside them (`pool/beat.rs`).

mod decisions;

use std::sync::Arc;
use std::time::Duration;

use events::{Appended, LicenseId, SessionId, TenantId, UserId};

use super::client::Said;
use super::gate::Gate;
use super::referee::Referee;
use super::rules::Rules;
use super::world::{TTL, at};
use crate::pool::beat::Beaten;
use crate::pool::command::Command;
use crate::pool::state::PoolState;
use crate::writer::Job;
use decisions::Batch;

/// Statements with heartbeats that may be under way: as many as the writer has lanes.
const BEATS: usize = 2;

/// A request on its way or in a mailbox.
#[derive(Debug, Clone)]
pub struct Ask {
    pub id: u64,
    /// Nobody: the reaper, or a late duplicate.
    pub client: Option<usize>,
    pub what: What,
}

impl Ask {
    pub fn command(&self) -> Option<&Command> {
        match &self.what {
            What::Decision(command) => Some(command),
            What::Heartbeat { .. } => None,
        }
    }
}

/// What the pool's actor decides, or what goes past it to the log.
#[derive(Debug, Clone)]
pub enum What {
    Decision(Command),
    Heartbeat { session_id: SessionId, user_id: UserId },
}

/// What the replica says, to whom.
#[derive(Debug, Clone)]
pub struct Reply {
    pub id: u64,
    pub client: Option<usize>,
    pub said: Said,
}

/// Heartbeats that wait for the log's answer.
struct Beats {
    job: Arc<Job>,
    asks: Vec<(SessionId, Ask)>,
}

/// One of them.
pub struct Replica {
    license_id: LicenseId,
    pub inbox: Vec<Ask>,
    /// Answers of the log to an earlier life are ignored.
    pub life: u64,
    /// How far its clock is ahead of the log's.
    pub clock: i64,
    pub frozen: bool,
    state: Option<PoolState>,
    synced: bool,
    batch: Option<Box<Batch>>,
    beats: Vec<Beats>,
    /// What the state was not told of heartbeats yet.
    beaten: Beaten,
    rules: Rules,
}

/// What a step reaches.
pub struct Surroundings<'a> {
    pub log: &'a mut Referee,
    /// The log does not answer.
    pub log_away: bool,
    pub gate: &'a mut Gate,
    pub now: i64,
    pub rng: &'a mut fastrand::Rng,
    pub replies: &'a mut Vec<Reply>,
}

impl Replica {
    pub fn new(license_id: LicenseId, rules: Rules) -> Self {
        Self {
            license_id,
            inbox: Vec::new(),
            life: 0,
            clock: 0,
            frozen: false,
            state: None,
            synced: false,
            batch: None,
            beats: Vec::new(),
            beaten: Beaten::default(),
            rules,
        }
    }

    /// `kill -9`, and another process.
    pub fn crash(&mut self) {
        self.inbox.clear();
        self.state = None;
        self.batch = None;
        self.beats.clear();
        self.beaten = Beaten::default();
        self.synced = false;
        self.life += 1;
    }

    pub fn is_busy(&self) -> bool {
        self.batch.is_some() || !self.beats.is_empty()
    }

    /// Whether a batch is under way, and heartbeats are beside it.
    pub fn beats_beside_a_batch(&self) -> bool {
        self.batch.is_some() && !self.beats.is_empty()
    }

    /// Whether something can begin: a batch if none is under way, heartbeats beside it.
    pub fn can_begin(&self) -> bool {
        self.can_beat() || self.batch.is_none() && (self.has_decisions() || !self.beaten.is_empty())
    }

    fn can_beat(&self) -> bool {
        self.beats.len() < BEATS && self.inbox.iter().any(|ask| ask.command().is_none())
    }

    fn has_decisions(&self) -> bool {
        self.inbox.iter().any(|ask| ask.command().is_some())
    }

    /// The gate was away: what was mirrored may be gone.
    pub fn doubt_mirror(&mut self) {
        self.synced = false;
    }

    /// Folds what the log has beyond the state.
    fn catch_up(&mut self, log: &Referee) {
        let Some(state) = &mut self.state else { return };
        state.tenant_active = log.tenant_active;
        for entry in &log.decisions[usize::try_from(state.version).unwrap_or(0)..] {
            state.apply(&entry.subject, &entry.event, at(entry.at));
        }
    }

    fn load(&mut self, log: &Referee) {
        if self.state.is_some() {
            return;
        }
        self.state = Some(PoolState::new(self.license_id, TenantId(log.stream_id)));
        self.catch_up(log);
        for (session, seat) in &log.seats {
            if let Some(state) = &mut self.state {
                state.extend(*session, at(seat.deadline));
            }
        }
    }

    /// Takes some of what waits, as [`Replica::can_begin`] says. Answers a job for the log, if there is one.
    pub fn begin(&mut self, around: &mut Surroundings<'_>) -> Option<Arc<Job>> {
        if around.log_away && self.state.is_none() {
            self.inbox.clear();
            return None;
        }
        let take = around.rng.usize(1..5);
        let decides = self.batch.is_none() && self.has_decisions();
        if self.can_beat() && !(decides && around.rng.bool()) {
            return Some(self.beat(take));
        }
        if self.batch.is_some() {
            return None;
        }
        self.load(around.log);
        for (session_id, deadline) in self.beaten.take() {
            self.extend(session_id, deadline);
            around.gate.extend(session_id, around.now);
        }
        let asks = self.take(take, |ask| ask.command().is_some());
        self.decide(asks, around)
    }

    /// The first of them in the mailbox, at most so many.
    fn take(&mut self, most: usize, which: impl Fn(&Ask) -> bool) -> Vec<Ask> {
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for ask in std::mem::take(&mut self.inbox) {
            let to = if taken.len() < most && which(&ask) { &mut taken } else { &mut left };
            to.push(ask);
        }
        self.inbox = left;
        taken
    }

    /// Heartbeats go to the log without a look at the state (`pool/beat.rs`).
    fn beat(&mut self, most: usize) -> Arc<Job> {
        let (mut job, mut asks) = (Job::default(), Vec::new());
        for ask in self.take(most, |ask| ask.command().is_none()) {
            let What::Heartbeat { session_id, user_id } = &ask.what else { continue };
            let session_id = *session_id;
            // Of one session the first does for all, as in the writer.
            if !asks.iter().any(|(session, _)| *session == session_id) {
                let one = Job::heartbeat(self.license_id, session_id, user_id.clone(), None);
                job.heartbeats.extend(one.heartbeats);
            }
            asks.push((session_id, ask));
        }
        let job = Arc::new(job);
        self.beats.push(Beats { job: job.clone(), asks });
        job
    }

    /// The log's answer to a job. Answers what goes to the log next.
    pub fn answered(
        &mut self,
        job: &Arc<Job>,
        appended: Appended,
        around: &mut Surroundings<'_>,
    ) -> Option<Arc<Job>> {
        if let Some(index) = self.beats.iter().position(|beats| Arc::ptr_eq(&beats.job, job)) {
            let beats = self.beats.swap_remove(index);
            self.beaten(beats.asks, &appended, around);
            return None;
        }
        let batch = *self.batch.take()?;
        self.decided(batch, appended, around)
    }

    /// Answers heartbeats, and notes those that were written; not all, for a request may be gone by then.
    fn beaten(&self, asks: Vec<(SessionId, Ask)>, appended: &Appended, around: &mut Surroundings<'_>) {
        for (session_id, ask) in asks {
            let said = match appended.heartbeat(session_id) {
                Ok(at) => {
                    if around.rng.u8(..4) > 0 {
                        self.beaten.note(session_id, at.after(Duration::from_millis(TTL as u64)));
                    }
                    Said::Alive
                }
                Err(None) => Said::Ended,
                // Not accepted: nothing that ends a session.
                Err(Some(_)) => continue,
            };
            around.replies.push(Reply { id: ask.id, client: ask.client, said });
        }
    }

    fn extend(&mut self, session: SessionId, deadline: events::Time) {
        if let Some(state) = &mut self.state {
            state.extend(session, deadline);
        }
    }
}
