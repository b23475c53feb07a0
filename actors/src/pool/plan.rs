//! One batch of commands, decided on a draft of the pool's state. Pure.

use std::collections::HashSet;
use std::time::Duration;

use events::{
    Event, HeartbeatWrite, IdempotencyKey, NewEvent, Seats, SessionId, Standing, StreamWrite, Subject, Time,
};
use uuid::Uuid;

use super::batch::Pending;
use super::command::{Command, Reason};
use super::decide::{Refusal, decide};
use super::state::PoolState;
use crate::writer::Job;

/// What a command comes to, if the batch is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A new session.
    Grant { session_id: SessionId, used: u32 },
    /// A heartbeat of the session that the user holds on this machine.
    Renew { session_id: SessionId, used: u32 },
    /// No seat.
    Deny { reason: Reason, used: u32, total: Seats },
    /// A session ends.
    End { session_id: SessionId },
    /// No such session of that user in this state.
    NotHeld { session_id: SessionId },
    /// Lapsed sessions end, if there are any.
    Expire {
        /// There are, and this state does not know them.
        missed: bool,
    },
    /// The session's heartbeat is in this batch already: next time.
    Later,
}

/// What a batch writes, and what each of its commands comes to.
pub(crate) struct Plan {
    /// One a command, in order.
    pub outcomes: Vec<Outcome>,
    /// Sessions that end, with their holders: what the mirror forgets.
    pub ended: Vec<(SessionId, String)>,
    /// The state, should the decisions be written.
    pub draft: PoolState,
    pub decisions: Vec<NewEvent>,
    pub heartbeats: Vec<HeartbeatWrite>,
    standing: Option<Standing>,
    expected: i64,
}

/// A command and the request it came with.
pub(crate) struct Asked<'a> {
    pub command: &'a Command,
    pub request_id: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub(crate) fn of(pending: &'a Pending) -> Self {
        Self { command: &pending.command, request_id: pending.request_id.as_deref() }
    }
}

impl Plan {
    /// Decides the commands in order: expiries first, if anybody asks for a seat or for expiries.
    pub(crate) fn of(state: &PoolState, asked: &[Asked<'_>], now: Time, ttl: Duration) -> Self {
        let mut plan = Self {
            outcomes: Vec::with_capacity(asked.len()),
            ended: Vec::new(),
            draft: state.clone(),
            decisions: Vec::new(),
            heartbeats: Vec::new(),
            standing: None,
            expected: state.version,
        };
        let mut beaten = HashSet::new();
        if asked.iter().any(|one| matches!(one.command, Command::Acquire { .. } | Command::Expire { .. }))
            && let Ok(expiries) = decide(state, &Command::Expire { overdue: false }, now, ttl)
        {
            for (subject, event) in expiries {
                plan.write(subject, event, None, None, now);
            }
        }
        for one in asked {
            let outcome = plan.decide_one(one, now, ttl, &mut beaten);
            plan.outcomes.push(outcome);
        }
        plan
    }

    fn decide_one(
        &mut self,
        one: &Asked<'_>,
        now: Time,
        ttl: Duration,
        beaten: &mut HashSet<SessionId>,
    ) -> Outcome {
        if let Command::Expire { overdue } = one.command {
            return Outcome::Expire { missed: *overdue && self.ended.is_empty() };
        }
        let request_id = one.request_id.map(str::to_owned);
        let proposed = match decide(&self.draft, one.command, now, ttl) {
            Ok(proposed) => proposed,
            Err(Refusal::Denied(reason)) => {
                let (used, total) = (self.draft.used(), self.draft.limit());
                if let Command::Acquire { user_id, hardware_id, .. } = one.command {
                    let subject = Subject {
                        session_id: None,
                        user_id: Some(user_id.clone()),
                        hardware_id: Some(hardware_id.clone()),
                    };
                    self.standing = Some(self.draft.standing(now));
                    let denial = reason.denial(&self.draft);
                    self.write(subject, denial, request_id, None, now);
                }
                return Outcome::Deny { reason, used, total };
            }
            Err(Refusal::NotHeld | Refusal::Stale) => {
                return Outcome::NotHeld { session_id: named(one.command) };
            }
        };
        let mut outcome = Outcome::Later;
        for (subject, event) in proposed {
            let Some(session_id) = subject.session_id else { continue };
            outcome = match &event {
                Event::SeatHeartbeat { .. } => {
                    // One heartbeat a session and statement: it answers every acquire that renews, and stores one key.
                    let key = match one.command {
                        Command::Acquire { key, .. } => key.clone(),
                        _ => None,
                    };
                    if beaten.insert(session_id) {
                        self.beat(session_id, &subject, request_id.clone(), key);
                    } else if key.is_some() {
                        return Outcome::Later;
                    }
                    Outcome::Renew { session_id, used: self.draft.used() }
                }
                Event::SeatAcquired { seats_used, .. } => {
                    self.standing = Some(Standing::Ok);
                    Outcome::Grant { session_id, used: *seats_used }
                }
                _ => Outcome::End { session_id },
            };
            if event.is_decision() {
                let (key, give_back) = match one.command {
                    Command::Acquire { key, .. } => (key.clone(), false),
                    Command::Release { forget, give_back, .. } => (forget.clone(), *give_back),
                    _ => (None, false),
                };
                self.write(subject, event, request_id.clone(), key, now);
                if let Some(last) = self.decisions.last_mut() {
                    last.give_back = give_back;
                }
            }
        }
        outcome
    }

    fn beat(
        &mut self,
        session_id: SessionId,
        subject: &Subject,
        request_id: Option<String>,
        key: Option<IdempotencyKey>,
    ) {
        if let Some(user_id) = subject.user_id.clone() {
            self.heartbeats.push(HeartbeatWrite {
                event_id: Uuid::now_v7(),
                stream_id: self.draft.license_id.0,
                session_id,
                user_id,
                request_id,
                key,
            });
        }
    }

    fn write(
        &mut self,
        subject: Subject,
        event: Event,
        request_id: Option<String>,
        key: Option<IdempotencyKey>,
        now: Time,
    ) {
        if matches!(event, Event::SeatReleased {} | Event::SeatExpired { .. } | Event::SeatRevoked { .. })
            && let (Some(session_id), Some(user_id), Some(hardware_id)) =
                (subject.session_id, &subject.user_id, &subject.hardware_id)
        {
            self.ended.push((session_id, crate::gate::holder(user_id, hardware_id)));
        }
        self.draft.apply(&subject, &event, now);
        self.decisions.push(NewEvent {
            event_id: Uuid::now_v7(),
            subject,
            event,
            request_id,
            key,
            give_back: false,
        });
    }

    /// Whether there is anything to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.decisions.is_empty() && self.heartbeats.is_empty()
    }

    /// The job for the writer.
    pub(crate) fn job(&self) -> Job {
        let mut job = Job { heartbeats: self.heartbeats.clone(), ..Job::default() };
        if !self.decisions.is_empty() {
            job.streams.push(StreamWrite {
                stream_id: self.draft.license_id.0,
                tenant_id: self.draft.tenant_id,
                product: self.draft.license.as_ref().map(|license| license.product.clone()),
                expected: self.expected,
                standing: self.standing,
                events: self.decisions.clone(),
            });
        }
        job
    }
}

/// The session that a command names; acquires are never asked.
fn named(command: &Command) -> SessionId {
    match command {
        Command::Acquire { session_id, .. }
        | Command::Release { session_id, .. }
        | Command::Revoke { session_id, .. } => *session_id,
        Command::Expire { .. } | Command::ChangeLicense { .. } => SessionId(Uuid::nil()),
    }
}
