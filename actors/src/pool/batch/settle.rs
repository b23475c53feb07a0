//! The end of a round: what was written is applied and answered; what was refused is put right, so that the next round
//! decides otherwise. Only what is committed is answered.

use std::sync::Arc;

use events::{
    Appended, Event, EventLog, LicenseId, LicenseTerms, LogError, NewEvent, Refused, SessionId, Time, UserId,
};
use tokio::sync::oneshot;

use super::{CLOCK_ERROR, Pending, Run};
use crate::fail_point;
use crate::pool::command::{Answer, Command, Grant};
use crate::pool::load::catch_up;
use crate::pool::plan::{Outcome, Plan};

/// What came of a plan.
struct Verdict {
    /// Postgres's time of the append, or of the sending before if this was a resend.
    at: Time,
    /// The decisions and denials are in the log; heartbeats are judged one by one.
    written: bool,
    appended: Appended,
}

impl Verdict {
    fn is_conflict(&self) -> bool {
        self.appended.refused.iter().any(|one| matches!(one, Refused::Conflict { .. }))
    }
}

/// What becomes of a command.
enum Next {
    Answer(Answer),
    /// How its session ended is read from the log.
    LookUp,
    /// Decided again.
    Again,
    /// Decided again, once the state has caught up with the log.
    CatchUp,
}

impl Run<'_> {
    /// Applies what was written and answers; whoever is not answered stays waiting.
    pub(super) async fn settle(&mut self, plan: Plan, appended: Option<Appended>) -> Result<(), LogError> {
        let verdict = self.learn(appended);
        let Plan { draft, decisions, ended, outcomes, .. } = plan;
        let license = draft.license.clone();
        if verdict.written {
            count_expired(&decisions);
            self.core.state = draft;
            self.stamp(&decisions, verdict.at.after(self.context.ttl));
            self.ended.extend(ended);
        }
        if !decisions.is_empty() {
            fail_point::pass("before_reply").await?;
        }
        let mut stale = verdict.is_conflict();
        let mut lookups = Vec::new();
        // Whoever was turned away still waits here, with nobody to listen, so that the outcomes stay in step.
        for (slot, outcome) in std::mem::take(&mut self.waiting).into_iter().zip(outcomes) {
            if let Outcome::Grant { session_id, .. } = &outcome
                && verdict.written
                && slot.pass.is_none()
            {
                // The gate was not asked: the mirror hears of it as of a session that it has forgotten.
                self.living.push(*session_id);
            }
            if slot.reply.is_closed() {
                continue;
            }
            match self.next(&slot, &outcome, &verdict, license.as_ref()) {
                Next::Answer(answer) => reply(slot, answer),
                Next::LookUp => lookups.push(slot),
                Next::Again => self.waiting.push(slot),
                Next::CatchUp => {
                    stale = true;
                    self.waiting.push(slot);
                }
            }
        }
        if !lookups.is_empty() {
            // Beside the batch: nobody else waits for these, and their failure is nobody else's.
            tokio::spawn(look_up(self.context.log.clone(), self.core.state.license_id, lookups));
        }
        if stale {
            self.caught_up = true;
            catch_up(&self.context.log, &self.context.writer, &mut self.core.state).await?;
        }
        Ok(())
    }

    /// The deadlines proposed for new sessions are off by what the estimate of Postgres's clock is: Postgres stamped its own.
    fn stamp(&mut self, decisions: &[NewEvent], deadline: Time) {
        for new in decisions {
            if let (Event::SeatAcquired { .. }, Some(session_id)) = (&new.event, new.subject.session_id) {
                self.core.state.stamp(session_id, deadline);
            }
        }
    }

    /// Reads the refusals: corrects deadlines, and turns away whom no further round can help.
    fn learn(&mut self, appended: Option<Appended>) -> Verdict {
        let Some(appended) = appended else {
            let at = self.context.writer.now();
            return Verdict { at, written: true, appended: Appended { at, refused: Vec::new() } };
        };
        let (mut at, mut written) = (appended.at, true);
        for one in &appended.refused {
            match one {
                Refused::Already { at: before, .. } => at = *before,
                Refused::Conflict { .. } => written = false,
                Refused::NotLapsed { session, until, .. } => {
                    written = false;
                    self.core.state.extend(*session, until.after(CLOCK_ERROR));
                    self.living.push(*session);
                }
                Refused::UserUnknown { session, .. } => {
                    written = false;
                    self.turn_away(*session, &Answer::UserUnknown);
                }
                Refused::UserRemoved { session, .. } => {
                    written = false;
                    self.turn_away(*session, &Answer::UserRemoved);
                }
                Refused::Renewed { session, .. } => {
                    written = false;
                    self.turn_away(*session, &Answer::NotHeld { end: None });
                }
                Refused::KeyTaken { session, .. } => {
                    written = false;
                    self.turn_away(*session, &Answer::KeyTaken);
                }
                Refused::NameTaken { .. }
                | Refused::Written { .. }
                | Refused::Missing { .. }
                | Refused::LicenseInactive { .. }
                | Refused::LicenseExpired { .. }
                | Refused::TenantInactive { .. } => {}
            }
        }
        Verdict { at, written, appended }
    }

    /// What an outcome comes to, given what was written.
    fn next(
        &mut self,
        slot: &Pending,
        outcome: &Outcome,
        verdict: &Verdict,
        license: Option<&Arc<LicenseTerms>>,
    ) -> Next {
        let deadline = verdict.at.after(self.context.ttl);
        let written = verdict.written;
        match outcome {
            Outcome::Grant { session_id, used } if written => self
                .hold(slot, *session_id, *used, license, deadline)
                .map_or(Next::Again, |grant| Next::Answer(Answer::Granted(grant))),
            Outcome::Renew { session_id, used } => {
                let Ok(at) = verdict.appended.heartbeat(*session_id) else { return Next::CatchUp };
                let deadline = at.after(self.context.ttl);
                self.core.state.extend(*session_id, deadline);
                self.living.push(*session_id);
                self.hold(slot, *session_id, *used, license, deadline)
                    .map_or(Next::Again, |grant| Next::Answer(Answer::Renewed(grant)))
            }
            Outcome::Deny { reason, used, total } if written => {
                Next::Answer(Answer::Denied { reason: *reason, used: *used, total: *total })
            }
            // Perhaps it is not held only because this batch expired it, and that was refused.
            Outcome::NotHeld { .. } if written => Next::LookUp,
            Outcome::End { .. } if written => Next::Answer(match slot.command {
                Command::Revoke { .. } => Answer::Revoked,
                _ => Answer::Released,
            }),
            Outcome::Expire { .. } if written => Next::Answer(Answer::Expired),
            _ => Next::Again,
        }
    }

    /// A seat as it is answered.
    fn hold(
        &self,
        slot: &Pending,
        session_id: SessionId,
        used: u32,
        license: Option<&Arc<LicenseTerms>>,
        deadline: Time,
    ) -> Option<Grant> {
        let Command::Acquire { user_id, hardware_id, .. } = &slot.command else { return None };
        Some(Grant {
            session_id,
            user_id: user_id.clone(),
            hardware_id: hardware_id.clone(),
            license: license?.clone(),
            deadline,
            used,
            total: self.core.state.limit(),
        })
    }

    /// Answers the acquire that would have got this session, or the release that would have given it back.
    fn turn_away(&mut self, session: SessionId, answer: &Answer) {
        for pending in &mut self.waiting {
            let meant = match &pending.command {
                Command::Acquire { session_id, .. } => *session_id == session,
                Command::Release { session_id, give_back, .. } => *give_back && *session_id == session,
                _ => false,
            };
            if meant {
                let (closed, _) = oneshot::channel();
                let sender = std::mem::replace(&mut pending.reply, closed);
                let _ = sender.send(answer.clone());
            }
        }
    }
}

fn count_expired(decisions: &[NewEvent]) {
    let expired = decisions.iter().filter(|new| matches!(new.event, Event::SeatExpired { .. })).count();
    metrics::counter!("license_seat_decisions_total", "decision" => "expired").increment(expired as u64);
}

/// Answers commands whose session is not held: how it ended, if it ever was this user's.
async fn look_up(log: EventLog, license_id: LicenseId, slots: Vec<Pending>) {
    for slot in slots {
        match not_held_by(&log, license_id, &slot.command).await {
            Ok(answer) => reply(slot, answer),
            Err(error) => tracing::warn!(%error, %license_id, "an ended session was not looked up"),
        }
    }
}

async fn not_held_by(log: &EventLog, license_id: LicenseId, command: &Command) -> Result<Answer, LogError> {
    let (session_id, user_id) = match command {
        Command::Release { session_id, user_id, .. } => (*session_id, Some(user_id)),
        Command::Revoke { session_id, .. } => (*session_id, None),
        Command::Acquire { renews: Some(session_id), user_id, .. } => (*session_id, Some(user_id)),
        _ => return Ok(Answer::NotHeld { end: None }),
    };
    not_held(log, license_id, session_id, user_id).await
}

/// How a session that is not held has ended, if it ever was of this pool, and of this user.
///
/// # Errors
/// When the log cannot be asked.
pub(in crate::pool) async fn not_held(
    log: &EventLog,
    license_id: LicenseId,
    session_id: SessionId,
    user_id: Option<&UserId>,
) -> Result<Answer, LogError> {
    let place = log.find_session(session_id).await?;
    let own = place.is_some_and(|place| {
        place.license_id == license_id && user_id.is_none_or(|user_id| place.user_id == *user_id)
    });
    let end = if own { log.session_end(session_id).await? } else { None };
    Ok(Answer::NotHeld { end })
}

fn reply(pending: Pending, answer: Answer) {
    let decision = match &answer {
        Answer::Granted(_) => Some("granted"),
        Answer::Renewed(_) => Some("renewed"),
        Answer::Denied { .. } => Some("denied"),
        Answer::Released => Some("released"),
        Answer::Revoked => Some("revoked"),
        _ => None,
    };
    if let Some(decision) = decision {
        metrics::counter!("license_seat_decisions_total", "decision" => decision).increment(1);
    }
    let _ = pending.reply.send(answer);
}
