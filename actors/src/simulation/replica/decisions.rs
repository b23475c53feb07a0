//! A batch of decisions, decided, asked for at the gate, written, settled.

use std::sync::Arc;
use std::time::Duration;

use events::{Appended, Refused, SessionId};

use super::super::client::Said;
use super::super::world::{TTL, at};
use super::{Ask, Replica, Reply, Surroundings};
use crate::gate::{Pass, holder};
use crate::pool::command::{Command, Reason};
use crate::pool::plan::{Asked, Outcome, Plan};
use crate::writer::Job;

/// How often a batch is decided again; as in `pool/batch.rs`.
const MAX_ROUNDS: u32 = 12;

struct Slot {
    ask: Ask,
    command: Command,
    pass: Option<Pass>,
}

/// What is decided together.
pub(super) struct Batch {
    slots: Vec<Slot>,
    plan: Option<Plan>,
    reserved: Vec<SessionId>,
    caught_up: bool,
    rounds: u32,
}

impl Replica {
    /// Decides what was taken out of the mailbox. Answers a job for the log, if there is one.
    pub(super) fn decide(&mut self, asks: Vec<Ask>, around: &mut Surroundings<'_>) -> Option<Arc<Job>> {
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
            self.batch = Some(Box::new(batch));
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

    /// The log's answer to the batch. What is not answered is decided again.
    pub(super) fn decided(
        &mut self,
        mut batch: Batch,
        appended: Appended,
        around: &mut Surroundings<'_>,
    ) -> Option<Arc<Job>> {
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
