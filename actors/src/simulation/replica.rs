//! A replica: the steps of `pool/batch.rs` and `settle.rs` round the real plan, cut at each message.

use std::sync::Arc;
use std::time::Duration;

use events::{Appended, LicenseId, Refused, SessionId, TenantId, UserId};

use super::client::Said;
use super::gate::Gate;
use super::referee::Referee;
use super::rules::Rules;
use super::world::{TTL, at};
use crate::gate::{Pass, holder};
use crate::pool::command::{Command, Reason};
use crate::pool::plan::{Asked, Outcome, Plan};
use crate::pool::state::PoolState;
use crate::writer::Job;

/// How often a batch is decided again; as in `pool/batch.rs`.
const MAX_ROUNDS: u32 = 12;

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

struct Slot {
    ask: Ask,
    command: Command,
    pass: Option<Pass>,
}

/// A job that waits for the log's answer.
enum UnderWay {
    Decisions(Box<Batch>),
    Heartbeats(Vec<(SessionId, Ask)>),
}

struct Batch {
    slots: Vec<Slot>,
    plan: Option<Plan>,
    reserved: Vec<SessionId>,
    caught_up: bool,
    rounds: u32,
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
    under_way: Option<UnderWay>,
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
            under_way: None,
            rules,
        }
    }

    /// `kill -9`, and another process.
    pub fn crash(&mut self) {
        self.inbox.clear();
        self.state = None;
        self.under_way = None;
        self.synced = false;
        self.life += 1;
    }

    pub fn is_busy(&self) -> bool {
        self.under_way.is_some()
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

    /// Takes what waits as one batch. Answers a job for the log, if there is one.
    pub fn begin(&mut self, around: &mut Surroundings<'_>) -> Option<Arc<Job>> {
        if around.log_away && self.state.is_none() {
            self.inbox.clear();
            return None;
        }
        let take = around.rng.usize(1..5);
        if self.inbox.first().is_some_and(|ask| ask.command().is_none()) {
            return self.beat(take);
        }
        self.load(around.log);
        let decisions = self.inbox.iter().take_while(|ask| ask.command().is_some()).take(take).count();
        let asks: Vec<_> = self.inbox.drain(..decisions).collect();
        let mut slots = Vec::new();
        for ask in asks {
            let Some(command) = ask.command().cloned() else { continue };
            if let Some(said) = self.known_key(&command, around).or_else(|| self.memory_of(&command)) {
                around.replies.push(Reply { id: ask.id, client: ask.client, said });
            } else {
                slots.push(Slot { ask, command, pass: None });
            }
        }
        let mut batch = Batch { slots, plan: None, reserved: Vec::new(), caught_up: false, rounds: 0 };
        self.ask_gate(&mut batch, around);
        self.round(batch, around)
    }

    /// Heartbeats go to the log without a look at the state (`pool/beat.rs`).
    fn beat(&mut self, most: usize) -> Option<Arc<Job>> {
        let (mut job, mut asks) = (Job::default(), Vec::new());
        while let Some(Ask { what: What::Heartbeat { session_id, user_id }, .. }) = self.inbox.first() {
            let session_id = *session_id;
            if asks.len() == most {
                break;
            }
            // Of one session the first does for all, as in the writer.
            if !asks.iter().any(|(session, _)| *session == session_id) {
                let one = Job::heartbeat(self.license_id, session_id, user_id.clone(), None);
                job.heartbeats.extend(one.heartbeats);
            }
            asks.push((session_id, self.inbox.remove(0)));
        }
        self.under_way = Some(UnderWay::Heartbeats(asks));
        Some(Arc::new(job))
    }

    /// An acquire repeated with the key of an ended session is told so (the edge asks the log for the key).
    fn known_key(&self, command: &Command, around: &Surroundings<'_>) -> Option<Said> {
        let Command::Acquire { user_id, key: Some(key), .. } = command else { return None };
        let session = around.log.keys.get(&(user_id.clone(), key.key.clone()))?;
        (!around.log.seats.contains_key(session)).then_some(Said::Ended)
    }

    /// What the protocol forbids: "held", out of a state that may be stale.
    fn memory_of(&self, command: &Command) -> Option<Said> {
        let Command::Acquire { user_id, hardware_id, .. } = command else { return None };
        if self.rules.renew_by_heartbeat {
            return None;
        }
        self.state.as_ref()?.held_by(user_id, hardware_id).map(Said::Renewed)
    }

    fn ask_gate(&mut self, batch: &mut Batch, around: &mut Surroundings<'_>) {
        let Some(state) = &self.state else { return };
        let (mut asking, mut requests) = (Vec::new(), Vec::new());
        for (index, slot) in batch.slots.iter().enumerate() {
            if let Command::Acquire { session_id, user_id, hardware_id, .. } = &slot.command
                && state.held_by(user_id, hardware_id).is_none()
            {
                asking.push(index);
                requests.push((*session_id, holder(user_id, hardware_id)));
            }
        }
        // A crowd at a full pool does not always ask (`asks_although_full`).
        let spared = state.is_full(at(around.now + self.clock)) && around.rng.bool();
        if requests.is_empty() || spared {
            return;
        }
        if !self.synced || !around.gate.mirror.known {
            self.sync(around);
        }
        let Some(passes) = around.gate.acquire(&requests, around.now, around.rng) else { return };
        for ((index, request), pass) in asking.into_iter().zip(requests).zip(passes) {
            if pass == Pass::Granted {
                batch.reserved.push(request.0);
            }
            batch.slots[index].pass = Some(pass);
        }
    }

    /// The mirror, written anew from the state.
    fn sync(&mut self, around: &mut Surroundings<'_>) {
        let Some(state) = &self.state else { return };
        let now = at(around.now + self.clock);
        let seats = state.sessions().map(|(id, session)| {
            let remaining = session.deadline.since(now).as_millis() as i64;
            (id, holder(&session.user_id, &session.hardware_id), remaining)
        });
        around.gate.sync(state.version, state.limit().get(), seats, around.now);
        self.synced = around.gate.up;
    }

    /// Decides. Answers the job that goes to the log; without one the batch is at its end.
    fn round(&mut self, mut batch: Batch, around: &mut Surroundings<'_>) -> Option<Arc<Job>> {
        loop {
            batch.rounds += 1;
            if batch.slots.is_empty() || batch.rounds > MAX_ROUNDS {
                self.finish(&batch, around);
                return None;
            }
            if !self.rules.doubt_the_gate {
                batch.slots.retain(|slot| {
                    let full = slot.pass == Some(Pass::Full);
                    if full {
                        say(around, slot, Said::Denied);
                    }
                    !full
                });
            }
            let state = self.state.as_ref()?;
            let asked: Vec<_> =
                batch.slots.iter().map(|slot| Asked { command: &slot.command, request_id: None }).collect();
            let ttl = Duration::from_millis(TTL as u64);
            let plan = Plan::of(state, &asked, at(around.now + self.clock), ttl);
            if self.is_suspicious(&batch, &plan) {
                if !batch.caught_up {
                    if around.log_away {
                        self.finish(&batch, around);
                        return None;
                    }
                    batch.caught_up = true;
                    self.catch_up(around.log);
                    continue;
                }
                self.sync(around);
            }
            if plan.is_empty() {
                self.settle(&mut batch, plan, None, around);
                continue;
            }
            for beat in &plan.heartbeats {
                around.gate.extend(beat.session_id, around.now);
            }
            let job = Arc::new(plan.job());
            batch.plan = Some(plan);
            self.under_way = Some(UnderWay::Decisions(Box::new(batch)));
            return Some(job);
        }
    }

    fn is_suspicious(&self, batch: &Batch, plan: &Plan) -> bool {
        batch.slots.iter().zip(&plan.outcomes).any(|(slot, outcome)| match (outcome, &slot.pass) {
            (Outcome::NotHeld { .. }, _) => self.rules.catch_up_for_release && !batch.caught_up,
            (Outcome::Expire { missed: true }, _) => self.rules.catch_up_for_expiry && !batch.caught_up,
            (Outcome::Grant { .. }, Some(Pass::Full | Pass::Held(_))) => true,
            (Outcome::Deny { reason: Reason::NoSeatsAvailable, .. }, Some(Pass::Granted)) => true,
            _ => false,
        })
    }

    /// The log's answer. What is not answered is decided again.
    pub fn answered(&mut self, appended: Appended, around: &mut Surroundings<'_>) -> Option<Arc<Job>> {
        let mut batch = match self.under_way.take()? {
            UnderWay::Decisions(batch) => *batch,
            UnderWay::Heartbeats(asks) => {
                self.beaten(asks, &appended, around);
                return None;
            }
        };
        let plan = batch.plan.take()?;
        let stale = self.settle(&mut batch, plan, Some(appended), around);
        if stale {
            if around.log_away {
                self.finish(&batch, around);
                return None;
            }
            batch.caught_up = true;
            self.catch_up(around.log);
        }
        self.round(batch, around)
    }

    /// Answers heartbeats, and tells the state and the gate of those that were written; not of all, for a request may be gone
    /// by then.
    fn beaten(&mut self, asks: Vec<(SessionId, Ask)>, appended: &Appended, around: &mut Surroundings<'_>) {
        for (session_id, ask) in asks {
            let said = match appended.heartbeat(session_id) {
                Ok(at) => {
                    if around.rng.u8(..4) > 0 {
                        self.extend(session_id, at.after(Duration::from_millis(TTL as u64)));
                        around.gate.extend(session_id, around.now);
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

    /// Applies what was written and answers it. Answers whether the state must catch up.
    fn settle(
        &mut self,
        batch: &mut Batch,
        plan: Plan,
        appended: Option<Appended>,
        around: &mut Surroundings<'_>,
    ) -> bool {
        let refused = appended.as_ref().map(|one| one.refused.clone()).unwrap_or_default();
        let mut written_at = appended.as_ref().map_or(at(around.now), |one| one.at);
        let (mut written, mut stale) = (true, false);
        let mut turned_away = Vec::new();
        for one in &refused {
            match one {
                Refused::Already { at, .. } => written_at = *at,
                Refused::Conflict { .. } => (written, stale) = (false, true),
                Refused::NotLapsed { session, until, .. } => {
                    written = false;
                    if let (true, Some(state)) = (self.rules.learn_deadlines, &mut self.state) {
                        state.extend(*session, until.after(Duration::from_millis(20)));
                    }
                }
                Refused::KeyTaken { session, .. } => {
                    written = false;
                    turned_away.push(*session);
                }
                _ => {}
            }
        }
        let Plan { draft, ended, outcomes, .. } = plan;
        if written {
            self.state = Some(draft);
            around.gate.release(ended.into_iter().map(|(session, _)| session));
        }
        let ttl = Duration::from_millis(TTL as u64);
        let deadline = written_at.after(ttl);
        let beat = |session: SessionId| appended.as_ref().map_or(Err(None), |one| one.heartbeat(session));
        for (slot, outcome) in std::mem::take(&mut batch.slots).into_iter().zip(outcomes) {
            let said = match outcome {
                Outcome::Grant { session_id, .. } if turned_away.contains(&session_id) => {
                    // The edge asks again, and finds the key; here its client does.
                    continue;
                }
                Outcome::Grant { session_id, .. } if written => {
                    if let Some(state) = &mut self.state {
                        state.stamp(session_id, deadline);
                    }
                    Some(Said::Granted(session_id))
                }
                Outcome::Renew { session_id, .. } => match beat(session_id) {
                    Ok(at) => {
                        self.extend(session_id, at.after(ttl));
                        Some(Said::Renewed(session_id))
                    }
                    Err(_) => {
                        stale = true;
                        None
                    }
                },
                Outcome::Deny { .. } if written => Some(Said::Denied),
                Outcome::NotHeld { .. } if written => Some(Said::Released),
                Outcome::End { .. } | Outcome::Expire { .. } if written => Some(Said::Released),
                _ => None,
            };
            match said {
                Some(said) => say(around, &slot, said),
                None => batch.slots.push(slot),
            }
        }
        stale
    }

    fn extend(&mut self, session: SessionId, deadline: events::Time) {
        if let Some(state) = &mut self.state {
            state.extend(session, deadline);
        }
    }

    /// Reservations that became no session are taken back.
    fn finish(&mut self, batch: &Batch, around: &mut Surroundings<'_>) {
        let state = self.state.as_ref();
        let unused = batch
            .reserved
            .iter()
            .copied()
            .filter(|session| state.is_none_or(|state| state.session(*session).is_none()));
        around.gate.release(unused);
    }
}

fn say(around: &mut Surroundings<'_>, slot: &Slot, said: Said) {
    around.replies.push(Reply { id: slot.ask.id, client: slot.ask.client, said });
}
